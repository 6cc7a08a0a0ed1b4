"""Schemas of Pydantic: what a grammar writes is a valid model."""

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pydantic
import pytest
from jsonschema import Draft202012Validator
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    SecretStr,
    TypeAdapter,
    create_model,
)
from tests.support.constrained import Languages
from tests.support.running_server import RunningServer

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import GrammarError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    """Where to deliver."""

    street: str = Field(max_length=8, description="Street and number", examples=["5 Oak Rd"])
    zip: Annotated[str, Field(pattern=r"^\d{5}$")] = "00000"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Node(BaseModel):
    value: int
    next: "Node | None" = None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", title="A strict one")

    a: int = Field(deprecated=True)
    b: bool = True


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Line:
    item: str
    quantity: int = 1


short = Annotated[str, Field(max_length=6)]
TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "bounded integer": Annotated[int, Field(gt=0, le=10)],
    "bounded float": Annotated[float, Field(ge=0, lt=1.5)],
    "open interval": Annotated[float, Field(gt=0, lt=0.5)],
    "multiple": Annotated[int, Field(multiple_of=5)],
    "decimal multiple": Annotated[float, Field(multiple_of=0.5)],
    "pattern": Annotated[str, Field(pattern=r"^[A-Z]{2}\d+$", min_length=3, max_length=8)],
    "length": Annotated[str, Field(min_length=2, max_length=4)],
    "Path": Path,
    "SecretStr": SecretStr,
    "bytes": bytes,
    "UUID": UUID,
    "date": date,
    "time": time,
    "datetime": datetime,
    "IPv4Address": IPv4Address,
    "IPv6Address": IPv6Address,
    "Enum": Color,
    "IntEnum": Level,
    "Literal": Literal["a", 1, True] | None,
    "Optional": int | None,
    "union": int | short | Address,
    "model": Address,
    "recursive model": Node,
    "tagged union": Annotated[Cat | Dog, Field(discriminator="kind")],
    "strict model": Strict,
    "list": list[int],
    "bounded list": Annotated[list[Color], Field(min_length=1, max_length=3)],
    "tuple": tuple[int, short, Color],
    "tuple of any length": tuple[int, ...],
    "empty tuple": tuple[()],
    "set of an Enum": set[Color],
    "frozenset of literals": frozenset[Literal["a", "b", "c"]],
    "dict": dict[str, int],
    "dict of an Enum": dict[Color, int],
    "dict by length": dict[Annotated[str, Field(min_length=1, max_length=3)], bool],
    "dict of dates": dict[date, int],
    "Mapping": Mapping[str, list[int]],
    "Sequence": Sequence[int],
    "NamedTuple": Point,
    "dataclass": Line,
    "annotated": Annotated[int, Field(title="T", description="D", examples=[10**20])],
}
# Types that check more than their schemas say.
STRICTER: dict[str, Any] = {
    "dict by pattern": dict[Annotated[str, Field(pattern="^a+$")], bool],
    "AnyUrl": AnyUrl,
    "bounded Decimal": Annotated[Decimal, Field(gt=0, le=100)],
    "Decimal": Decimal,
    "EmailStr": EmailStr,
    "timedelta": timedelta,
    "Any": Any,
    "Json": pydantic.Json[int],
    "ByteSize": pydantic.ByteSize,
    "Base64Str": pydantic.Base64Str,
    "IPvAnyNetwork": pydantic.IPvAnyNetwork,
    "UUID4": pydantic.UUID4,
    "PostgresDsn": pydantic.PostgresDsn,
}


def model_of(kind: Any) -> type[BaseModel]:
    """Return a model with a required and an optional field."""
    return create_model("Model", value=(kind, ...), other=(kind | None, None))


@pytest.mark.parametrize("name", TYPES)
def test_what_a_grammar_writes_is_a_valid_model(languages: Languages, name: str) -> None:
    model = model_of(TYPES[name])
    schema = model.model_json_schema()
    language = languages.of_schema(schema)
    for seed in range(8):
        text = language.write(seed)
        model.model_validate_json(text)
        Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("name", STRICTER)
def test_what_a_grammar_writes_satisfies_the_schema(languages: Languages, name: str) -> None:
    schema = model_of(STRICTER[name]).model_json_schema()
    language = languages.of_schema(schema)
    for seed in range(8):
        Draft202012Validator(schema).validate(json.loads(language.write(seed)))


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_a_schema_with_definitions_is_supported_in_both_modes(
    languages: Languages, mode: Literal["validation", "serialization"]
) -> None:
    class Order(BaseModel):
        id: UUID
        to: Address
        lines: list[Line] = Field(default_factory=list, max_length=2)
        total: Decimal = Decimal("1.50")
        color: Color = Color.RED
        history: list["Order"] = Field(default_factory=list, max_length=1)

    adapter = TypeAdapter(Order)
    language = languages.of_schema(adapter.json_schema(mode=mode))
    for seed in range(4):
        adapter.validate_json(language.write(seed, most=900))


def test_a_model_is_admitted_as_it_is_written(languages: Languages) -> None:
    order = Node(value=1, next=Node(value=-2))
    assert languages.of_schema(Node.model_json_schema()).admits(order.model_dump_json())


def test_a_set_of_any_integers_says_what_to_do(languages: Languages) -> None:
    with pytest.raises(
        GrammarError,
        match=r"^#/properties/value/uniqueItems: .* use false, or a list in place of a set$",
    ):
        languages.of_schema(create_model("Model", value=(set[int], ...)).model_json_schema())


@pytest.mark.process
async def test_a_served_model_writes_valid_models(running: RunningServer) -> None:
    class Parcel(BaseModel):
        kind: Literal["letter", "box"]
        color: Color | None
        weight: Annotated[int, Field(gt=0, lt=100)]
        tags: set[Literal["a", "b"]]
        to: dict[Color, Literal["x"]]

        model_config = ConfigDict(extra="forbid")

    constraint = pb.Constraint(json_schema=json.dumps(Parcel.model_json_schema()))
    for seed in range(5):
        options = pb.GenerationOptions(
            sampling=pb.SamplingParams(temperature=1.5, seed=seed),
            stopping=pb.StoppingCriteria(max_new_tokens=85),
            constraint=constraint,
        )
        request = pb.GenerateRequest(prompts=[pb.Prompt(text="A parcel:")], options=options)
        [result] = (await running.stub.Generate(request)).results
        assert 0 < Parcel.model_validate_json(result.candidates[0].text).weight < 100

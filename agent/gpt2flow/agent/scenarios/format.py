"""The format of a scenario file; `docs/scenarios.md` describes it for its writers."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop.orders import OrderStatus

Value = str | int | float | bool | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CustomerState(_Part):
    """A customer who has an account already."""

    contact: str
    name: str
    language: Literal["en", "zh"] = "en"
    address: str | None = None


class OrderState(_Part):
    """An order of such a customer; ages are days before the scenario's clock."""

    number: str = Field(pattern=r"^SO-[0-9]{4,6}$")
    contact: str
    status: OrderStatus
    lines: dict[str, int] = Field(min_length=1, description="quantity by stock-keeping unit")
    address: str = "1 High Street, York"
    placed_days_ago: float = Field(0.0, ge=0)
    delivered_days_ago: float | None = Field(None, ge=0)


class ShopState(_Part):
    """What is in the shop beside its catalogue when the scenario begins."""

    customers: list[CustomerState] = []
    orders: list[OrderState] = []
    stock: dict[str, int] = Field({}, description="by stock-keeping unit; others keep theirs")


class Turn(_Part):
    """A message of a customer.

    `{code}` in the text is the last verification code that was sent: what a
    customer reads in the inbox and copies.
    """

    text: str
    session: str = "customer"


class Expectation(_Part):
    """How the scenario must end.

    For each table named, `rows` lists all rows that must be there and no
    others, each by some of its columns. Columns that refer to another row may
    be given in words: `customer` (the contact), `order` (the number).
    """

    rows: dict[str, list[dict[str, Value]]] = {}
    facts: list[str] = Field([], description="texts that must stand in some message")


class Scenario(_Part):
    """One scenario."""

    id: str
    title: str = ""
    shop: ShopState = ShopState()
    turns: list[Turn] = Field(min_length=1)
    expect: Expectation = Expectation()


_Scenarios = TypeAdapter(list[Scenario])


def load_scenarios(path: Path) -> list[Scenario]:
    """Load a YAML file with a list of scenarios.

    Raises:
        InputError: it cannot be read, or says something invalid; names the field.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _Scenarios.validate_python(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"scenarios {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"scenarios {path}: {field or 'file'}: {first['msg']}") from error

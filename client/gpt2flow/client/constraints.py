"""Constraints of the output."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from gpt2flow.client import validation
from gpt2flow.client.errors import SettingsError
from gpt2flow.inference.v1 import inference_pb2 as pb


@runtime_checkable
class SchemaSource(Protocol):
    """Class with a JSON schema, such as a Pydantic model."""

    def model_json_schema(self) -> dict[str, Any]:
        """Return the schema."""


@dataclass(frozen=True)
class JsonSchema:
    """Constraint of the output to JSON that matches a schema.

    Attributes:
        schema: The JSON schema: JSON text, a dict, or a Pydantic model class. It is kept as JSON
            text.

    Raises:
        SettingsError: The schema is none of these.
    """

    schema: str | Mapping[str, Any] | SchemaSource

    def __post_init__(self) -> None:
        """Raise SettingsError if the schema is of another kind."""
        object.__setattr__(self, "schema", _schema_text(self.schema))


@dataclass(frozen=True)
class Regex:
    """Constraint of the output to a regular expression.

    Attributes:
        pattern: Regular expression that the whole output matches.

    Raises:
        SettingsError: The pattern is not text.
    """

    pattern: str

    def __post_init__(self) -> None:
        """Raise SettingsError if the pattern is not text."""
        validation.text("pattern", self.pattern)


@dataclass(frozen=True)
class Choices:
    """Constraint of the output to one of several strings.

    Attributes:
        values: The strings: at least one, none empty, no two equal.

    Raises:
        SettingsError: The values are not texts.
    """

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise SettingsError if the values are not texts."""
        validation.check_fields(self, pb.Choices)


@dataclass(frozen=True)
class Lark:
    """Constraint of the output to a context-free grammar.

    Attributes:
        grammar: Grammar in llguidance's dialect of Lark; its start rule is `start`.

    Raises:
        SettingsError: The grammar is not text.
    """

    grammar: str

    def __post_init__(self) -> None:
        """Raise SettingsError if the grammar is not text."""
        validation.text("grammar", self.grammar)


@dataclass(frozen=True)
class StoredChoices:
    """Constraint of the output to an entry of a stored list.

    Attributes:
        name: Name of the list; `Model.stored_choices` has those of a model.

    Raises:
        SettingsError: The name is not text.
    """

    name: str

    def __post_init__(self) -> None:
        """Raise SettingsError if the name is not text."""
        validation.text("name", self.name)


Constraint = JsonSchema | Regex | Choices | Lark | StoredChoices


def build_constraint(constraint: Constraint | None) -> pb.Constraint | None:
    """Return a constraint as a protocol message."""
    match constraint:
        case None:
            return None
        case JsonSchema():
            return pb.Constraint(json_schema=_schema_text(constraint.schema))
        case Regex():
            return pb.Constraint(regex=constraint.pattern)
        case Choices():
            return pb.Constraint(choices=validation.fill(pb.Choices, constraint))
        case Lark():
            return pb.Constraint(lark=constraint.grammar)
        case StoredChoices():
            return pb.Constraint(stored_choices=constraint.name)


def _schema_text(schema: object) -> str:
    """Return a schema as JSON text."""
    if isinstance(schema, str):
        return validation.text("schema", schema)
    try:
        if isinstance(schema, SchemaSource):
            schema = schema.model_json_schema()
        if isinstance(schema, Mapping):
            written = json.dumps(dict(schema), allow_nan=False, ensure_ascii=False)
            return validation.text("schema", written)
    except SettingsError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise validation.invalid("schema", schema, f"a JSON schema: {reason}") from error
    raise validation.invalid("schema", schema, "JSON text, a dict or a Pydantic model class")

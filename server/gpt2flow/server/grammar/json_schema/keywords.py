"""Keywords of JSON Schema: what their values hold, and which are refused.

A keyword in none of these tables is an annotation, as the standard says.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

# Options of the grammar compiler, at the root.
OPTIONS: Final = "x-guidance"

TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")

# Keywords by what their values hold.
SCHEMA: Final = frozenset({"items", "additionalItems", "additionalProperties"})
SCHEMA_LIST: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
SCHEMA_MAP: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
VALUE: Final = frozenset({"const", "enum"})
BOUND: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
COUNT: Final = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)
TEXT: Final = frozenset({"pattern", "format"})
PLAIN: Final = frozenset({"type", "required", "multipleOf", "$ref"})
NAMES: Final = frozenset({"$id", "id", "$anchor"})

# Dialects that the compiler knows; it takes any other for its latest.
DIALECT: Final = re.compile(
    r"https?://json-schema\.org/(draft-0[467]|draft/20(19-09|20-12))/schema#?"
)

_ANYTHING: Final[tuple[Any, ...]] = (True, {})
_Demand = Callable[[Any, Mapping[str, Any]], bool]


def _is_map_of(*values: Any) -> _Demand:
    return lambda value, _: (
        isinstance(value, dict) and all(each in values for each in value.values())
    )


def _is_anything(value: Any, _: Mapping[str, Any]) -> bool:
    return value in _ANYTHING


def _never(*_: Any) -> bool:
    return False


# Keywords that the compiler lacks, with the test whether a value demands nothing. It takes the
# value and the schema around it.
LACKING: Final[Mapping[str, _Demand]] = {
    "not": lambda value, _: value is False,
    "if": lambda _, schema: not schema.keys() & {"then", "else"},
    "then": lambda _, schema: "if" not in schema,
    "else": lambda _, schema: "if" not in schema,
    "contains": lambda _, schema: schema.get("minContains") == 0 and "maxContains" not in schema,
    "minContains": lambda value, schema: value == 0 or "contains" not in schema,
    "maxContains": lambda _, schema: "contains" not in schema,
    "propertyNames": _is_anything,
    "unevaluatedItems": _is_anything,
    "unevaluatedProperties": _is_anything,
    "dependentRequired": _is_map_of([]),
    "dependentSchemas": _is_map_of(*_ANYTHING),
    "dependencies": _is_map_of([], *_ANYTHING),
    "uniqueItems": lambda value, schema: value is False or schema.get("maxItems") in (0, 1),
    "$dynamicRef": _never,
    "$recursiveRef": _never,
}
# What is said of a keyword that demands something, in place of "is not supported".
ADVICE: Final[Mapping[str, str]] = {
    "uniqueItems": "true needs items of a short enum; use false, or a list in place of a set",
    "propertyNames": "must be an enum, a pattern or lengths, without properties beside it",
}

# Keywords that restrict the values of a schema.
ASSERTIONS: Final = (
    SCHEMA
    | SCHEMA_LIST
    | {"properties", "patternProperties"}
    | VALUE
    | BOUND
    | COUNT
    | TEXT
    | PLAIN
    | LACKING.keys()
)


def has_type(value: object, name: object) -> bool:
    """Return whether a JSON value has a type; None is any."""
    if isinstance(name, list):
        return any(has_type(value, each) for each in name)
    kinds: Mapping[object, bool] = {
        None: True,
        "null": value is None,
        "boolean": isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "string": isinstance(value, str),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }
    return isinstance(name, str | None) and kinds.get(name, False)

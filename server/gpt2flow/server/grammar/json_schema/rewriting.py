"""Keywords that the grammar compiler lacks, expressed by others."""

from collections.abc import Sequence
from itertools import combinations, islice, pairwise, permutations
from math import perm
from typing import Any, Final

from gpt2flow.server.grammar.json_schema.keywords import ASSERTIONS, has_type
from gpt2flow.server.grammar.json_schema.numbers import InexactNumber, parse_count
from gpt2flow.server.grammar.json_schema.patterns import DATES
from gpt2flow.server.grammar.json_schema.pointers import look_up, split_pointer

# Arrays that may stand for one of unique items.
_MAX_ARRAYS: Final = 2000
# Steps for one document: names and array items that are listed, and values that are compared.
_MAX_STEPS: Final = 200_000
# References in a row that are followed; more are a cycle.
_MAX_REFERENCES: Final = 32
# Schemas of a `oneOf` that are compared with each other, and properties of each.
_MAX_COMPARED: Final = 50
_MAX_TAGS: Final = 20

_Schema = dict[str, Any]


class Rewriter:
    """Rewriter of the keywords of one document's schemas."""

    def __init__(self, root: _Schema) -> None:
        self._root = root
        self._steps = _MAX_STEPS
        self._tags: dict[int, dict[str, list[Any]]] = {}
        self._values: dict[int, list[Any] | None] = {}

    def rewrite(self, schema: _Schema) -> _Schema:
        """Return an equivalent schema, with fewer keywords that the compiler lacks."""
        if schema.get("uniqueItems") is True:
            schema = self._list_arrays(schema)
        if "propertyNames" in schema:
            schema = self._name_properties(schema)
        if isinstance(schema.get("oneOf"), list) and "anyOf" not in schema:
            schema = self._merge_alternatives(schema)
        return schema

    def _list_arrays(self, schema: _Schema) -> _Schema:
        """List the arrays of a schema whose items are unique and few."""
        keywords = {"type", "items", "uniqueItems", "minItems", "maxItems"}
        if schema.get("type") != "array" or not schema.keys() & ASSERTIONS <= keywords:
            return schema
        values = self._listed(schema.get("items"))
        least, most = (parse_count(schema.get(name, 0)) for name in ("minItems", "maxItems"))
        if values is None or len(values) > _MAX_ARRAYS or least is None or most is None:
            return schema
        longest = min(len(values), most) if "maxItems" in schema else len(values)
        sizes = range(least, longest + 1)
        count = sum(perm(len(values), size) for size in sizes)
        if count > _MAX_ARRAYS or not self._allow(count * (longest + 1)):
            return schema
        arrays = [list(each) for size in sizes for each in permutations(values, size)]
        return {name: schema[name] for name in schema if name not in keywords} | {"enum": arrays}

    def _name_properties(self, schema: _Schema) -> _Schema:
        """List the names of an object's properties, or give them a pattern."""
        names = self._resolve(schema["propertyNames"])
        if not isinstance(names, dict) or schema.keys() & {"properties", "patternProperties"}:
            return schema
        rest = {name: schema[name] for name in schema if name != "propertyNames"}
        value = rest.get("additionalProperties", True)
        texts = self._listed(names)
        if texts is not None and self._allow(len(texts)):
            named = {text: value for text in texts if isinstance(text, str)}
            return rest | {"properties": named, "additionalProperties": False}
        if pattern := _name_pattern(names):
            return rest | {"patternProperties": {pattern: value}, "additionalProperties": False}
        return schema

    def _merge_alternatives(self, schema: _Schema) -> _Schema:
        """Replace `oneOf` by `anyOf` if no value satisfies two of its schemas."""
        options = [self._resolve(option) for option in schema["oneOf"]]
        tags = [self._tags_of(option) for option in options]
        shared = set.intersection(*map(set, tags)) if tags else set()
        if any(self._are_disjoint([each[name] for each in tags]) for name in shared) or (
            len(options) <= _MAX_COMPARED
            and all(self._exclude(*pair) for pair in combinations(options, 2))
        ):
            return {("anyOf" if name == "oneOf" else name): schema[name] for name in schema}
        return schema

    def _exclude(self, one: Any, other: Any) -> bool:
        """Return whether no value satisfies both schemas, by their types or tags."""
        if _types(one) and _types(other) and not _types(one) & _types(other):
            return True
        tags, others = self._tags_of(one), self._tags_of(other)
        return any(self._are_disjoint([tags[name], others[name]]) for name in tags.keys() & others)

    def _are_disjoint(self, lists: Sequence[Sequence[Any]]) -> bool:
        if not self._allow(sum(map(len, lists))):
            return False
        keys = sorted(key for values in lists for key in map(_key, values) if key is not None)
        return all(one != other for one, other in pairwise(keys))

    def _allow(self, steps: int) -> bool:
        """Return whether so many steps may be taken, and count them."""
        if steps > self._steps:
            return False
        self._steps -= steps
        return True

    def _tags_of(self, schema: Any) -> dict[str, list[Any]]:
        """Return the values of required properties, where they are listed."""
        if not isinstance(schema, dict) or schema.get("type") != "object":
            return {}
        if id(schema) not in self._tags:
            properties, required = schema.get("properties"), schema.get("required")
            tags = {}
            if isinstance(properties, dict) and isinstance(required, list):
                needed = {name for name in required if isinstance(name, str)}
                for name in islice(filter(needed.__contains__, properties), _MAX_TAGS):
                    if values := self._listed(properties[name]):
                        tags[name] = values
            self._tags[id(schema)] = tags
        return self._tags[id(schema)]

    def _listed(self, schema: Any) -> list[Any] | None:
        """Return the different values of a schema that lists them, or None."""
        schema = self._resolve(schema)
        if not isinstance(schema, dict):
            return None
        if id(schema) not in self._values:
            self._values[id(schema)] = _values(schema)
        return self._values[id(schema)]

    def _resolve(self, schema: Any) -> Any:
        """Follow references within the document that nothing stands beside."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(schema, dict) or schema.keys() & ASSERTIONS != {"$ref"}:
                return schema
            reference = schema["$ref"]
            if not isinstance(reference, str) or not reference.startswith("#/"):
                return None
            schema = look_up(self._root, split_pointer(reference))
        return None


def _values(schema: _Schema) -> list[Any] | None:
    demands = schema.keys() & ASSERTIONS
    kind = schema.get("type")
    values: Any = None
    if demands <= {"enum", "type"}:
        values = schema.get("enum")
    elif demands <= {"const", "type"}:
        values = [schema["const"]]
    if demands == {"type"} and kind in ("boolean", "null"):
        values = [False, True] if kind == "boolean" else [None]
    if not isinstance(values, list) or not all(has_type(each, kind) for each in values):
        return None
    different = {_key(each): each for each in values}
    return None if None in different else list(different.values())


def _key(value: Any) -> tuple[str, str] | None:
    """Return what tells a plain value from others, or None."""
    if isinstance(value, list | dict | InexactNumber):
        return None
    kind = "boolean" if isinstance(value, bool) else "number"
    return (kind, str(float(value))) if isinstance(value, int | float) else ("", repr(value))


def _types(schema: Any) -> set[str]:
    """Return the types of a schema; none if it names none."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    kinds = kind if isinstance(kind, list) else [kind]
    return {"number" if each == "integer" else each for each in kinds if isinstance(each, str)}


def _name_pattern(names: _Schema) -> str | None:
    """Return a pattern in place of a name's schema, or None."""
    demands = names.keys() & ASSERTIONS - {"type"}
    if names.get("type", "string") != "string":
        return None
    if demands == {"pattern"}:
        return str(names["pattern"])
    if demands == {"format"}:
        return DATES.get(str(names["format"]))
    least, most = parse_count(names.get("minLength", 0)), parse_count(names.get("maxLength", 0))
    if demands and demands <= {"minLength", "maxLength"} and least is not None and most is not None:
        return f"^(?s:.{{{least},{most if 'maxLength' in names else ''}}})$"
    return None

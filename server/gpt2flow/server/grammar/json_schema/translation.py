"""Translation of JSON schemas for the grammar compiler.

Annotations are left out, and so are keywords with a value that demands nothing. What cannot be
enforced is refused by its place in the schema. Numbers are exact, or refused.
"""

import json
import re
from typing import Any, Final

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.json_schema.keywords import (
    ADVICE,
    BOUND,
    COUNT,
    DIALECT,
    LACKING,
    NAMES,
    OPTIONS,
    PLAIN,
    SCHEMA,
    SCHEMA_LIST,
    SCHEMA_MAP,
    TYPES,
    VALUE,
)
from gpt2flow.server.grammar.json_schema.numbers import (
    DECODER,
    InexactNumber,
    close_open_bounds,
    keeps_divisor,
    parse_count,
    parse_json,
)
from gpt2flow.server.grammar.json_schema.patterns import (
    DATES,
    FORMATS,
    translate_pattern,
)
from gpt2flow.server.grammar.json_schema.pointers import (
    Path,
    look_up,
    place_error,
    put,
    split_pointer,
)
from gpt2flow.server.grammar.json_schema.rewriting import Rewriter

# Schemas in one document, after rewriting.
_MAX_SCHEMAS: Final = 100_000

# Strings, expressions and comments of a Lark grammar, to the end of their line at most, and
# schemas in it.
_LARK: Final = re.compile(
    r'"(?:\\.|[^"\\\n])*"?|/(?!/)(?:\\.|[^/\\\n])*/?|(?://|#)[^\n]*|(?P<schema>%json\s*)(?=\{)'
)

_KINDS: Final[dict[type, str]] = {list: "an array", dict: "an object", str: "a string"}

_Schema = dict[str, Any]


def translate_schema(source: str) -> str:
    """Return a schema for the grammar compiler.

    Raises:
        GrammarError: The source is no JSON schema, or demands what cannot be enforced exactly.
    """
    return _write(parse_json(source))


def translate_lark(source: str) -> str:
    """Return a Lark grammar whose schemas (`%json`) are translated.

    Raises:
        GrammarError: A schema demands what cannot be enforced exactly.
    """
    parts, position = [], 0
    while match := _LARK.search(source, position):
        parts.append(source[position : match.end()])
        position = match.end()
        if match["schema"]:
            try:
                schema, position = DECODER.raw_decode(source, position)
            except (ValueError, RecursionError):
                break  # The compiler explains it, with its place in the grammar.
            parts.append(_write(schema))
    return "".join([*parts, source[position:]])


def _write(schema: object) -> str:
    if not isinstance(schema, dict):
        raise GrammarError("a JSON schema must be an object")
    try:
        return json.dumps(_Translator(schema).translate())
    except RecursionError as error:
        raise GrammarError("nested too deeply") from error


class _Translator:
    """Translator of one schema."""

    def __init__(self, root: _Schema) -> None:
        self._root = root
        self._rewriter = Rewriter(root)
        options = root.get(OPTIONS)
        self._lenient = isinstance(options, dict) and options.get("lenient") is True
        self._references: dict[str, None] = {}
        self._schemas = 0

    def translate(self) -> _Schema:
        """Return the schema, with all that its references point to.

        Raises:
            GrammarError: It demands what cannot be enforced.
        """
        result = self._object(self._root, ())
        done: set[str] = set()
        while missing := [each for each in self._references if each not in done]:
            for reference in missing:
                done.add(reference)
                path = split_pointer(reference)
                target = look_up(self._root, path)
                if target is not None and look_up(result, path) is None:
                    put(result, path, self._schema(target, path))
        return result

    def _schema(self, schema: Any, path: Path) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise place_error(path, "must be a schema, an object or a boolean")
        return self._object(schema, path)

    def _object(self, schema: _Schema, path: Path) -> _Schema:
        self._schemas += 1
        if self._schemas > _MAX_SCHEMAS:
            raise GrammarError(f"has more than {_MAX_SCHEMAS} schemas, with those it stands for")
        schema = self._rewriter.rewrite(schema)
        result: _Schema = {}
        for keyword, value in schema.items():
            if keyword not in LACKING:
                self._add(result, keyword, value, (*path, keyword))
            elif not self._lenient and not LACKING[keyword](value, schema):
                text = ADVICE.get(keyword, f"{keyword} is not supported")
                raise place_error((*path, keyword), text)
        return close_open_bounds(result)

    def _add(self, result: _Schema, keyword: str, value: Any, path: Path) -> None:
        """Add the translation of a keyword to a schema; drop annotations."""
        if keyword in SCHEMA | SCHEMA_LIST | SCHEMA_MAP:
            nested = self._nested(keyword, value, path)
            # Patterns may have added to `allOf` before.
            result[keyword] = result.get(keyword, []) + nested if keyword == "allOf" else nested
        elif keyword == "pattern":
            _add_patterns(result, _translated(_expect(value, str, path), path))
        elif keyword == "format":
            _add_format(result, _expect(value, str, path))
        elif keyword == "$dynamicAnchor":
            result.setdefault("$anchor", value)
        elif keyword == "$schema":
            if isinstance(value, str) and DIALECT.fullmatch(value):
                result[keyword] = value
        elif keyword in VALUE | BOUND | COUNT | PLAIN | NAMES or path == (OPTIONS,):
            result[keyword] = _checked(keyword, _exact(value, path), path)
            if keyword == "$ref" and value.startswith("#/"):
                self._references[value] = None

    def _nested(self, keyword: str, value: Any, path: Path) -> Any:
        """Return the translation of a keyword that holds schemas."""
        if keyword in SCHEMA_MAP:
            entries = _expect(value, dict, path)
            if keyword == "patternProperties":
                for pattern in entries:
                    _translated(pattern, path)
            return {name: self._schema(each, (*path, name)) for name, each in entries.items()}
        if keyword in SCHEMA_LIST or (keyword == "items" and isinstance(value, list)):
            schemas = enumerate(_expect(value, list, path))
            return [self._schema(each, (*path, i)) for i, each in schemas]
        return self._schema(value, path)


def _translated(pattern: str, path: Path) -> list[str]:
    try:
        return translate_pattern(pattern)
    except GrammarError as error:
        raise place_error(path, str(error)) from error


def _add_patterns(schema: _Schema, patterns: list[str]) -> None:
    """Add patterns that a text must match together."""
    for pattern in patterns:
        if "pattern" in schema:
            schema.setdefault("allOf", []).append({"pattern": pattern})
        else:
            schema["pattern"] = pattern


def _add_format(schema: _Schema, name: str) -> None:
    """Add a format that is enforced; any other is an annotation."""
    if name in DATES:
        _add_patterns(schema, [DATES[name]])
    elif name in FORMATS:
        schema["format"] = name


def _checked(keyword: str, value: Any, path: Path) -> Any:
    """Return the value of a keyword, which must have its type."""
    if keyword in COUNT:
        if (count := parse_count(value)) is None:
            raise place_error(path, f"must be a whole number of at least 0, not {_shown(value)}")
        return count
    if keyword == "multipleOf":
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise place_error(path, f"must be a number above 0, not {_shown(value)}")
        if not keeps_divisor(float(value)):
            raise place_error(path, f"{_shown(value)} has more digits than a divisor keeps here")
    elif keyword == "type":
        for name in value if isinstance(value, list) else [value]:
            if name not in TYPES:
                raise place_error(path, f"must be one of {', '.join(TYPES)}, not {_shown(name)}")
    elif keyword == "$ref":
        _expect(value, str, path)
    return value


def _exact(value: Any, path: Path) -> Any:
    """Return a JSON value, each number of which is exact.

    Raises:
        GrammarError: A number would become another one.
    """
    if isinstance(value, InexactNumber):
        raise place_error(path, str(value))
    if isinstance(value, list):
        return [_exact(each, (*path, i)) for i, each in enumerate(value)]
    if isinstance(value, dict):
        return {name: _exact(each, (*path, name)) for name, each in value.items()}
    return value


def _expect(value: Any, kind: type, path: Path) -> Any:
    if not isinstance(value, kind):
        name = _KINDS[kind]
        raise place_error(path, f"must be {name}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = value.literal if isinstance(value, InexactNumber) else json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:40]}…"

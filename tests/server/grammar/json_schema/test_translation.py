"""JSON schemas: neutral keywords, references, and keywords expressed by others."""

import itertools
import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.constrained import Languages

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.json_schema.translation import translate_schema


def translated(schema: Any) -> Any:
    return json.loads(translate_schema(json.dumps(schema)))


@pytest.mark.parametrize(
    "neutral",
    [
        {"uniqueItems": False},
        {"uniqueItems": True, "maxItems": 1},
        {"not": False},
        {"if": {"type": "null"}},
        {"then": {"const": 2}},
        {"else": {"const": 2}},
        {"contains": {"const": 2}, "minContains": 0},
        {"minContains": 3},
        {"maxContains": 3},
        {"propertyNames": True},
        {"propertyNames": {}},
        {"unevaluatedItems": True},
        {"unevaluatedProperties": {}},
        {"dependentRequired": {"a": []}},
        {"dependentSchemas": {"a": True}},
        {"dependencies": {"a": [], "b": {}}},
        {"minItems": 0},
        {"minLength": 0},
        {"minProperties": 0},
        {"required": []},
        {"allOf": []},
        {"additionalProperties": True},
        {"$recursiveAnchor": True},
        {"$dynamicAnchor": "a"},
        {"format": "int32"},
        {"$comment": "a", "$vocabulary": {}, "id": "b", "$id": "https://example.com/c"},
        {"$schema": "https://json-schema.org/draft/2019-09/schema"},
        {"$schema": "https://example.com/own-dialect"},
    ],
    ids=",".join,
)
def test_a_keyword_that_demands_nothing_changes_nothing(
    languages: Languages, neutral: dict[str, Any]
) -> None:
    language = languages.of_schema({"enum": [1, "a", [], {"a": 2}]} | neutral)
    for value in ("1", '"a"', "[]", '{"a":2}'):
        assert language.admits(value)
    assert not language.admits("2")


def test_a_property_may_have_the_name_of_a_keyword(languages: Languages) -> None:
    names = ["title", "not", "default", "uniqueItems", "$ref", "x-guidance"]
    schema = {
        "type": "object",
        "properties": {name: {"const": 1} for name in names},
        "required": names,
    }
    assert languages.of_schema(schema).admits(json.dumps(dict.fromkeys(names, 1)).replace(" ", ""))


@pytest.mark.parametrize(
    "schema,place",
    [
        ({"items": {"not": {}}}, "#/items/not"),
        ({"properties": {"a": {"if": {}, "then": False}}}, "#/properties/a/if"),
        ({"$defs": {"a": {"contains": {}}}}, "#/$defs/a/contains"),
        ({"$ref": "#/own/a", "own": {"a": {"$recursiveRef": "#"}}}, "#/own/a/$recursiveRef"),
        ({"properties": []}, "#/properties"),
        ({"allOf": {}}, "#/allOf"),
        ({"items": 3}, "#/items"),
        ({"anyOf": [1]}, "#/anyOf/0"),
        ({"type": "nothing"}, "#/type"),
        ({"type": ["string", {}]}, "#/type"),
        ({"pattern": 3}, "#/pattern"),
        ({"format": None}, "#/format"),
        ({"$ref": 3}, "#/$ref"),
        ({"maxItems": [], "uniqueItems": True}, "#/maxItems"),
    ],
    ids=str,
)
def test_an_error_names_its_place(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(GrammarError) as caught:
        translated(schema)
    assert str(caught.value).startswith(f"{place}: ")


def test_a_long_place_keeps_its_end() -> None:
    schema: dict[str, Any] = {"not": {}}
    for number in range(100):
        schema = {"properties": {f"level {number}": schema}}
    with pytest.raises(GrammarError, match=r"^#….*/properties/level 0/not: not is not supported"):
        translated(schema)


def test_a_reference_to_an_unknown_keyword_is_followed(languages: Languages) -> None:
    pet = {"type": "object", "properties": {"id": {"$ref": "#/components/schemas/Id"}}}
    schemas = {"Pet": pet | {"required": ["id"], "title": "Pet"}, "Id": {"const": 5, "not": False}}
    schema = {"$ref": "#/components/schemas/Pet", "components": {"schemas": schemas}}
    language = languages.of_schema(schema)
    assert language.admits('{"id":5}')
    assert not language.admits('{"id":6}')


def test_a_reference_within_a_list_is_followed(languages: Languages) -> None:
    schema = {
        "anyOf": [{"$ref": "#/own/1"}, {"$ref": "#/own/0"}],
        "own": [{"const": 1}, {"const": 2}],
    }
    language = languages.of_schema(schema)
    assert [language.admits(text) for text in "123"] == [True, True, False]


def test_escaped_steps_of_a_reference_are_decoded(languages: Languages) -> None:
    schema = {"$ref": "#/own/a~1b%20~0c", "own": {"a/b ~c": {"const": 1}}}
    assert languages.of_schema(schema).admits("1")


def test_a_recursive_schema_is_translated_once(languages: Languages) -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node", "title": "Next"}}}
    language = languages.of_schema({"$ref": "#/$defs/node", "$defs": {"node": node}})
    assert language.admits('{"next":{"next":{}}}')
    assert not language.admits('{"next":1}')


@given(
    st.sets(st.sampled_from(["a", "bc", "d e", "é"]), min_size=1),
    st.integers(0, 3),
    st.integers(0, 4),
)
def test_unique_items_of_few_values_are_listed(
    languages: Languages, values: set[str], least: int, most: int
) -> None:
    items = {"$ref": "#/$defs/value"}
    schema = {
        "type": "array",
        "items": items,
        "uniqueItems": True,
        "minItems": least,
        "maxItems": most,
    }
    schema["$defs"] = {"value": {"enum": sorted(values), "title": "Value"}}
    possible = [
        list(each)
        for size in range(least, most + 1)
        for each in itertools.permutations(sorted(values), size)
    ]
    assert sorted(translated(schema)["enum"]) == sorted(possible)
    if possible:
        language = languages.of_schema(schema)
        for each in possible:
            assert language.admits(json.dumps(each, ensure_ascii=False).replace(", ", ","))
        if least <= 2 <= most:
            assert not language.admits(f'["{min(values)}","{min(values)}"]')


@pytest.mark.parametrize(
    "items",
    [{"type": "integer"}, {}, True, {"enum": list(range(20))}, {"enum": [[1], [2]]}, {"$ref": "#"}],
    ids=str,
)
def test_unique_items_of_many_values_are_refused(items: Any) -> None:
    with pytest.raises(
        GrammarError, match=r"^#/uniqueItems: true needs items of a short enum; use false"
    ):
        translated({"type": "array", "items": items, "uniqueItems": True})


def test_equal_values_are_one_unique_item(languages: Languages) -> None:
    source = '{"type":"array","items":{"enum":[1,1.0,true]},"uniqueItems":true}'
    language = languages.of_schema(source)
    assert language.admits("[1,true]")
    assert not language.admits("[1,1]")


def test_names_of_an_enum_become_properties(languages: Languages) -> None:
    names = {"$ref": "#/$defs/color", "title": "Color"}
    schema = {"type": "object", "propertyNames": names, "additionalProperties": {"const": 1}}
    language = languages.of_schema(schema | {"$defs": {"color": {"enum": ["red", "blue"]}}})
    assert [language.admits(text) for text in ("{}", '{"blue":1}', '{"red":1,"blue":1}')] == [
        True
    ] * 3
    assert not any(map(language.admits, ['{"green":1}', '{"blue":2}', '{"blue":1,"blue":1}']))


@pytest.mark.parametrize(
    "names,admitted,excluded",
    [
        ({"pattern": "^a+$"}, "aa", "b"),
        ({"pattern": "b"}, "abc", "a"),
        ({"minLength": 2}, "ab", "a"),
        ({"maxLength": 2, "type": "string"}, "éé", "abc"),
        ({"format": "date"}, "2024-02-29", "2023-02-29"),
        ({"const": "a"}, "a", "b"),
    ],
    ids=str,
)
def test_names_by_a_pattern_become_pattern_properties(
    languages: Languages, names: dict[str, Any], admitted: str, excluded: str
) -> None:
    language = languages.of_schema({"type": "object", "propertyNames": names})
    assert language.admits(f'{{"{admitted}":1}}')
    assert not language.admits(f'{{"{excluded}":1}}')


TAGGED = {
    "cat": {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"const": 9}}},
    "dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}}},
}


def test_tagged_schemas_exclude_each_other(languages: Languages) -> None:
    definitions = {name: each | {"required": ["kind"]} for name, each in TAGGED.items()}
    references = [{"$ref": f"#/$defs/{name}"} for name in definitions]
    language = languages.of_schema({"oneOf": references, "$defs": definitions})
    for text in ('{"kind":"cat","lives":9}', '{"kind":"wolf"}'):
        assert language.admits(text)
    assert not language.admits('{"kind":"cow"}')


@pytest.mark.parametrize(
    "definitions",
    [
        TAGGED,
        {
            name: each | {"required": ["kind"]}
            for name, each in {**TAGGED, "x": TAGGED["cat"]}.items()
        },
    ],
    ids=["tags are optional", "two have the same tag"],
)
def test_schemas_that_may_both_hold_are_refused(
    languages: Languages, definitions: dict[str, Any]
) -> None:
    references = [{"$ref": f"#/$defs/{name}"} for name in definitions]
    with pytest.raises(GrammarError, match=r"^oneOf is supported where"):
        languages.of_schema({"oneOf": references, "$defs": definitions})


def test_types_exclude_each_other_through_references(languages: Languages) -> None:
    schema = {
        "oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}],
        "$defs": {"a": {"type": "integer"}},
    }
    language = languages.of_schema(schema)
    assert language.admits("5")
    assert language.admits("null")


@given(st.dates())
def test_every_date_is_admitted(languages: Languages, day: date) -> None:
    assert languages.of_schema({"type": "string", "format": "date"}).admits(f'"{day}"')


@given(
    st.integers(1, 9999),
    st.integers(1, 12),
    st.integers(1, 31),
    st.sampled_from(["", "T10:00:00Z"]),
)
def test_no_other_date_is_admitted(
    languages: Languages, year: int, month: int, day: int, time: str
) -> None:
    try:
        exists = bool(date(year, month, day))
    except ValueError:
        exists = False
    language = languages.of_schema({"type": "string", "format": "date-time" if time else "date"})
    assert language.admits(f'"{year:04}-{month:02}-{day:02}{time}"') == exists


def test_a_format_and_a_pattern_hold_together(languages: Languages) -> None:
    schema = {"type": "string", "format": "date", "pattern": "^2024-", "allOf": [{"maxLength": 10}]}
    language = languages.of_schema(schema)
    assert language.admits('"2024-02-29"')
    assert not language.admits('"2023-02-28"')
    assert not language.admits('"2024-02-30"')


def test_unsupported_keywords_are_left_out_on_request(languages: Languages) -> None:
    schema = {"const": 1, "not": {"const": 2}, "format": "nothing"}
    with pytest.raises(GrammarError, match="not is not supported"):
        languages.of_schema(schema)
    assert languages.of_schema(schema | {"x-guidance": {"lenient": True}}).admits("1")

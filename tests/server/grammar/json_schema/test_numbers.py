"""Numbers of schemas: exact in the output, or refused by their place."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.constrained import Languages

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.json_schema.numbers import MAX_INTEGER
from gpt2flow.server.grammar.json_schema.translation import translate_schema

integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
# Decimal fractions of at most 15 digits, which every double keeps.
fractions = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.integers(0, 20),
)
numbers = st.one_of(st.integers(-9, 9).map(Decimal), integers.map(Decimal), fractions)


def plain(number: Decimal) -> str:
    """Return a number as JSON, without an exponent."""
    return format(number, "f")


@given(numbers)
def test_a_constant_is_written_exactly(languages: Languages, number: Decimal) -> None:
    written = languages.of_schema(f'{{"const":{plain(number)}}}').write(seed=0)
    assert Decimal(written) == number


@given(st.lists(numbers, min_size=1, max_size=4), st.integers(0, 99))
def test_nested_constants_are_written_exactly(
    languages: Languages, given: list[Decimal], seed: int
) -> None:
    value = "[" + ",".join(plain(number) for number in given) + "]"
    schema = f'{{"enum":[{{"a":{value}}},{value}]}}'
    written = json.loads(languages.of_schema(schema).write(seed), parse_float=Decimal)
    assert (written["a"] if isinstance(written, dict) else written) == given


@pytest.mark.parametrize(
    "literal,message",
    [
        ("9007199254740993", "has too many digits: integers are exact up to 9007199254740991"),
        ("-9007199254740992", "has too many digits"),
        ("9223372036854775807", "has too many digits"),
        ("1e22", "has too many digits"),
        ("0.1234567890123456789", "has too many digits: .*, other numbers to 15 digits"),
        ("1e400", "is out of range"),
        ("-1e400", "is out of range"),
        ("1e-400", "is out of range"),
        ("1e99999999999999999999999", "is out of range"),
        ("9" * 5000, "is out of range"),
    ],
    ids=lambda value: value[:24],
)
@pytest.mark.parametrize(
    "schema,place",
    [
        ('{"const":%s}', "#/const"),
        ('{"enum":[1,%s]}', "#/enum/1"),
        ('{"const":{"a b":[%s]}}', "#/const/a b/0"),
        ('{"type":"integer","minimum":%s}', "#/minimum"),
        ('{"exclusiveMaximum":%s}', "#/exclusiveMaximum"),
        ('{"multipleOf":%s}', "#/multipleOf"),
        ('{"properties":{"a/b":{"anyOf":[{"const":%s}]}}}', "#/properties/a~1b/anyOf/0/const"),
        ('{"$ref":"#/x/y","x":{"y":{"const":%s}}}', "#/x/y/const"),
    ],
)
def test_a_number_that_would_become_another_is_refused(
    schema: str, place: str, literal: str, message: str
) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        translate_schema(schema % literal)
    assert str(caught.value).startswith(f"{place}: {literal[:24]}")


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
)
def test_every_number_is_kept_exactly_or_refused(literal: str) -> None:
    try:
        kept = json.loads(
            translate_schema(f'{{"const":{literal}}}'), parse_float=str, parse_int=str
        )
    except GrammarError as error:
        assert str(error).startswith("#/const: ")  # noqa: PT017 - or it is kept
    else:
        assert Decimal(kept["const"]) == Decimal(literal)
        assert Decimal(repr(float(literal))) == Decimal(literal)


def test_numbers_of_annotations_are_free(languages: Languages) -> None:
    schema = (
        '{"const":1,"default":9007199254740993,"examples":[1e999],"x-id":0.12345678901234567891}'
    )
    assert languages.of_schema(schema).admits("1")


BOUNDS: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}


@given(
    st.sampled_from(["integer", "number"]),
    st.dictionaries(st.sampled_from(sorted(BOUNDS)), numbers, min_size=1, max_size=2),
    st.data(),
)
def test_no_number_beyond_its_bounds_is_admitted(
    languages: Languages, kind: str, bounds: dict[str, Decimal], data: st.DataObject
) -> None:
    parts = "".join(f',"{name}":{plain(bound)}' for name, bound in bounds.items())
    try:
        language = languages.of_schema(f'{{"type":"{kind}"{parts}}}')
    except GrammarError as error:
        assert str(error).startswith("admits no value")  # noqa: PT017 - or it compiles
        return
    near = st.sampled_from(list(bounds.values()))
    steps = st.builds(
        lambda sign, places: sign * Decimal(1).scaleb(-places),
        st.sampled_from([-1, 0, 1]),
        st.integers(0, 25),
    )
    for value in data.draw(st.lists(st.builds(Decimal.__add__, near, steps), max_size=8)):
        for text in (plain(value), f"{int(value)}.0", str(int(value))):
            if language.admits(text):
                assert all(BOUNDS[name](Decimal(text), bound) for name, bound in bounds.items())


@pytest.mark.parametrize(
    "schema,admitted,excluded",
    [
        ('{"type":"number","exclusiveMinimum":0,"maximum":0.5}', "0.1", "0"),
        ('{"type":"number","exclusiveMinimum":3,"exclusiveMaximum":3.5}', "3.1", "3"),
        ('{"type":"number","minimum":-0.5,"exclusiveMaximum":0}', "-0.1", "-0"),
        ('{"type":"number","minimum":3,"exclusiveMinimum":true,"maximum":3.5}', "3.1", "3"),
        ('{"type":"integer","exclusiveMinimum":false,"minimum":3}', "3", "2"),
        (
            '{"type":"integer","exclusiveMinimum":9007199254740990}',
            "9007199254740991",
            "9007199254740990",
        ),
        ('{"type":"integer","minimum":2.5}', "3", "2"),
        ('{"type":"integer","multipleOf":1.5}', "3", "2"),
    ],
)
def test_an_open_bound_excludes_its_number(
    languages: Languages, schema: str, admitted: str, excluded: str
) -> None:
    language = languages.of_schema(schema)
    assert language.admits(admitted)
    assert not language.admits(excluded)


@pytest.mark.parametrize("divisor", ["0.01", "0.000000001", "2.5", "0.15", "7", "1000"])
def test_a_multiple_is_exact(languages: Languages, divisor: str) -> None:
    language = languages.of_schema(f'{{"type":"number","multipleOf":{divisor}}}')
    for factor in (0, 1, 3, 12345):
        assert language.admits(plain((Decimal(divisor) * factor).normalize()))
    half = Decimal(divisor) / 2
    assert not language.admits(plain(half))


@pytest.mark.parametrize(
    "value,message",
    [
        ("0", "must be a number above 0, not 0"),
        ("-1", "must be a number above 0"),
        ("true", "must be a number above 0"),
        ("0.07", "0.07 has more digits than a divisor keeps"),
        ("0.0000000001", ".* has more digits"),
        ("99999999999", ".* has more digits"),
    ],
)
def test_a_divisor_that_is_not_kept_is_refused(value: str, message: str) -> None:
    with pytest.raises(GrammarError, match=f"^#/multipleOf: {message}"):
        translate_schema(f'{{"type":"number","multipleOf":{value}}}')


@pytest.mark.parametrize("value", ["-1", "1.5", '"1"', "true", "1e400", "null"])
def test_a_length_is_a_whole_number(value: str) -> None:
    with pytest.raises(GrammarError, match=r"^#/items/maxLength: "):
        translate_schema(f'{{"items":{{"maxLength":{value}}}}}')


def test_a_whole_number_may_be_written_as_a_fraction(languages: Languages) -> None:
    language = languages.of_schema(
        '{"type":"array","items":{"const":2.0},"minItems":2.0,"maxItems":2e0}'
    )
    assert language.admits("[2,2]")
    assert not language.admits("[2]")


@pytest.mark.parametrize("text", ["NaN", '{"const":NaN}', '{"enum":[-Infinity]}', '{"const":01}'])
def test_what_is_no_json_is_no_number(text: str) -> None:
    with pytest.raises(GrammarError, match=r"^not JSON: "):
        translate_schema(text)


def test_schemas_within_lark_are_exact_too(languages: Languages) -> None:
    grammar = 'start: "%json {" /[%]json \\{/ x\nx: %json {"const": NUMBER} // %json {'
    assert languages.of("lark", grammar.replace("NUMBER", "12")).admits("%json {%json {12")
    with pytest.raises(GrammarError, match=r"^#/const: 9007199254740993 has too many digits"):
        languages.of("lark", grammar.replace("NUMBER", "9007199254740993"))


def test_the_number_of_schemas_is_bounded() -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(12):
        schema = {"propertyNames": {"enum": list("abcdefghij")}, "additionalProperties": schema}
    with pytest.raises(GrammarError, match="has more than 100000 schemas"):
        translate_schema(json.dumps(schema))

"""The page on constraints: each row of its tables holds."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.constrained import Languages
from tests.support.doc_pages import DOCS
from tests.support.grammars import constraint_of

from gpt2flow.server.errors import GrammarError
from gpt2flow.server.grammar.compilation import SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.grammar.json_schema.keywords import ASSERTIONS
from gpt2flow.server.grammar.json_schema.patterns import DATES, FORMATS

pytestmark = pytest.mark.process

PAGE = (DOCS / "constraints.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    [section] = re.findall(rf"^#+ {heading}$(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[2:]]
    return [[cell.strip().replace("\\|", "|") for cell in line] for line in cells]


def code(cell: str) -> str:
    """Return the code in a cell."""
    assert cell.startswith("`")
    assert cell.endswith("`")
    return cell[1:-1]


def lark(cell: str) -> str:
    """Return a grammar, whose rules a cell has in one line."""
    return re.sub(r" (?=[a-zA-Z]+: |%ignore)", "\n", code(cell))


def schemas_of_options() -> Iterator[tuple[str, str, str]]:
    """Yield each option, its schema, and a text that this admits."""
    properties: dict[str, Any] = {
        "a": {"type": "integer"},
        "b": {"type": "integer"},
        "c": {"type": "null"},
        "d": {"type": "null"},
        "e": {"type": "string"},
    }
    for name, _, _, value, admitted in rows("Options"):
        own = dict(properties)
        if "one_of" in name:
            own["c"] = {"oneOf": [{"minimum": 1}, {"maximum": 9}]}
        if "lenient" in name:
            own["d"] = {"not": {"const": 3}}
        schema = {"type": "object", "properties": own}
        options = {code(name): json.loads(code(value))}
        yield code(name), json.dumps(schema | {"x-guidance": options}), code(admitted)


def examples() -> Iterator[tuple[str, str, list[str]]]:
    """Yield kind, source and other cells of each row."""
    for heading in ("Keywords", "Numbers"):
        for _, treatment, schema, *texts in rows(heading):
            yield "json_schema", code(schema), [treatment, *texts]
    for name, treatment, *texts in rows("Formats"):
        schema = json.dumps({"type": "string", "format": code(name)})
        yield "json_schema", schema, [treatment, *texts]
    for _, treatment, expression, *texts in rows("Regular expressions"):
        yield "regex", code(expression), [treatment, *texts]
    for _, treatment, grammar, *texts in rows("Lark"):
        yield "lark", lark(grammar), [treatment, *texts]


@pytest.fixture(scope="module")
def compiler(grammars: GrammarCompiler) -> Iterator[SandboxedCompiler]:
    compiler = SandboxedCompiler(grammars, seconds=60.0)
    yield compiler
    compiler.close()


@pytest.mark.parametrize("kind,source,cells", list(examples()), ids=lambda value: str(value)[:60])
def test_a_row_holds(
    languages: Languages,
    compiler: SandboxedCompiler,
    kind: str,
    source: str,
    cells: list[str],
) -> None:
    treatment, admitted, excluded = cells
    params = constraint_of(kind, source)
    if "refused" in treatment:
        assert (admitted, excluded) == ("", "")
        with pytest.raises(GrammarError):
            compiler.compile(params)
        return
    compiler.compile(params)
    language = languages.of(kind, source)
    assert language.admits(code(admitted))
    if excluded:
        assert not language.admits(code(excluded))
    # What is enforced excludes something.
    assert excluded or "annotation" in treatment or treatment == "no demand"


def test_every_keyword_has_a_row() -> None:
    described = {code(name) for name, *_ in rows("Keywords")}
    assert described >= ASSERTIONS - {"then", "else"}


def test_a_refused_keyword_is_named(languages: Languages) -> None:
    refused = [row for row in rows("Keywords") if "refused" in row[1]]
    assert len(refused) > 15
    for name, _, schema, *_ in refused:
        with pytest.raises(GrammarError) as caught:
            languages.of("json_schema", code(schema))
        # The lengths of `contains` are refused with it.
        assert (
            code(name).removeprefix("min").removeprefix("max").lower() in str(caught.value).lower()
        )


def test_every_format_has_a_row() -> None:
    enforced = {code(name) for name, treatment, *_ in rows("Formats") if "enforced" in treatment}
    assert enforced == FORMATS | DATES.keys()


def test_each_option_admits_its_example(languages: Languages) -> None:
    for name, schema, text in schemas_of_options():
        assert languages.of("json_schema", schema).admits(text), name


def test_white_space_needs_an_option(languages: Languages) -> None:
    plain = languages.of_schema({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert plain.admits('{"a":1}')
    for name, _, text in schemas_of_options():
        if " " in text:
            assert not plain.admits(text), name


def test_the_options_are_those_of_the_compiler(languages: Languages) -> None:
    with pytest.raises(GrammarError) as caught:
        languages.of_schema({"x-guidance": {"nothing": 1}})
    known = re.findall(r"`(\w+)`", str(caught.value).partition("expected one of")[2])
    assert {name for name, *_ in schemas_of_options()} <= set(known)


@pytest.mark.parametrize(
    "source,message", [(code(a), code(b)) for a, b in rows("Constraints that admit nothing")]
)
def test_an_empty_language_has_one_clear_line(
    compiler: SandboxedCompiler, source: str, message: str
) -> None:
    with pytest.raises(GrammarError) as caught:
        compiler.compile(constraint_of("json_schema", source))
    assert str(caught.value) == message


def test_a_pattern_may_match_anywhere(languages: Languages) -> None:
    assert languages.of_schema({"type": "string", "pattern": "b"}).admits('"abc"')
    assert not languages.of("regex", "b").admits("abc")


def test_digits_of_a_pattern_are_ascii(languages: Languages) -> None:
    pattern = languages.of_schema({"type": "string", "pattern": r"^\d$"})
    assert pattern.admits('"1"')
    assert not pattern.admits('"٣"')
    assert languages.of("regex", r"\d").admits("٣")


def test_characters_of_choices_have_no_meaning(languages: Languages) -> None:
    language = languages.of("choices", "a.b*")
    assert language.admits("a.b*")
    assert not language.admits("axbb")

"""Calls of tools: their grammar, and the reading of answers."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.gateway.chat.tools import AnswerReader, ToolGrammar, tool_grammar
from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.fields.chat import ChatRequest
from gpt2flow.gateway.fields.parsing import parse_fields

STARTS = {name: f'{{"name":"{name}","arguments":' for name in ("add_to_cart", "add", "greet")}


def tools(*names: str, **fields: Any) -> ToolGrammar | None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": name}} for name in names],
        **fields,
    }
    return tool_grammar(parse_fields(ChatRequest, json.dumps(body).encode()))


@pytest.mark.parametrize(
    "choice, rules",
    [
        (None, "start: call_0 | call_1 | text"),
        ("auto", "start: call_0 | call_1 | text"),
        ("required", "start: call_0 | call_1\n"),
        ({"type": "function", "function": {"name": "b"}}, "start: call_0\n"),
    ],
)
def test_the_choice_decides_on_text(choice: Any, rules: str) -> None:
    grammar = tools("a", "b", tool_choice=choice)
    assert grammar is not None
    assert grammar.constraint.grammar.startswith(rules)


def test_a_named_tool_is_the_only_one() -> None:
    grammar = tools("a", "b", tool_choice={"type": "function", "function": {"name": "b"}})
    assert grammar is not None
    assert set(grammar.starts) == {"b"}


@pytest.mark.parametrize("names, choice", [((), None), ((), "none"), (("a",), "none")])
def test_without_tools_there_is_no_grammar(names: tuple[str, ...], choice: Any) -> None:
    assert tools(*names, tool_choice=choice) is None


@pytest.mark.parametrize(
    "names, choice, param",
    [
        ((), "auto", "tool_choice"),
        (("a",), {"type": "function", "function": {"name": "z"}}, "tool_choice"),
        (("a", "a"), None, "tools"),
    ],
)
def test_a_choice_that_no_tool_meets_is_refused(
    names: tuple[str, ...], choice: Any, param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        tools(*names, tool_choice=choice)
    assert caught.value.param == param


def read(text: str, cuts: list[int], reason: str = "constraint") -> tuple[Any, ...]:
    """Return content, name, arguments and ids of a text in pieces."""
    reader = AnswerReader(STARTS)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [reader.feed(text[a:b]) for a, b in pairwise(edges)]
    parts.append(reader.finish(reason))
    content = "".join(part.content for part in parts)
    arguments = "".join(part.arguments for part in parts)
    return content, reader.name, arguments, sum(part.call_id is not None for part in parts)


CUTS = st.lists(st.integers(0, 80), max_size=6)
ARGUMENTS = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(), max_size=3)


@given(st.sampled_from(sorted(STARTS)), ARGUMENTS, CUTS)
def test_a_call_is_read_however_it_is_cut(
    name: str, arguments: dict[str, Any], cuts: list[int]
) -> None:
    written = json.dumps(arguments, separators=(",", ":"))
    assert read(f"{STARTS[name]}{written}}}", cuts) == ("", name, written, 1)


@given(st.text(max_size=40).filter(lambda text: not text.startswith("{")), CUTS)
def test_text_is_read_however_it_is_cut(text: str, cuts: list[int]) -> None:
    assert read(text, cuts, "eos") == (text, None, "", 0)


@pytest.mark.parametrize("reason", ["length", "stop", "time_limit"])
def test_a_call_that_was_cut_off_keeps_all_it_has(reason: str) -> None:
    assert read(f'{STARTS["add"]}{{"n":1}}', [], reason) == ("", "add", '{"n":1}', 1)
    assert read('{"name":"ad', [], reason) == ('{"name":"ad', None, "", 0)


def test_without_tools_all_is_text() -> None:
    reader = AnswerReader()
    assert reader.feed(STARTS["add"]).content == STARTS["add"]
    assert not reader.finish("eos")

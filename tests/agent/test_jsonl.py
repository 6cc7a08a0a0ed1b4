"""JSON Lines interface."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.scripted_model import Script, ScriptedModel

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.jsonl import handle_lines
from gpt2flow.agent.turns.model import ModelAnswer

pytestmark = pytest.mark.process

SCRIPT: Script = {"hello": ["greet"], "你好": ["greet"]}


@pytest.fixture
def agent(path: Path) -> Iterator[Agent]:
    with Agent(AgentConfig(database=str(path)), model=ScriptedModel(SCRIPT)) as agent:
        yield agent


def test_every_line_has_a_result(agent: Agent) -> None:
    lines = [
        '{"session": "s", "text": "hello", "id": "1"}\n',
        "\n",
        '{"session": "s", "text": "你好"}\n',
    ]
    results = [result.json_line() for result in handle_lines(agent, lines)]
    assert [(r["line"], r["exit_code"]) for r in results] == [(1, 0), (3, 0)]
    assert [r["report"]["language"] for r in results] == ["en", "zh"]
    assert results[0]["report"]["message_id"] == "1"
    assert "error" not in results[0]
    json.dumps(results)


@pytest.mark.parametrize(
    "line, error",
    [
        ("{", "line 1: Invalid JSON"),
        ("[]", "line 1: Input should be an object"),
        ('{"session": "s"}', "line 1: field text: Field required"),
        ('{"session": "s", "text": 1}', "line 1: field text: Input should be a valid string"),
        ('{"session": "s", "text": "hello", "x": 1}', "line 1: field x: Extra inputs"),
        ('{"session": "s", "text": ""}', "line 1: the message is empty"),
        ('{"session": "", "text": "hello"}', "line 1: the session id"),
    ],
)
def test_invalid_line_is_named_and_later_lines_are_handled(
    agent: Agent, line: str, error: str
) -> None:
    good = '{"session": "s", "text": "hello"}'
    bad, after = handle_lines(agent, [line, good])
    assert (bad.exit_code, bad.report) == (2, None)
    assert str(bad.error).startswith(error)
    assert bad.json_line().keys() == {"line", "exit_code", "error"}
    assert after.report is not None


def test_failed_message_has_another_exit_code_than_an_invalid_line(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(prompt: str, grammar: str, session: str) -> ModelAnswer:
        raise ModelError(f"no answer to {len(prompt + grammar + session) > 0}")

    monkeypatch.setattr(agent._workflows._handler._model._model, "choose", fail)
    (result,) = handle_lines(agent, ['{"session": "s", "text": "hello"}'])
    assert (result.exit_code, result.error) == (1, "line 1: no answer to True")


def test_results_are_yielded_as_lines_arrive(agent: Agent) -> None:
    """A client on a pipe needs a result before its next line."""
    read: list[int] = []

    def lines() -> Iterator[str]:
        for number in range(3):
            read.append(number)
            yield '{"session": "s", "text": "hello"}'

    for count, _ in enumerate(handle_lines(agent, lines()), start=1):
        assert len(read) == count

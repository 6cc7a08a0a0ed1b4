"""Tests of recordings: those that ship, and those of others."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.hands.recording import built_in_flows, load_screens, templates

BOOK = load_flows()
READING = {
    *("greet", "clarify", "affirm", "deny", "escalate", "find_product", "view_cart"),
    *("list_orders", "track_order", "answer_question"),
}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_action_that_changes_something_has_a_recording(language: str) -> None:
    screens = load_screens(BOOK)[language]  # type: ignore[index]
    assert screens.actions.keys() == BOOK.actions.keys() - READING


def test_both_languages_take_the_same_steps() -> None:
    english, chinese = (load_screens(BOOK)[each].actions for each in ("en", "zh"))
    for action, recording in english.items():
        other = chinese[action]
        assert [(s.do, s.role, s.path) for s in recording.steps] == [
            (s.do, s.role, s.path) for s in other.steps
        ]
        assert recording.outcomes.keys() == other.outcomes.keys()
        assert (recording.reads, recording.proof.path) == (other.reads, other.proof.path)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recordings_hold_no_secret_and_no_value(language: str) -> None:
    """Values of one customer in a recording would be everybody's."""
    for recording in load_screens(BOOK)[language].actions.values():  # type: ignore[index]
        for text in templates(recording):
            assert not re.search(r"\d\d|@", text), text


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    folder = tmp_path / "flows"
    shutil.copytree(built_in_flows(), folder)
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        ({"teleport": "log_out"}, "action teleport: the flows have no such action"),
        (
            {"log_out": {"outcomes": {"gone": "x"}}},
            r"action log_out: unknown outcomes \['gone'\], expected some of \['logged_out'\]",
        ),
        (
            {"verify": {"outcomes": {"expired": "x"}}},
            r"action verify: outcomes \['verified'\] are missing",
        ),
        ({"log_out": {"shows": ["{"]}}, "action log_out: '{' is no template"),
        ({"log_out": {"steps": []}}, r"actions.log_out.steps: List should have at least 1 item"),
        (
            {"log_out": {"steps": [{"do": "fill", "role": "textbox", "name": "N"}]}},
            "actions.log_out.steps.0: Value error, `open` has a `path`",
        ),
        (
            {"log_out": {"steps": [{"do": "press", "role": "pixel", "name": "N"}]}},
            "actions.log_out.steps.0.role: Input should be 'button'",
        ),
        ({"log_out": {"xpath": "//a"}}, "actions.log_out.xpath: Extra inputs are not permitted"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused_by_name(
    flows: Path, change: dict[str, object], message: str
) -> None:
    path = flows / "registration" / "screens.en.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for action, changed in change.items():
        if isinstance(changed, dict):
            content["actions"][action] |= changed
        else:
            content["actions"][action] = content["actions"][changed]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(FlowError, match=message) as raised:
        load_screens(BOOK, flows)
    assert str(raised.value).startswith(str(path))


def test_a_folder_without_a_sign_in_is_refused(flows: Path) -> None:
    (flows / "screens.zh.yaml").unlink()
    with pytest.raises(FlowError, match=r"screens\.zh\.yaml"):
        load_screens(BOOK, flows)

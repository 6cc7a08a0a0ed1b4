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
        ({"log_out": {"shows": ["{"]}}, "action log_out: '{' is no template: Single '{'"),
        ({"log_out": {"shows": ["a } b"]}}, "action log_out: 'a } b' is no template: Single '}'"),
        *(
            (
                {"correct_name": {"shows": [f"Hi {field}"]}},
                re.escape(f"'Hi {field}' has the field {field}, expected {{given_name}}, {{mess"),
            )
            for field in ("{}", "{0}", "{name.x}", "{name[0]}", "{name:d}", "{name!r}", "{nam}")
        ),
        (
            {"verify": {"outcomes": {"verified": "Thanks, {customer}."}}},
            r"action verify: 'Thanks, {customer}.' has the field {customer}, expected {code},",
        ),
        (
            {"log_out": {"proof": {"path": "/{account}", "new": ["Register"]}}},
            r"action log_out: '/{account}' has the field {account}, expected {message}, {session}$",
        ),
        (
            {"log_out": {"commit": {"role": "button", "name": "{token}"}}},
            r"action log_out: '{token}' has the field {token}, expected",
        ),
        ({"log_out": {"reads": ["a.b"]}}, "action log_out: reads has 'a.b', expected the name"),
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


def test_the_fields_of_a_template_are_those_that_have_a_value(flows: Path) -> None:
    """Arguments, their names, messages, and what a page shows."""
    path = flows / "after_sales" / "screens.en.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = ["reason", "given_reason", "reason_name", "a_kind", "session", "message", "ticket"]
    shows = [*(f"{{{field}}}" for field in known), "{{braces}}"]
    content["actions"]["request_refund"] |= {"shows": shows, "reads": ["case", "ticket"]}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert load_screens(BOOK, flows)["en"].actions["request_refund"].shows == shows


@pytest.mark.parametrize(
    "change, message",
    [
        ({"serving": "Serving {session}"}, "field serving: Input should be a valid dictionary"),
        (
            {"serving": {"role": "link", "name": "Serving"}},
            r"serving is 'Serving', expected a name with {session}$",
        ),
        (
            {"serving": {"role": "link", "name": "{session} {token}"}},
            r"serving: '{session} {token}' has the field {token}, expected {session}$",
        ),
        (
            {"signed_out": {"role": "button", "name": "{session}"}},
            r"signed_out: '{session}' has the field {session}, expected no field$",
        ),
        (
            {"steps": [{"do": "open", "path": "/{code}"}]},
            r"steps: '/{code}' has the field {code}, expected {session}, {token}$",
        ),
        ({"serve": [{"do": "open", "path": "/{0}"}]}, r"serve: '/\{0}' has the field \{0}, exp"),
        ({"serve": [{"do": "open", "path": "/}"}]}, "serve: '/}' is no template"),
    ],
)
def test_a_sign_in_with_another_field_is_refused(
    flows: Path, change: dict[str, object], message: str
) -> None:
    path = flows / "screens.zh.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) | change
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(FlowError, match=message) as raised:
        load_screens(BOOK, flows)
    assert str(raised.value).startswith(f"{path}: ")


def test_two_files_with_one_action_are_refused(flows: Path) -> None:
    first, second = (flows / each / "screens.en.yaml" for each in ("order", "shipping"))
    content, more = (yaml.safe_load(each.read_text(encoding="utf-8")) for each in (first, second))
    content["actions"]["change_address"] = more["actions"]["change_address"]
    first.write_text(yaml.safe_dump(content), encoding="utf-8")
    message = f"{second}: action change_address is in {first} too, expected in one file"
    with pytest.raises(FlowError, match=re.escape(message)):
        load_screens(BOOK, flows)


def test_a_folder_without_a_sign_in_is_refused(flows: Path) -> None:
    (flows / "screens.zh.yaml").unlink()
    with pytest.raises(FlowError, match=r"screens\.zh\.yaml"):
        load_screens(BOOK, flows)

"""Rules of cases: built-in, a shop's own, and broken ones."""

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.flows.case_rules import CaseMessage, Waiting
from gpt2flow.agent.shop import INBOX

BUILT_IN = Path(__file__).parents[3] / "agent/gpt2flow/agent/flows"


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """Flows of a shop of its own, without rules of cases."""
    folder = tmp_path / "flows"
    shutil.copytree(BUILT_IN, folder, ignore=shutil.ignore_patterns("*.py", "cases.yaml"))
    return folder


def built_in() -> dict[str, Any]:
    rules: dict[str, Any] = yaml.safe_load((BUILT_IN / "cases.yaml").read_text(encoding="utf-8"))
    return rules


def write(flows: Path, rules: dict[str, Any]) -> None:
    text = yaml.safe_dump(rules, allow_unicode=True)
    (flows / "cases.yaml").write_text(text, encoding="utf-8")


def error_of(flows: Path) -> str:
    with pytest.raises(FlowError) as caught:
        load_flows(flows)
    message = str(caught.value)
    assert message.startswith(f"{flows / 'cases.yaml'}: ")
    assert "\n" not in message
    return message


def test_the_built_in_rules_are_complete(book: FlowBook) -> None:
    assert set(book.cases.deadlines) == {status.value for status in INBOX} == set(get_args(Waiting))
    assert set(book.cases.messages) == set(get_args(CaseMessage))


def test_a_shop_without_rules_has_the_built_in_ones(flows: Path, book: FlowBook) -> None:
    assert load_flows(flows).cases == book.cases


def test_a_shop_may_have_rules_of_its_own(flows: Path) -> None:
    rules = built_in()
    rules["deadlines"]["open"] = {"remind": 1, "escalate": 2, "expire": 3}
    rules["staff_language"] = "zh"
    rules["messages"]["taken"] = {"en": "A colleague is with you.", "zh": "同事为您服务。"}
    rules["messages"]["expired"]["en"] = "{{sorry}} {customer}, {kind} {order} {case}"
    write(flows, rules)
    cases = load_flows(flows).cases
    assert cases.deadlines["open"].model_dump() == {"remind": 1, "escalate": 2, "expire": 3}
    assert cases.staff_language == "zh"


@pytest.mark.parametrize(
    "keys, value, message",
    [
        (["deadlines", "open", "remind"], 0, "deadlines.open.remind: Input should be greater than"),
        (["deadlines", "open", "remind"], -5, "deadlines.open.remind: Input should be greater"),
        (["deadlines", "due", "expire"], 10**9, "deadlines.due.expire: Input should be less than"),
        (["deadlines", "due", "expire"], 1.5, "deadlines.due.expire: Input should be a valid int"),
        (["deadlines", "due", "expire"], True, "deadlines.due.expire: Input should be a valid int"),
        (["deadlines", "due", "expire"], "1h", "deadlines.due.expire: Input should be a valid int"),
        (["deadlines", "due", "remnid"], 5, "deadlines.due.remnid: Extra inputs are not permitted"),
        (["deadlines", "closed"], {}, "deadlines.closed"),
        (["deadlines"], {}, "deadlines: Value error, lacks open, awaiting_approval, due"),
        (["deadlines"], 5, "deadlines: Input should be a valid dictionary"),
        (["staff_language"], "fr", "staff_language: Input should be 'en' or 'zh'"),
        (["message"], {}, "message: Extra inputs are not permitted"),
        (["messages"], {}, "messages: Value error, lacks approved, approved_amount,"),
        (["messages", "hello"], {"en": "Hi"}, "messages.hello"),
        (["messages", "taken"], {"en": "Hi"}, "messages: Value error, taken: lacks zh"),
        (["messages", "taken", "fr"], "Bonjour", "messages.taken.fr"),
        (["messages", "taken", "en"], 7, "messages.taken.en: Input should be a valid string"),
        (["messages", "taken", "en"], " ", "messages: Value error, taken.en: is empty"),
        (["messages", "replied", "zh"], "好", "messages: Value error, replied.zh: lacks the field"),
        (["messages", "approved_amount", "en"], "Yes", "approved_amount.en: lacks the field {am"),
        (["messages", "taken", "en"], "{text}", "taken.en: unknown field {text}; allowed: case, k"),
        (["messages", "due", "en"], "{case.kind}", "due.en: unknown field {case.kind}"),
        (["messages", "due", "en"], "{case!r}", "due.en: unknown field {case}"),
        (["messages", "due", "en"], "{case:>9}", "due.en: unknown field {case}"),
        (["messages", "due", "en"], "{}", "due.en: unknown field {}"),
        (["messages", "due", "en"], "{0}", "due.en: unknown field {0}"),
        (["messages", "due", "en"], "{case", "due.en: expected '}' before end of string"),
        (["messages", "due", "en"], "case}", "due.en: Single '}' encountered in format string"),
    ],
)
def test_an_error_names_file_and_field(
    flows: Path, keys: list[str], value: object, message: str
) -> None:
    rules = built_in()
    *path, last = keys
    place = rules
    for key in path:
        place = place[key]
    place[last] = value
    write(flows, rules)
    assert message in error_of(flows)


@pytest.mark.parametrize("status", get_args(Waiting))
def test_every_status_in_the_inbox_needs_deadlines(flows: Path, status: str) -> None:
    rules = built_in()
    del rules["deadlines"][status]
    write(flows, rules)
    assert f"deadlines: Value error, lacks {status}" in error_of(flows)


@pytest.mark.parametrize("name", sorted({*get_args(CaseMessage)} - {"stopped"}))
def test_every_message_needs_a_template(flows: Path, name: str) -> None:
    rules = built_in()
    del rules["messages"][name]
    write(flows, rules)
    assert f"messages: Value error, lacks {name}" in error_of(flows)


def test_a_file_from_before_a_message_sends_another_one(flows: Path, book: FlowBook) -> None:
    rules = built_in()
    del rules["messages"]["stopped"]
    write(flows, rules)
    messages = load_flows(flows).cases.messages
    assert messages["stopped"] == messages["unavailable"] == book.cases.messages["unavailable"]
    assert book.cases.messages["stopped"] != messages["stopped"]


@pytest.mark.parametrize("field", ["deadlines", "messages"])
def test_a_missing_part_is_named(flows: Path, field: str) -> None:
    rules = built_in()
    del rules[field]
    write(flows, rules)
    assert f"field {field}: Field required" in error_of(flows)


@pytest.mark.parametrize("content", [b"", b"[]", b"deadlines: [", b"\xff", b"a\x00b"])
def test_a_file_that_is_no_rules_is_named(flows: Path, content: bytes) -> None:
    """It does not stand for the built-in one."""
    (flows / "cases.yaml").write_bytes(content)
    error_of(flows)


def test_a_folder_in_place_of_the_file_is_named(flows: Path) -> None:
    (flows / "cases.yaml").mkdir()
    assert "Is a directory" in error_of(flows)

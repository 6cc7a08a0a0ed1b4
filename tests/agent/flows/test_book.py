"""Loading and validation of flow files."""

from pathlib import Path

import pytest

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.flows.book import holds
from gpt2flow.agent.operations import OPERATIONS
from gpt2flow.agent.turns.execution import check_operations

SHARED = "facts: {guest: Not logged in.}\nslots: {}\n"


def one_action(action: str) -> str:
    """Return a flow with one action `a`."""
    return f"flow: one\ntitle: {{en: One}}\nactions: {{a: {action}}}\n"


def write_flow(folder: Path, flow: str, shared: str = SHARED) -> Path:
    (folder / "one").mkdir()
    (folder / "shared.yaml").write_text(shared, encoding="utf-8")
    (folder / "one" / "flow.yaml").write_text(flow, encoding="utf-8")
    return folder


def test_built_in_flows_use_every_operation_and_no_unknown_one(book: FlowBook) -> None:
    check_operations(book)
    assert {action.operation for action in book.actions.values()} == set(OPERATIONS)


def test_every_action_resolves_to_a_legal_one_in_every_state(book: FlowBook) -> None:
    states = [
        {identity, *more}
        for identity in ("guest", "verifying", "member")
        for more in ((), ("cart",), ("cart", "confirming"))
        if identity == "member" or "confirming" not in more
    ]
    for facts in states:
        legal = book.legal(facts)
        for name, action in book.actions.items():
            if action.event is None:
                assert book.resolve(name, facts) in legal


def test_conditions_must_all_hold() -> None:
    assert holds(["member", "not cart"], {"member"})
    assert not holds(["member", "not cart"], {"member", "cart"})
    assert holds([], set())


@pytest.mark.parametrize(
    "flow, error",
    [
        ("flow: [", "flow.yaml: while parsing"),
        ("flow: one\ntitle: {en: One}\n", "field actions: Field required"),
        ("flow: one\ntitle: {en: One}\nactions: {}\nx: 1\n", "field x: Extra inputs"),
        (one_action("{operation: a, when: [x], outcomes: {}}"), "action a: unknown fact 'x'"),
        (one_action("{operation: a, slots: [x], outcomes: {}}"), "action a: unknown slot 'x'"),
        (one_action("{operation: a, required: [x], outcomes: {}}"), "`required` names ['x']"),
        (
            one_action("{operation: a, otherwise: [{when: [], action: b}], outcomes: {}}"),
            "action a: unknown fallback action 'b'",
        ),
    ],
)
def test_invalid_field_is_named(tmp_path: Path, flow: str, error: str) -> None:
    with pytest.raises(FlowError) as caught:
        load_flows(write_flow(tmp_path, flow))
    assert error in str(caught.value)
    assert "flow.yaml" in str(caught.value)


def test_unreadable_file_is_named_in_one_line(tmp_path: Path) -> None:
    for content in (b"flow: [\n\n", b"\xff\xfe", b"\t- x"):
        (tmp_path / "shared.yaml").write_bytes(content)
        with pytest.raises(FlowError) as caught:
            load_flows(tmp_path)
        assert str(tmp_path / "shared.yaml") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_folder_without_flows_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FlowError, match=r"shared\.yaml"):
        load_flows(tmp_path)
    (tmp_path / "shared.yaml").write_text(SHARED, encoding="utf-8")
    with pytest.raises(FlowError, match="no flow"):
        load_flows(tmp_path)


@pytest.mark.parametrize(
    "action, error",
    [
        ("{operation: fly, outcomes: {}}", "unknown operation 'fly'"),
        ("{operation: greet, compensation: fly, outcomes: {}}", "unknown operation 'fly'"),
        (
            "{operation: greet, compensation: log_in, outcomes: {}}",
            "unknown compensating action 'log_in'",
        ),
        ("{operation: greet, raises: eclipse, outcomes: {}}", "unknown event 'eclipse'"),
        ("{operation: greet, event: eclipse, outcomes: {}}", "unknown event 'eclipse'"),
    ],
)
def test_unknown_operations_actions_and_events_are_rejected(
    tmp_path: Path, action: str, error: str
) -> None:
    with pytest.raises(FlowError, match=error):
        check_operations(load_flows(write_flow(tmp_path, one_action(action))))


def test_every_shipped_action_says_when_it_is_confirmed(book: FlowBook) -> None:
    assert [name for name, a in book.actions.items() if "confirm" not in a.model_fields_set] == []

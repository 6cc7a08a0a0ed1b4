"""Flow files: what ships is whole, and what is wrong is named with file and field."""

from pathlib import Path

import pytest

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.flows.book import holds
from gpt2flow.agent.operations import OPERATIONS
from gpt2flow.agent.turns.execution import check_operations

SHARED = "facts: {guest: Not logged in.}\nslots: {}\n"


def one_action(action: str) -> str:
    """A flow with one action, `a`."""
    return f"flow: one\ntitle: {{en: One}}\nactions: {{a: {action}}}\n"


def written(folder: Path, flow: str, shared: str = SHARED) -> Path:
    (folder / "one").mkdir()
    (folder / "shared.yaml").write_text(shared, encoding="utf-8")
    (folder / "one" / "flow.yaml").write_text(flow, encoding="utf-8")
    return folder


def test_shipped_flows_name_code_that_exists_and_all_of_it(book: FlowBook) -> None:
    check_operations(book)
    assert {action.operation for action in book.actions.values()} == set(OPERATIONS)


def test_every_wish_has_an_answer_in_every_state(book: FlowBook) -> None:
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


def test_conditions() -> None:
    assert holds(["member", "not cart"], {"member"})
    assert not holds(["member", "not cart"], {"member", "cart"})
    assert holds([], set())


@pytest.mark.parametrize(
    "flow, error",
    [
        ("flow: [", "flow.yaml: while parsing"),
        ("flow: one\ntitle: {en: One}\n", "field actions: Field required"),
        ("flow: one\ntitle: {en: One}\nactions: {}\nx: 1\n", "field x: Extra inputs"),
        (one_action("{operation: a, when: [x], outcomes: {}}"), "action a: no fact 'x'"),
        (one_action("{operation: a, slots: [x], outcomes: {}}"), "action a: no slot 'x'"),
        (one_action("{operation: a, required: [x], outcomes: {}}"), "`required` names ['x']"),
        (
            one_action("{operation: a, otherwise: [{when: [], action: b}], outcomes: {}}"),
            "action a: no action 'b'",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, flow: str, error: str) -> None:
    with pytest.raises(FlowError) as caught:
        load_flows(written(tmp_path, flow))
    assert error in str(caught.value)
    assert "flow.yaml" in str(caught.value)


def test_broken_file_is_named_in_one_line(tmp_path: Path) -> None:
    for content in (b"flow: [\n\n", b"\xff\xfe", b"\t- x"):
        (tmp_path / "shared.yaml").write_bytes(content)
        with pytest.raises(FlowError) as caught:
            load_flows(tmp_path)
        assert str(tmp_path / "shared.yaml") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_folder_without_flows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlowError, match=r"shared\.yaml"):
        load_flows(tmp_path)
    (tmp_path / "shared.yaml").write_text(SHARED, encoding="utf-8")
    with pytest.raises(FlowError, match="no flow"):
        load_flows(tmp_path)


@pytest.mark.parametrize(
    "action, error",
    [
        ("{operation: fly, outcomes: {}}", "no operation 'fly'"),
        ("{operation: greet, compensation: fly, outcomes: {}}", "no operation 'fly'"),
        ("{operation: greet, compensation: log_in, outcomes: {}}", "no action 'log_in'"),
        ("{operation: greet, raises: eclipse, outcomes: {}}", "no event 'eclipse'"),
        ("{operation: greet, event: eclipse, outcomes: {}}", "no event 'eclipse'"),
    ],
)
def test_flows_that_name_no_code_are_refused(tmp_path: Path, action: str, error: str) -> None:
    with pytest.raises(FlowError, match=error):
        check_operations(load_flows(written(tmp_path, one_action(action))))

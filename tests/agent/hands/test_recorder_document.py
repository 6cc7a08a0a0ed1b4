"""Files that the recorder adds to."""

from pathlib import Path

import pytest

from gpt2flow.agent.errors import FlowError, InputError
from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.hands.recorder.document import (
    left_of_sign_in,
    left_to_do,
    read_recordings,
    write_action,
)
from gpt2flow.agent.hands.recorder.drafts import (
    DraftFile,
    DraftProof,
    DraftRecording,
    DraftSignIn,
)
from gpt2flow.agent.hands.recording import Element, ScreenStep

COMMENTED = """\
# Screens of the order flow.
actions:
  # First of all.
  add_to_cart:
    steps: [{do: open, path: /}]   # kept
    commit: {role: button, name: 'Add: {product}'}
    shows: ["{product}"]
    outcomes: {added: "Added {product}, ..."}
    proof: {path: /cart, shows: ["{product}"]}

  # Then this.
  view_cart:
    steps:
      - {do: open, path: /}
    commit: {role: link, name: Cart}
    outcomes: {shown: "Your cart: ..."}
    proof: {path: /cart}
"""


def recording(commit: str, **outcomes: str) -> DraftRecording:
    return DraftRecording(
        steps=[ScreenStep(do="open", path="/")],
        commit=Element(role="button", name=commit),
        outcomes=outcomes,
        proof=DraftProof(path="/购物车"),
    )


def test_a_new_file_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "screens.zh.yaml"
    written = write_action(path, "add_to_cart", recording("加入: {product}", added="已加入"))
    content = read_recordings(path, DraftFile)
    assert content == DraftFile(actions={"add_to_cart": written})
    assert "加入: {product}" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("action", ["add_to_cart", "view_cart", "remove_from_cart"])
def test_the_other_actions_of_a_file_stay_with_their_comments(action: str, tmp_path: Path) -> None:
    path = tmp_path / "screens.en.yaml"
    path.write_text(COMMENTED, encoding="utf-8")
    before = read_recordings(path, DraftFile)
    assert before is not None
    written = write_action(path, action, recording("New", shown="x"))
    after = read_recordings(path, DraftFile)
    assert after == DraftFile(actions={**before.actions, action: written})
    text = path.read_text(encoding="utf-8")
    assert "# Screens of the order flow." in text
    assert "  # Then this.\n" in text
    assert ("# kept" in text) == (action != "add_to_cart")


def test_a_file_in_another_style_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "screens.en.yaml"
    inline = "actions: {view_cart: {steps: [{do: open, path: /}], commit: {role: link, name: C},"
    path.write_text(inline + " outcomes: {shown: x}, proof: {path: /}}}\n", encoding="utf-8")
    write_action(path, "add_to_cart", recording("New", added="x"))
    after = read_recordings(path, DraftFile)
    assert after is not None
    assert list(after.actions) == ["view_cart", "add_to_cart"]


def test_a_second_outcome_of_the_same_steps_is_added(tmp_path: Path) -> None:
    path = tmp_path / "screens.en.yaml"
    path.write_text(COMMENTED, encoding="utf-8")
    same = DraftRecording(
        steps=[ScreenStep(do="open", path="/")],
        commit=Element(role="button", name="Add: {product}"),
        outcomes={"out_of_stock": "Sorry"},
        proof=DraftProof(path="/"),
    )
    written = write_action(path, "add_to_cart", same)
    assert written.outcomes == {"added": "Added {product}, ...", "out_of_stock": "Sorry"}
    # What a person completed.
    assert (written.shows, written.proof.path) == (["{product}"], "/cart")


def test_what_is_left_to_do_is_listed() -> None:
    left = left_to_do(
        "f: action view_cart", load_flows(), "view_cart", recording("Cart", shown="Your cart")
    )
    assert left[0] == "f: action view_cart: outcomes ['empty'] are missing"
    assert [each.partition(":")[0] for each in left[1:]] == ["shows", "proof", "outcomes"]


def test_a_proof_with_a_text_is_complete() -> None:
    done = recording("Cart", shown="Your cart", empty="Nothing")
    proof = DraftProof(path="/cart", gone=["Green tea"])
    done = done.model_copy(update={"proof": proof, "shows": ["Cart"]})
    left = left_to_do("f", load_flows(), "view_cart", done)
    assert [each.partition(":")[0] for each in left] == ["outcomes"]


def test_a_sign_in_with_a_field_that_no_agent_has_is_to_be_completed() -> None:
    steps = [ScreenStep(do="fill", role="textbox", name="Code", text="{code}")]
    sign_in = DraftSignIn(
        steps=steps,
        signed_out=Element(role="button", name="Sign in"),
        serve=[ScreenStep(do="open", path="/serve/{session}")],
        serving=Element(role="link", name="Serving {session}"),
    )
    (left,) = left_of_sign_in("f", sign_in, [])
    assert left.startswith("f: steps: '{code}' has the field {code}, expected {session}, {token}")
    done = sign_in.model_copy(update={"steps": sign_in.serve})
    assert left_of_sign_in("f", done, []) == []


def test_an_invalid_file_or_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "screens.en.yaml"
    path.write_text("actions: {view_cart: {steps: []}}", encoding="utf-8")
    with pytest.raises(FlowError, match=r"screens\.en\.yaml: field actions\.view_cart"):
        read_recordings(path, DraftFile)
    with pytest.raises(InputError, match="is no folder"):
        read_recordings(tmp_path / "missing" / "x.yaml", DraftFile)

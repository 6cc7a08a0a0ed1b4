"""Evaluation of model choices against labelled messages."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.scripted_model import FailingModel, OneReading, ScriptedModel

from gpt2flow.agent.errors import InputError, ModelError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.scenarios.understanding import (
    MISSES,
    Example,
    judge,
    load_examples,
    summary,
)
from gpt2flow.agent.turns.model import ModelAnswer


def example(
    message: str, *actions: dict[str, Any], lang: str = "en", facts: Sequence[str] = ("member",)
) -> Example:
    return Example.model_validate(
        {
            "id": message,
            "lang": lang,
            "state": {"facts": list(facts), "awaiting": None},
            "message": message,
            "actions": list(actions),
        }
    )


def verdict(
    book: FlowBook, model: ScriptedModel, labelled: Example, *chosen: Choice | str
) -> tuple[bool, bool]:
    model.script = {labelled.message: chosen}
    (found,) = judge(book, model, [labelled])
    return found.first_correct, found.all_correct


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel({})


ACTION_OF = {"product": "add_to_cart", "quantity": "add_to_cart", "order": "cancel_order"}


def values_match(book: FlowBook, slot: str, expected: str | int, chosen: str | int) -> bool:
    """Return whether the chosen value is judged equivalent to the expected one."""
    action = ACTION_OF.get(slot, "change_address")

    class FixedModel(OneReading):
        def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
            del grammar, session
            choice = Choice("done" if "<|result|>" in prompt else action, {slot: chosen})
            return ModelAnswer(choice.text, 1.0, 1, 1, "x")

    labelled = example("please", {"action": action, slot: expected})
    (found,) = judge(book, FixedModel(), [labelled])
    return found.all_correct


@pytest.mark.parametrize(
    "slot, expected, chosen",
    [
        ("product", "kettle", "the Kettle"),
        ("product", "kettle", "electric kettle"),
        ("product", "kettle", "热水壶"),
        ("product", "Drone", "a drone"),
        ("address", "5 Oak Rd, Leeds", "5 oak rd leeds."),
        ("address", "文三路5号，杭州", "文三路5号,杭州"),
        ("quantity", 2, 2),
    ],
)
def test_equivalent_values_match(
    book: FlowBook, slot: str, expected: str | int, chosen: str | int
) -> None:
    assert values_match(book, slot, expected, chosen)


@pytest.mark.parametrize(
    "slot, expected, chosen",
    [
        ("product", "kettle", "umbrella"),
        ("product", "desk lamp", "desk"),
        ("product", "drone", "drones"),
        ("address", "5 Oak Rd, Leeds", "5 Oak Rd"),
        ("quantity", 2, 3),
        ("order", "SO-1042", "SO-1043"),
        ("order", "SO-1042", "last"),
    ],
)
def test_different_values_do_not_match(
    book: FlowBook, slot: str, expected: str | int, chosen: str | int
) -> None:
    assert not values_match(book, slot, expected, chosen)


def test_sequence_must_match_in_order_length_and_arguments(
    book: FlowBook, model: ScriptedModel
) -> None:
    labelled = example("x", {"action": "greet"}, {"action": "view_cart"})
    assert verdict(book, model, labelled, "greet", "view_cart") == (True, True)
    assert verdict(book, model, labelled, "greet") == (True, False)
    assert verdict(book, model, labelled, "greet", "view_cart", "escalate") == (True, False)
    assert verdict(book, model, labelled, "view_cart", "greet") == (False, False)
    assert verdict(book, model, labelled, Choice("greet", {"product": "x"})) == (False, False)
    assert verdict(book, model, labelled) == (False, False)


@pytest.mark.parametrize(
    "chosen, kind",
    [
        (["greet", Choice("track_order", {"order": "SO-1"})], None),
        (["view_cart"], "wrong_action"),
        (["greet", "view_cart"], "wrong_action"),
        (["greet", Choice("track_order", {"order": "SO-2"})], "wrong_argument"),
        (["greet", "track_order"], "wrong_argument"),
        (["greet"], "ended_early"),
        (["greet", Choice("track_order", {"order": "SO-1"}), "view_cart"], "too_many"),
    ],
)
def test_miss_is_of_the_kind_of_the_first_difference(
    book: FlowBook, model: ScriptedModel, chosen: list[Choice | str], kind: str | None
) -> None:
    labelled = example("x", {"action": "greet"}, {"action": "track_order", "order": "SO-1"})
    model.script = {"x": chosen}
    (found,) = judge(book, model, [labelled])
    assert found.miss == kind
    counts = summary([found])["miss_kinds"]
    assert counts == ({} if kind is None else {"member, en": dict.fromkeys(MISSES, 0) | {kind: 1}})


def test_state_follows_the_declared_effects(book: FlowBook, model: ScriptedModel) -> None:
    add = {"action": "add_to_cart", "product": "tea"}
    check_out = {"action": "check_out", "address": "x"}
    labelled = example("tea, x", add, check_out, {"action": "confirm_order"})
    choices = Choice("add_to_cart", {"product": "tea"}), Choice("check_out", {"address": "x"})
    assert verdict(book, model, labelled, *choices, "confirm_order")[1]
    assert model.prompts[0] == "<|state|>member<|user|>tea, x<|act|>"


def test_wish_that_is_not_legal_counts_as_its_fallback(
    book: FlowBook, model: ScriptedModel
) -> None:
    log_in = {"action": "log_in", "contact": "ann@example.com"}
    labelled = example("track 1042, ann@example.com", log_in, facts=["guest"])
    track, cancel = Choice("track_order", {"order": "SO-1042"}), Choice("cancel_order")
    assert verdict(book, model, labelled, track, cancel) == (True, True)


def test_truncated_answer_is_a_miss(book: FlowBook) -> None:
    class TruncatedModel(OneReading):
        def choose(self, prompt: str, grammar: str, session: str = "") -> ModelAnswer:
            del prompt, grammar, session
            return ModelAnswer('{"action":"gre', 1.0, 1, 1, "x")

    (found,) = judge(book, TruncatedModel(), [example("x", {"action": "greet"})])
    assert (found.chosen, found.first_correct, found.all_correct) == ([], False, False)


def test_model_error_ends_the_evaluation(book: FlowBook) -> None:
    failing = FailingModel(ScriptedModel({}), answers=0)
    with pytest.raises(ModelError):
        list(judge(book, failing, [example("x", {"action": "greet"})]))


def test_summary_has_shares_by_group_and_every_miss(book: FlowBook, model: ScriptedModel) -> None:
    actions = {"action": "greet"}, {"action": "view_cart"}
    examples = [
        example("a", {"action": "greet"}),
        example("b", *actions),
        example("你好", {"action": "greet"}, lang="zh", facts=["guest", "cart"]),
    ]
    model.script = {"a": ["greet"], "b": ["greet"], "你好": ["escalate"]}
    figures = summary(list(judge(book, model, examples)))
    assert figures["examples"] == 3
    assert figures["first_action"] == pytest.approx(2 / 3)
    assert figures["whole_sequence"] == pytest.approx(1 / 3)
    assert figures["by_language"]["zh"] == {
        "examples": 1,
        "first_action": 0.0,
        "whole_sequence": 0.0,
    }
    assert {n: f["whole_sequence"] for n, f in figures["by_actions"].items()} == {
        "1": 0.5,
        "2": 0.0,
    }
    assert set(figures["by_state"]) == {"cart guest", "member"}
    assert [miss["id"] for miss in figures["misses"]] == ["b", "你好"]
    assert figures["misses"][1]["chosen"] == ['{"action":"escalate"}']
    assert figures["milliseconds"] == {"p50": 1.0, "p95": 1.0}
    json.dumps(figures)


def test_summary_of_no_examples_has_no_division_by_zero() -> None:
    assert summary([])["examples"] == 0


@pytest.mark.parametrize(
    "line, error",
    [
        ("{", "line 2: Invalid JSON"),
        ('{"id": "x"}', "line 2: field lang: Field required"),
    ],
)
def test_invalid_line_is_named(tmp_path: Path, line: str, error: str) -> None:
    path = tmp_path / "messages.jsonl"
    good = example("x", {"action": "greet"}).model_dump_json()
    path.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_examples(path)
    assert error in str(caught.value)
    assert str(path) in str(caught.value)


def test_examples_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    labelled = example("你好", {"action": "greet"}, lang="zh")
    path.write_text(f"{labelled.model_dump_json()}\n\n", encoding="utf-8")
    assert load_examples(path) == [labelled]
    with pytest.raises(InputError, match="nowhere"):
        load_examples(tmp_path / "nowhere")

"""Answers to several intents of one message, case by case."""

import random

import pytest

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.training.corpus.messages import Intent
from gpt2flow.training.corpus.turns import TurnGenerator, reachable


class _FixedDraw(random.Random):
    """Random generator with which policy refuses all refusable actions, or none."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(1)
        self._value = 0.0 if refuses else 0.99

    def random(self) -> float:
        return self._value


def _answer(
    turn_generator: TurnGenerator, state: str, *intents: str, refuses: bool = False
) -> list[str]:
    """Return actions with arguments and results.

    An intent is `action`, or `action slot=value …`.
    """
    parsed = []
    for intent in intents:
        action, *given = intent.split()
        arguments: Arguments = {}
        for pair in given:
            slot, value = pair.split("=")
            arguments[slot] = value
        parsed.append(Intent(action, arguments))
    rng = _FixedDraw(refuses=refuses)
    steps = turn_generator._answer_intents(frozenset(state.split()), parsed, rng)
    return [
        " ".join([choice.action, *map(str, choice.arguments.values()), result])
        for choice, result in steps
    ]


@pytest.mark.parametrize(
    "state, intents, expected",
    [
        ("member", ["track_order order=last"], ["track_order last ok"]),
        ("member", ["track_order"], ["track_order asked"]),
        ("guest", ["track_order order=last"], ["log_in asked"]),
        # One login serves all intents that require it, with the contact of any of them.
        ("guest", ["track_order", "cancel_order"], ["log_in asked"]),
        ("guest", ["track_order", "log_in contact=a@b.c"], ["log_in a@b.c ok"]),
        ("verifying", ["verify code=123456", "track_order order=last"],
         ["verify 123456 ok", "track_order last ok"]),
        ("member", ["add_to_cart product=a", "check_out address=b"],
         ["add_to_cart a ok", "check_out b ok"]),
        # An intent that depends on a failed step is dropped.
        ("member", ["add_to_cart", "check_out address=b"], ["add_to_cart asked"]),
        ("member cart", ["check_out", "confirm_order"], ["check_out asked"]),
        ("member cart", ["check_out address=b", "confirm_order"],
         ["check_out b ok", "confirm_order ok"]),
        # An action that is not legal in the state has a fallback.
        ("member", ["check_out address=b"], ["view_cart ok"]),
        ("guest", ["check_out address=b"], ["log_in asked"]),
        ("member", ["confirm_order"], ["clarify ok"]),
        ("member", ["verify code=123456"], ["greet ok"]),
        # Small talk answers a message only if no other action does.
        ("member", ["register", "track_order order=last"], ["track_order last ok"]),
        ("member", ["register", "log_in"], ["greet ok"]),
    ],
)  # fmt: skip
def test_intents_are_answered_with_actions_and_results(
    turn_generator: TurnGenerator, state: str, intents: list[str], expected: list[str]
) -> None:
    assert _answer(turn_generator, state, *intents) == expected


def test_a_refusal_does_not_stop_the_other_intents(turn_generator: TurnGenerator) -> None:
    intents = ["add_to_cart product=a", "check_out address=b", "track_order order=last"]
    assert _answer(turn_generator, "member", *intents, refuses=True) == [
        "add_to_cart a refused",
        "track_order last refused",
    ]


def test_all_states_that_actions_lead_to_are_reachable(turn_generator: TurnGenerator) -> None:
    start = frozenset(["guest"])
    states = {" ".join(sorted(facts)) for facts in reachable(turn_generator._book, start)}
    assert states == {
        "guest",
        "cart guest",
        "verifying",
        "cart verifying",
        "member",
        "cart member",
        "cart confirming member",
    }


@pytest.mark.parametrize(
    "actions, state, expected",
    [
        (["add_to_cart", "check_out"], "member", True),
        (["check_out", "add_to_cart"], "member", False),
        (["check_out", "add_to_cart"], "member cart", True),
        (["confirm_order", "decline_order"], "member cart confirming", False),
        (["log_out", "track_order"], "member", False),
        (["track_order", "log_out"], "member", True),
        (["log_in", "log_in"], "guest", False),
        (["add_to_cart", "add_to_cart"], "guest", True),
        (["greet", "track_order"], "member", False),
    ],
)
def test_only_coherent_actions_share_a_message(
    turn_generator: TurnGenerator, actions: list[str], state: str, *, expected: bool
) -> None:
    assert turn_generator._is_coherent(actions, frozenset(state.split())) is expected

"""What several wishes come to, case by case."""

import random

import pytest

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.training.corpus.messages import Wish
from gpt2flow.training.corpus.turns import TurnMaker, reachable


class _Luck(random.Random):
    """Every action that policy could refuse is refused, or none is."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(1)
        self._value = 0.0 if refuses else 0.99

    def random(self) -> float:
        return self._value


def _answers(turns: TurnMaker, state: str, *wishes: str, refuses: bool = False) -> list[str]:
    """Actions and results; a wish is `action`, or `action slot=value …`."""
    read = []
    for wish in wishes:
        action, *given = wish.split()
        arguments: Arguments = {}
        for pair in given:
            slot, value = pair.split("=")
            arguments[slot] = value
        read.append(Wish(action, arguments))
    steps = turns._steps(frozenset(state.split()), read, _Luck(refuses=refuses))
    return [
        " ".join([choice.action, *map(str, choice.arguments.values()), result])
        for choice, result in steps
    ]


@pytest.mark.parametrize(
    "state, wishes, expected",
    [
        ("member", ["track_order order=last"], ["track_order last ok"]),
        ("member", ["track_order"], ["track_order asked"]),
        ("guest", ["track_order order=last"], ["log_in asked"]),
        # One login serves all that need it, and knows any contact that was given.
        ("guest", ["track_order", "cancel_order"], ["log_in asked"]),
        ("guest", ["track_order", "log_in contact=a@b.c"], ["log_in a@b.c ok"]),
        ("verifying", ["verify code=123456", "track_order order=last"],
         ["verify 123456 ok", "track_order last ok"]),
        ("member", ["add_to_cart product=a", "check_out address=b"],
         ["add_to_cart a ok", "check_out b ok"]),
        # What needs a step that came to nothing is dropped.
        ("member", ["add_to_cart", "check_out address=b"], ["add_to_cart asked"]),
        ("member cart", ["check_out", "confirm_order"], ["check_out asked"]),
        ("member cart", ["check_out address=b", "confirm_order"],
         ["check_out b ok", "confirm_order ok"]),
        # What is not legal and never was has its fallback.
        ("member", ["check_out address=b"], ["view_cart ok"]),
        ("guest", ["check_out address=b"], ["log_in asked"]),
        ("member", ["confirm_order"], ["clarify ok"]),
        ("member", ["verify code=123456"], ["greet ok"]),
        # Small talk only answers where nothing else does.
        ("member", ["register", "track_order order=last"], ["track_order last ok"]),
        ("member", ["register", "log_in"], ["greet ok"]),
    ],
)  # fmt: skip
def test_wishes_lead_to_actions(
    turns: TurnMaker, state: str, wishes: list[str], expected: list[str]
) -> None:
    assert _answers(turns, state, *wishes) == expected


def test_a_refusal_does_not_stop_the_other_wishes(turns: TurnMaker) -> None:
    wishes = ["add_to_cart product=a", "check_out address=b", "track_order order=last"]
    assert _answers(turns, "member", *wishes, refuses=True) == [
        "add_to_cart a refused",
        "track_order last refused",
    ]


def test_the_states_are_those_that_actions_lead_to(turns: TurnMaker) -> None:
    states = {" ".join(sorted(facts)) for facts in reachable(turns._book, frozenset(["guest"]))}
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
    "wished, state, expected",
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
def test_wishes_that_people_have_together(
    turns: TurnMaker, wished: list[str], state: str, *, expected: bool
) -> None:
    assert turns._is_sensible(wished, frozenset(state.split())) is expected

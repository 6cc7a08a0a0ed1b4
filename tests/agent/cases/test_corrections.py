"""Corrections: what people teach the model, and what they may not."""

import pytest
from sqlalchemy import delete
from tests.support.desk import BEN
from tests.support.shop import Shop
from tests.support.turns import say

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import Case, ModelCall

MESSAGE = "where on earth is order 1042"
RIGHT = '{"action":"track_order","order":"SO-1042"}'


@pytest.fixture
def desk(shop: Shop) -> Desk:
    """Desk with the case C-1, which the model opened by mistake."""
    shop.log_in("s")
    say(shop, MESSAGE, Choice("escalate"))
    return Desk(shop.book, shop.database, shop.clock)


def test_a_correction_becomes_a_turn_with_the_model_s_own_prompt(shop: Shop, desk: Desk) -> None:
    view = desk.close(BEN, "C-1", correct=RIGHT)
    assert view.history[-1].details is not None
    assert view.history[-1].details["correct"] == RIGHT
    (turn,) = desk.corrections()
    assert turn == (
        f"<|state|>member<|past|>register ok, verify ok<|user|>{MESSAGE}<|act|>{RIGHT}"
        '<|result|>ok<|act|>{"action":"done"}<|endoftext|>'
    )
    assert not [case for case in shop.rows(Case) if case.status != "closed"]


def test_an_erased_turn_is_left_out(shop: Shop, desk: Desk) -> None:
    desk.close(BEN, "C-1", correct=RIGHT)
    with shop.database.transaction() as db:
        db.execute(delete(ModelCall))
    assert desk.corrections() == []


def test_a_case_without_a_correction_is_none(desk: Desk) -> None:
    desk.close(BEN, "C-1", "called them")
    assert desk.corrections() == []


@pytest.mark.parametrize(
    "text,error",
    [
        ("", "must be an action such as"),
        ("track_order", "must be an action such as"),
        ("[]", "must be an action such as"),
        ('{"order":"SO-1042"}', "must be an action such as"),
        ('{"action":"fly"}', "action is 'fly', must be one of"),
        ('{"action":"assign_courier"}', "action is 'assign_courier', must be one of"),
        ('{"action":"track_order","product":"kettle"}', "track_order has no argument 'product'"),
        ('{"action":"track_order","order":"SO-1043"}', "does not have the values of"),
    ],
)
def test_an_action_that_the_message_cannot_mean_is_refused(
    desk: Desk, text: str, error: str
) -> None:
    with pytest.raises(InputError, match=error):
        desk.close(BEN, "C-1", correct=text)
    assert desk.show("C-1").status == "open"


def test_a_case_that_the_model_did_not_open_has_nothing_to_correct(shop: Shop, desk: Desk) -> None:
    order = shop.order()
    shop.act("s", "confirm_delivery", order=order)
    with pytest.raises(InputError, match="C-2 has no answer of the model to correct"):
        desk.close(BEN, "C-2", correct=RIGHT)

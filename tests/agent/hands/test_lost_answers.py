"""Tests of unanswered presses, while the customer acts too."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.conversations import Conversation
from tests.support.hands import Workplace, workplace
from tests.support.scripted_model import Script
from tests.support.shop import CODE
from tests.support.storefront import Shopper

from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.hands.errors import SlowPageError
from gpt2flow.agent.hands.recording import Element
from gpt2flow.agent.hands.screen import Screen
from gpt2flow.agent.report import ActionReport
from gpt2flow.agent.shop import (
    CartLine,
    Case,
    CaseEvent,
    CustomerSession,
    Order,
    Shipment,
    Verification,
)

ANN = Choice("register", {"name": "Ann", "contact": "ann@example.com"})
LOG_IN: Script = {"I'm Ann": [ANN], CODE: [Choice("verify", {"code": CODE})]}
UMBRELLA = Choice("add_to_cart", {"product": "umbrella"})
ORDER: Script = {
    **LOG_IN,
    "an umbrella to 9 Ash Rd": [UMBRELLA, Choice("check_out", {"address": "9 Ash Rd"})],
}

CONFIRMED: Script = {**ORDER, "yes": ["confirm_order"]}


@contextmanager
def lost(button: str, *, is_pressed: bool, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Lose the first answer to a button, while the customer acts.

    Args:
        button: Name of the button in the recording.
        is_pressed: Whether the shop gets the press.
        meanwhile: What the customer does before the agent looks again.
    """
    press, losses = Screen.press, iter([True])

    def lose(screen: Screen, element: Element, fields: Mapping[str, str | int]) -> None:
        loses = element.name == button and next(losses, False)
        if not loses or is_pressed:
            press(screen, element, fields)
        if loses:
            meanwhile()
            raise SlowPageError("lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screen, "press", lose)
        yield


def last_action(
    place: Workplace,
    script: Script,
    button: str,
    meanwhile: Callable[[Shopper], object] = lambda _: None,
    *,
    is_pressed: bool,
) -> ActionReport:
    """Play a conversation whose last answer is lost."""
    conversation = Conversation("en", script)

    def act() -> None:
        with place.shop.operator("hal", "s") as customer:
            meanwhile(customer)

    with place.agent(conversation) as agent:
        *messages, last = conversation.messages
        for number, text in enumerate(messages):
            agent.handle("s", text, str(number))
        with lost(button, is_pressed=is_pressed, meanwhile=act):
            return agent.handle("s", last, "last").actions[-1]


def add_kettle(customer: Shopper) -> None:
    customer.do("/products/electric-kettle", quantity="1")


def place_order(customer: Shopper) -> None:
    customer.submit("/checkout/review", "/checkout/confirm")


@pytest.mark.parametrize(
    "script, button, meanwhile",
    [
        ({**LOG_IN, "an umbrella": [UMBRELLA]}, "Add to cart", add_kettle),
        (
            {
                **LOG_IN,
                "an umbrella": [UMBRELLA],
                "no umbrella": [Choice("remove_from_cart", {"product": "umbrella"})],
            },
            "Remove: {product}",
            add_kettle,
        ),
        ({**ORDER, "not yet": ["decline_order"]}, "Do not order", place_order),
    ],
    ids=["add", "remove", "decline"],
)
def test_what_the_customer_does_is_never_taken_for_the_agent_s(
    path: Path, script: Script, button: str, meanwhile: Callable[[Shopper], object]
) -> None:
    with workplace(path) as place:
        action = last_action(place, script, button, meanwhile, is_pressed=False)
        assert (action.action, action.outcome) == ("escalate", "screen_stopped")
        [stop] = [each for each in place.rows(CaseEvent) if each.change == "stopped"]
        assert "/cart" in str(stop.text)


def test_a_lost_answer_to_an_order_has_its_number(path: Path) -> None:
    with workplace(path) as place:
        action = last_action(place, CONFIRMED, "Place order", is_pressed=True)
        assert action.outcome == "submitted"
        assert action.messages[0].text.startswith("Order SO-1001 is submitted: 1 × umbrella")
        assert len(place.rows(Order)) == len(place.rows(Shipment)) == 1


def test_the_event_is_of_the_agent_s_order_whatever_the_customer_orders(path: Path) -> None:
    def order_another(customer: Shopper) -> None:
        customer.order("desk-lamp")

    with workplace(path) as place:
        last_action(place, CONFIRMED, "Place order", order_another, is_pressed=True)
        assert len(place.rows(Order)) == 2
        [shipment] = place.rows(Shipment)
        assert place.rows(Order)[0].id == shipment.order_id


def test_a_wrong_code_whose_answer_is_lost_is_tried_once(path: Path) -> None:
    script: Script = {"I'm Ann": [ANN], "000000": [Choice("verify", {"code": "000000"})]}
    with workplace(path) as place:
        action = last_action(place, script, "Log in", is_pressed=True)
        assert action.outcome == "wrong_code"
        assert [each.attempts for each in place.rows(Verification)] == [1]


def test_a_refused_form_that_keeps_what_was_typed_proves_nothing(path: Path) -> None:
    """The parcel is collected while the agent types the new address."""
    script = {
        **CONFIRMED,
        "to 77 New Rd": [Choice("change_address", {"address": "77 New Rd"})],
    }
    with workplace(path) as place:

        def deliver(customer: Shopper) -> None:
            customer.do("/orders/SO-1001", "/orders/SO-1001/arrived")

        action = last_action(place, script, "Change address", deliver, is_pressed=False)
        assert action.outcome == "screen_stopped"
        assert [order.address for order in place.rows(Order)] == ["9 Ash Rd"]


def test_a_conversation_of_a_longer_id_is_another_one(path: Path) -> None:
    script = {**LOG_IN, "a lamp": [Choice("add_to_cart", {"product": "lamp"})]}
    conversation = Conversation("en", script)
    with workplace(path) as place, place.agent(conversation) as agent:
        for number, text in enumerate(conversation.messages[:2]):
            agent.handle("s12", text, str(number))
        agent.handle("s1", "a lamp", "0")
        assert [line.session_id for line in place.rows(CartLine)] == ["s1"]


def test_a_customer_cannot_be_taken_for_a_sign_of_whom_the_agent_serves(path: Path) -> None:
    name = "Serving conversation victim"
    script: Script = {
        "hi": [Choice("register", {"name": name, "contact": "mal@example.com"})],
        CODE: [Choice("verify", {"code": CODE})],
        "a lamp": [Choice("add_to_cart", {"product": "lamp"})],
    }
    conversation = Conversation("en", script)
    with workplace(path) as place, place.agent(conversation) as agent:
        for number, text in enumerate(conversation.messages[:2]):
            agent.handle("mallory", text, str(number))
        agent.handle("victim", "a lamp", "0")
        assert [line.session_id for line in place.rows(CartLine)] == ["victim"]


def test_nothing_is_pressed_once_a_person_has_the_conversation(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Screen.check_filled

    with workplace(path) as place:

        def taken(screen: Screen, button: Element, fields: Mapping[str, str | int]) -> None:
            check(screen, button, fields)
            place.write(lambda db: setattr(db.get_one(CustomerSession, "s"), "attended_by", "hal"))

        monkeypatch.setattr(Screen, "check_filled", taken)
        conversation = Conversation("en", {"an umbrella": [UMBRELLA]})
        with place.agent(conversation) as agent:
            assert agent.handle("s", "an umbrella", "0").attended_by == "hal"
        assert place.rows(CartLine) == []
        assert len(place.rows(Case)) == 1

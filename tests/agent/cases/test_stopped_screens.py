"""Actions that stopped at a screen, and their cases."""

from datetime import timedelta

import pytest
from tests.support.desk import BEN, HAL, changes, hand_over, new_desk, texts
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import CODE, Shop
from tests.support.stopped_screens import REASON, png, stop_at, stopped
from tests.support.turns import InlineWorkflow, new_handler

from gpt2flow.agent.flows.prompt import Arguments, Choice
from gpt2flow.agent.hands.errors import ScreenStopped
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import (
    Audience,
    CartLine,
    Case,
    CaseEvent,
    CaseKind,
    CasePicture,
    CaseStatus,
    CustomerSession,
    Delivery,
    ExecutedAction,
    Order,
    OrderStatus,
    OutboxMessage,
    Payment,
    ScreenWork,
)
from gpt2flow.agent.turns.execution import Event, Task

UMBRELLA = Choice("add_to_cart", {"product": "umbrella"}, 0.75)
PRODUCT: Arguments = {"product": "umbrella", "quantity": 1}
KETTLE = Choice("add_to_cart", {"product": "kettle"})


def say(shop: Shop, text: str, *choices: Choice | str) -> tuple[TurnReport, InlineWorkflow]:
    """Handle a message in session `s`, and what it raises."""
    events = ("assign_courier", "send_delivery_details")
    model = ScriptedModel({text: choices, "order_submitted": events})
    workflow, key = InlineWorkflow(), f"m{next(shop.keys)}"
    handler = new_handler(shop, model)
    return handler.handle_message(workflow, key, "s", key, text), workflow


def stops(shop: Shop) -> list[CaseEvent]:
    """Return the stops in the history of all cases, oldest first."""
    events = sorted(shop.rows(CaseEvent), key=lambda each: each.id)
    return [event for event in events if event.change == "stopped"]


def work_on(
    shop: Shop,
    key: str,
    *,
    pressed: bool,
    action: str = "add_to_cart",
    used: Arguments = PRODUCT,
) -> None:
    """Write the record of an action that began on a screen."""
    now = shop.clock()
    task = {"action": action, "used": used}
    with shop.database.transaction() as db:
        db.add(
            ScreenWork(
                key=key,
                session_id="s",
                task=task,
                before="Your cart is empty.",
                pressed_at=now if pressed else None,
                created_at=now,
            )
        )


@pytest.mark.parametrize(
    "text, told",
    [
        ("an umbrella please", "I am sorry, something went wrong there."),
        ("我要一把雨伞", "抱歉, 这一步出了点问题"),
    ],
)
def test_a_stop_hands_the_conversation_over_with_the_picture(
    shop: Shop, text: str, told: str
) -> None:
    shop.log_in("s")
    hands = stop_at(shop, "add_to_cart", picture=png())
    report, workflow = say(shop, text, UMBRELLA)
    assert [task.action for task in hands.tasks] == ["add_to_cart"]
    (case,) = shop.rows(Case)
    assert (case.kind, case.status) == (CaseKind.HAND_OVER, CaseStatus.OPEN)
    assert (case.reason, case.note, case.session_id) == ("screen_stopped", text, "s")
    assert case.customer_id == 1
    assert case.proposal == {
        "action": "add_to_cart",
        "arguments": {"product": "umbrella"},
        "confidence": 0.75,
        "call": f"{report.message_id}/0",
    }
    assert changes(shop) == [("agent", "opened"), ("agent", "stopped")]
    (stop,) = stops(shop)
    (picture,) = shop.rows(CasePicture)
    assert stop.text == REASON
    assert stop.details is not None
    assert stop.details["picture"] == picture.id
    assert (picture.case_id, picture.content) == (case.id, png())
    # The customer hears of it, in the language of the message.
    assert len(report.replies) == 1
    assert report.replies[0].startswith(told)
    assert "C-1" in report.replies[0]
    (message,) = [row for row in shop.rows(OutboxMessage) if row.case_id is not None]
    assert (message.contact, message.delivery) == (None, Delivery.ANSWERED)
    assert [timer.case for timer in workflow.timers] == [case.id]
    assert not shop.rows(CartLine)


def test_a_stop_without_a_picture_is_a_case_too(shop: Shop) -> None:
    stopped(shop)
    assert [stop.text for stop in stops(shop)] == [REASON]
    assert not shop.rows(CasePicture)
    assert new_desk(shop).show("C-1").pictures == []


@pytest.mark.parametrize("pressed", [False, True])
def test_a_stop_is_reported_once_and_its_work_is_deleted(shop: Shop, *, pressed: bool) -> None:
    shop.executor.begin_turn("m1", "s", "an umbrella please")
    for key in ("m1/0", "m2/0"):
        work_on(shop, key, pressed=pressed)
    task = Task("m1/0", "s", "an umbrella please", UMBRELLA, turn="m1")
    report = shop.executor.cases.report_stopped_screen
    first = report(task, ScreenStopped(REASON, png()))
    second = report(task, ScreenStopped("something else", png()))
    assert first == second == shop.executor.execute(task)
    assert (len(shop.rows(Case)), len(shop.rows(CasePicture)), len(texts(shop))) == (1, 1, 1)
    (stop,) = stops(shop)
    assert stop.details == {
        "action": "add_to_cart",
        "arguments": {"product": "umbrella", "quantity": 1},
        "pressed": pressed,
        "picture": 1,
    }
    assert [work.key for work in shop.rows(ScreenWork)] == ["m2/0"]
    (record,) = [row for row in shop.rows(ExecutedAction) if row.key == "m1/0"]
    assert (record.action, record.outcome) == ("escalate", "screen_stopped")


@pytest.mark.parametrize("is_at_screen", [False, True])
def test_the_case_of_a_stop_holds_no_code(shop: Shop, *, is_at_screen: bool) -> None:
    """The code is valid still, and staff see cases."""
    said = f"my code is {CODE}, or 123 456"
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    shop.executor.begin_turn("m1", "s", said)
    if is_at_screen:
        work_on(shop, "m1/0", pressed=False, action="verify", used={"code": CODE})
    task = Task("m1/0", "s", said, Choice("verify", {"code": CODE}), turn="m1")
    error = ScreenStopped(f"/code says {CODE!r}, which is not recorded")
    shop.executor.cases.report_stopped_screen(task, error)
    (case,) = shop.rows(Case)
    assert case.note == "my code is [code], or [code]"
    assert case.proposal is not None
    assert case.proposal["arguments"] == {"code": "[code]"}
    (stop,) = stops(shop)
    assert stop.text == "/code says '[code]', which is not recorded"
    assert stop.details is not None
    assert stop.details["arguments"] == {"code": "[code]"}
    kept = [case.note, case.proposal, *((e.text, e.details) for e in shop.rows(CaseEvent))]
    assert CODE not in str(kept)
    assert "123 456" not in str(kept)


def test_the_case_of_an_outage_holds_no_code(shop: Shop) -> None:
    shop.act("s", "register", name="Ann", contact="ann@example.com")
    shop.executor.begin_turn("m1", "s", CODE)
    shop.executor.cases.report_outage("m1", "s", f"it is {CODE}")
    assert [case.note for case in shop.rows(Case)] == ["it is [code]"]


def test_a_wrong_code_is_no_argument_of_a_case_either(shop: Shop) -> None:
    """It may be one of another conversation."""
    shop.executor.begin_turn("m1", "s", "654321")
    task = Task("m1/0", "s", "order 654321", Choice("verify", {"code": "654321"}), turn="m1")
    shop.executor.cases.report_stopped_screen(task, ScreenStopped(REASON))
    (case,) = shop.rows(Case)
    assert case.note == "order 654321"
    assert case.proposal is not None
    assert case.proposal["arguments"] == {"code": "[code]"}


def test_a_stop_ends_the_turn(shop: Shop) -> None:
    """Later actions may rely on it: a checkout would lack a product."""
    hands = stop_at(shop, "add_to_cart")
    report, _ = say(shop, "an umbrella and a kettle", UMBRELLA, KETTLE)
    assert [(a.action, a.wish, a.outcome) for a in report.actions] == [
        ("escalate", "add_to_cart", "screen_stopped")
    ]
    assert (len(hands.tasks), len(report.replies)) == (1, 1)


def test_a_customer_is_told_of_each_message_in_one_case(shop: Shop) -> None:
    stop_at(shop, "add_to_cart")
    for _ in range(2):
        report, _ = say(shop, "an umbrella please", UMBRELLA)
        assert len(report.replies) == 1
    assert len(shop.rows(Case)) == 1
    assert [stop.text for stop in stops(shop)] == [REASON] * 2


def test_a_later_stop_joins_the_case_that_waits(shop: Shop) -> None:
    number = hand_over(shop)
    stopped(shop, picture=png(1))
    stopped(shop, picture=png(2))
    assert [case.number for case in shop.rows(Case)] == [number]
    desk = new_desk(shop)
    pictures = desk.show(number).pictures
    assert [picture.id for picture in pictures] == [2, 1]
    assert [picture.text for picture in pictures] == [REASON, REASON]
    assert desk.pictures(number) == [png(1), png(2)]
    desk.close(BEN, number)
    stopped(shop)
    assert [case.reason for case in shop.rows(Case)] == [None, "screen_stopped"]


def test_a_person_who_attends_gets_the_stop_and_the_agent_is_silent(shop: Shop) -> None:
    number = hand_over(shop)
    shop.executor.begin_turn("m1", "s", "an umbrella please")
    new_desk(shop).assign(HAL, number)
    before = texts(shop)
    task = Task("m1/0", "s", "an umbrella please", UMBRELLA, turn="m1")
    step = shop.executor.cases.report_stopped_screen(task, ScreenStopped(REASON, png()))
    assert (step.attended_by, step.result) == ("hal", "blocked")
    assert texts(shop) == before
    # The message is passed on, and so is the picture.
    assert "an umbrella please" in texts(shop, Audience.STAFF)[-1]
    assert [each for _, each in changes(shop)][-2:] == ["written", "stopped"]
    assert len(new_desk(shop).show(number).pictures) == 1


def test_a_wish_that_stopped_is_not_resumed(shop: Shop) -> None:
    """The person has it."""
    shop.act("s", "add_to_cart", product="umbrella")
    shop.act("s", "check_out", message="check out to 5 Oak Rd", address="5 Oak Rd")
    (session,) = shop.rows(CustomerSession)
    assert [each["action"] for each in session.wanted] == ["check_out"]
    task = Task(
        "m1/0",
        "s",
        "check out to 5 Oak Rd",
        Choice("check_out", {"address": "5 Oak Rd"}),
        turn="m1",
    )
    step = shop.executor.cases.report_stopped_screen(task, ScreenStopped(REASON))
    assert step.resumable == []
    (session,) = shop.rows(CustomerSession)
    assert session.wanted == []


def test_an_event_that_stopped_ends_with_a_case_of_its_order(shop: Shop) -> None:
    """Nobody tries again, and the order is not cancelled."""
    shop.log_in("s")
    shop.check_out("s", "kettle")
    hands = stop_at(shop, "assign_courier", picture=png())
    report, workflow = say(shop, "yes", "confirm_order")
    (event,) = report.events
    assert [(a.action, a.result, a.outcome) for a in event.actions] == [
        ("assign_courier", "blocked", "screen_stopped")
    ]
    assert event.postponed is None
    assert workflow.retries == []
    # No further call of the model for the event.
    assert (len(hands.tasks), len(report.calls)) == (1, 3)
    (case,) = shop.rows(Case)
    (order,) = shop.rows(Order)
    assert (case.kind, case.reason) == (CaseKind.FAILURE, "screen_stopped")
    assert (case.order_id, case.amount) == (order.id, order.total)
    assert order.status is OrderStatus.SUBMITTED
    assert len(shop.rows(Payment)) == 1
    assert [stop.text for stop in stops(shop)] == [REASON]
    assert len(shop.rows(CasePicture)) == 1
    assert [timer.case for timer in workflow.timers] == [case.id]
    (message,) = [row for row in shop.rows(OutboxMessage) if row.case_id is not None]
    assert message.contact == "ann@example.com"
    assert "Something went wrong with order SO-1001" in message.text


def test_an_undo_that_stopped_has_one_case(shop: Shop) -> None:
    shop.log_in("s")
    number = shop.order()
    event = Event("order_submitted", number)
    key = f"order_submitted/{number}/undo"
    task = Task(key, "s", number, Choice("cancel_order"), event=event, is_compensation=True)
    step = shop.executor.cases.report_stopped_screen(task, ScreenStopped(REASON, png()))
    assert step.result == "blocked"
    timers = shop.executor.cases.report_failed_undo(key, event)
    assert timers == step.timers
    assert len(shop.rows(Case)) == len(texts(shop)) == 1


def test_the_case_of_a_stop_has_deadlines(shop: Shop) -> None:
    step = stopped(shop)
    (timer,) = step.timers
    assert timer.due == shop.clock.now + timedelta(minutes=60)
    shop.clock.forward(minutes=60)
    shop.executor.cases.advance(timer.case)
    assert changes(shop)[-1] == ("agent", "reminded")

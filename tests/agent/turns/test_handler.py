"""Turns with their events, compensation, timers and retries."""

import pytest
from sqlalchemy import update
from tests.support.scripted_model import FailingModel, Script, ScriptedModel
from tests.support.shop import Shop
from tests.support.turns import InlineWorkflow, WorkflowWithoutDatabase, new_handler, say

from gpt2flow.agent.errors import DatabaseError, ModelError, UnanswerableError
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.shop import (
    CartLine,
    Case,
    CaseKind,
    CaseStatus,
    Courier,
    ExecutedAction,
    ModelCall,
    Order,
    OrderStatus,
    OutboxMessage,
    Payment,
    PaymentStatus,
    Product,
)
from gpt2flow.agent.turns.execution import Event

SCRIPT: Script = {
    "yes": ["confirm_order"],
    "kettle, check out to 5 Oak Rd, yes": [
        Choice("add_to_cart", {"product": "kettle"}),
        Choice("check_out", {"address": "5 Oak Rd"}),
        "confirm_order",
    ],
    "call me tomorrow at 3pm": [Choice("schedule_follow_up", {"time": "tomorrow at 3pm"})],
    "order_submitted": ["assign_courier", "send_delivery_details"],
    "is my cart empty?": ["view_cart", "cheat"],
    "give me a discount": ["cheat"],
}


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel(SCRIPT)


def test_submitted_order_is_shipped_by_an_event(shop: Shop, model: ScriptedModel) -> None:
    shop.log_in("s")
    report = new_handler(shop, model).handle_message(
        InlineWorkflow(), "m1", "s", "1", "kettle, check out to 5 Oak Rd, yes"
    )
    assert [action.outcome for action in report.actions] == ["added", "summarised", "submitted"]
    (event,) = report.events
    assert (event.event, event.subject, event.postponed) == ("order_submitted", "SO-1001", None)
    assert [action.outcome for action in event.actions] == ["courier_assigned", "details_sent"]
    assert all(action.used == {"order": "SO-1001"} for action in event.actions)
    assert len(report.calls) == 6
    assert "<|state|>submitted<|event|>order_submitted SO-1001<|act|>" in model.prompts
    assert [m.to for m in report.messages] == [None, None, None, "ann@example.com"]


def test_every_model_call_is_recorded(shop: Shop, model: ScriptedModel) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    report = new_handler(shop, model).handle_message(InlineWorkflow(), "m1", "s", "1", "yes")
    calls = {call.key: call for call in shop.rows(ModelCall)}
    assert len(calls) == len(report.calls)
    first = calls["m1/0"]
    past = "<|past|>verify ok, add_to_cart ok, check_out ok"
    assert first.prompt == f"<|state|>member cart confirming{past}<|user|>yes<|act|>"
    assert first.output == '{"action":"confirm_order"}'
    assert first.constraint.startswith("start: ")
    assert (first.fingerprint, first.prompt_tokens) == ("scripted", 20)


def test_order_without_a_courier_is_compensated(shop: Shop, model: ScriptedModel) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    with shop.database.transaction() as db:
        db.execute(update(Courier).values(active=False))
    report = new_handler(shop, model).handle_message(InlineWorkflow(), "m1", "s", "1", "yes")
    outcomes = [action.outcome for action in report.events[0].actions]
    assert outcomes == ["no_courier", "cancelled"]
    assert shop.rows(Order)[0].status is OrderStatus.CANCELLED
    stock = {product.sku: product.stock for product in shop.rows(Product)}
    assert stock["electric-kettle"] == 40
    assert [case.kind for case in shop.rows(Case)] == [CaseKind.NO_COURIER]
    sent = shop.rows(OutboxMessage)[-1]
    assert sent.contact == "ann@example.com"
    assert sent.text == "Order SO-1001 is cancelled; 29.90 will be paid back."


@pytest.mark.parametrize("answers", [2, 3])
def test_event_is_retried_after_a_model_failure(
    shop: Shop, model: ScriptedModel, answers: int
) -> None:
    """The order stays submitted, and the retry resumes after the completed actions."""
    shop.log_in("s")
    shop.check_out("s", "kettle")
    workflow = InlineWorkflow()
    report = new_handler(shop, FailingModel(model, answers)).handle_message(
        workflow, "m1", "s", "1", "yes"
    )
    assert report.events[0].postponed == "no server answers at nowhere:1"
    event = Event("order_submitted", "SO-1001")
    assert workflow.retries == [("s", event, 1)]
    shop.act("s", "log_out")
    model.script = SCRIPT | {"order_submitted": SCRIPT["order_submitted"][answers - 2 :]}
    again = new_handler(shop, model).handle_event(workflow, "s", event, 2, [])
    done = [*report.events[0].actions, *again.actions]
    assert [action.outcome for action in done] == ["courier_assigned", "details_sent"]
    assert len(workflow.retries) == 1


def test_timer_is_set_for_a_follow_up(shop: Shop, model: ScriptedModel) -> None:
    shop.log_in("s")
    workflow = InlineWorkflow()
    new_handler(shop, model).handle_message(workflow, "m1", "s", "1", "call me tomorrow at 3pm")
    (case,) = shop.rows(Case)
    assert case.status is CaseStatus.SCHEDULED
    assert [(timer.case, timer.due) for timer in workflow.timers] == [(case.id, case.due_at)]


def test_event_cannot_choose_a_customer_action(shop: Shop, model: ScriptedModel) -> None:
    """Actions for customers are illegal in events."""
    shop.log_in("s")
    shop.check_out("s", "kettle")
    model.script = SCRIPT | {"order_submitted": ["cancel_order"]}
    report = new_handler(shop, model).handle_message(InlineWorkflow(), "m1", "s", "1", "yes")
    assert report.events[0].actions == []
    assert "'cancel_order', which is not allowed" in str(report.events[0].postponed)
    assert shop.rows(Order)[0].status is OrderStatus.SUBMITTED


def test_failed_turn_still_schedules_its_events(shop: Shop, model: ScriptedModel) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    workflow = InlineWorkflow()
    with pytest.raises(ModelError, match=r"\(carried out before: confirm_order\)$"):
        new_handler(shop, FailingModel(model, 1)).handle_message(workflow, "m1", "s", "1", "yes")
    assert workflow.retries == [("s", Event("order_submitted", "SO-1001"), 0)]


@pytest.mark.parametrize("step", ["order_payment", "event_facts", "choose", "execute"])
def test_event_is_retried_after_a_database_failure(
    shop: Shop, model: ScriptedModel, step: str
) -> None:
    """No customer would ask for it again."""
    shop.log_in("s")
    shop.check_out("s", "kettle")
    with pytest.raises(ModelError):
        new_handler(shop, FailingModel(model, 1)).handle_message(
            InlineWorkflow(), "m1", "s", "1", "yes"
        )
    workflow, event = WorkflowWithoutDatabase(failing=step), Event("order_submitted", "SO-1001")
    report = new_handler(shop, model).handle_event(workflow, "s", event, 3, [])
    assert report.postponed == "the connection is lost"
    assert workflow.retries == [("s", event, 3)]


def test_turn_that_the_database_ends_still_schedules_its_events(
    shop: Shop, model: ScriptedModel
) -> None:
    """The customer may not send the message again."""
    shop.log_in("s")
    shop.check_out("s", "kettle")
    workflow = WorkflowWithoutDatabase(failing="choose", after=1)
    with pytest.raises(DatabaseError):
        new_handler(shop, model).handle_message(workflow, "m1", "s", "1", "yes")
    assert workflow.retries == [("s", Event("order_submitted", "SO-1001"), 0)]


def test_payment_that_the_database_prevents_is_left_to_the_sweep(
    shop: Shop, model: ScriptedModel
) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    workflow = WorkflowWithoutDatabase(failing="settle")
    report = new_handler(shop, model).handle_message(workflow, "m1", "s", "1", "yes")
    assert [action.outcome for action in report.actions] == ["submitted"]
    (payment,) = shop.rows(Payment)
    assert (payment.status, payment.attempts) == (PaymentStatus.REQUESTED, 0)
    assert report.events[0].postponed == "order SO-1001 is not paid yet"
    assert workflow.retries == [("s", Event("order_submitted", "SO-1001"), 1)]


def test_unfinished_turn_is_handed_over_to_a_person(shop: Shop, model: ScriptedModel) -> None:
    shop.log_in("s")
    failing = FailingModel(model, 1, UnanswerableError("prompt over the context"))
    text = "kettle, check out to 5 Oak Rd, yes"
    report = new_handler(shop, failing).handle_message(InlineWorkflow(), "m1", "s", "1", text)
    assert [action.outcome for action in report.actions] == ["added", "handed_over"]
    (case,) = shop.rows(Case)
    assert (case.kind, case.note) == (CaseKind.HAND_OVER, text)
    failing.answers = 0
    with pytest.raises(UnanswerableError):
        new_handler(shop, failing).handle_message(InlineWorkflow(), "m2", "s", "2", text)


@pytest.mark.parametrize(
    "message, text, executed",
    [
        ("give me a discount", "the model chose 'cheat', which is not allowed now", 0),
        (
            "is my cart empty?",
            "the model chose 'cheat', which is not allowed now (carried out before: view_cart)",
            1,
        ),
    ],
)
def test_illegal_choice_is_not_executed(
    shop: Shop, model: ScriptedModel, message: str, text: str, executed: int
) -> None:
    """The executor checks legality even if a server ignores the grammar."""
    with pytest.raises(ModelError) as caught:
        new_handler(shop, model).handle_message(InlineWorkflow(), "m1", "s", "1", message)
    assert str(caught.value) == text
    assert len(shop.rows(ExecutedAction)) == executed


def test_task_is_executed_once(shop: Shop, model: ScriptedModel) -> None:
    shop.log_in("s")
    text = "kettle, check out to 5 Oak Rd, yes"
    first = new_handler(shop, model).handle_message(InlineWorkflow(), "m1", "s", "1", text)
    second = new_handler(shop, model).handle_message(InlineWorkflow(), "m1", "s", "1", text)
    assert len(shop.rows(Order)) == 1
    assert first.actions[0] == second.actions[0]


def test_what_a_message_names_once_is_added_once(shop: Shop) -> None:
    """The model took the umbrella for the cable that came after it."""
    text = "1 umbrella and 3 cables"
    first = Choice("add_to_cart", {"product": "umbrella", "quantity": 1})
    again = Choice("add_to_cart", {"product": "umbrella", "quantity": 3})
    report = say(shop, text, first, again, Choice("view_cart"))
    assert [action.action for action in report.actions] == ["add_to_cart", "view_cart"]
    assert [line.quantity for line in shop.rows(CartLine)] == [1]


def test_what_a_message_names_twice_is_added_twice(shop: Shop) -> None:
    first = Choice("add_to_cart", {"product": "umbrella"})
    again = Choice("add_to_cart", {"product": "umbrella", "quantity": 2})
    say(shop, "an umbrella, no wait, 2 umbrella more", first, again)
    assert [line.quantity for line in shop.rows(CartLine)] == [3]


def test_a_counted_product_that_the_model_left_out_is_added(shop: Shop) -> None:
    text = "could you pop a kettle and two lamps in the basket"
    report = say(shop, text, Choice("add_to_cart", {"product": "kettle"}))
    assert [action.outcome for action in report.actions] == ["added", "added"]
    assert {line.sku: line.quantity for line in shop.rows(CartLine)} == {
        "electric-kettle": 1,
        "desk-lamp": 2,
    }


def test_a_counted_product_that_the_model_only_looked_up_is_added(shop: Shop) -> None:
    found = Choice("find_product", {"product": "cotton t-shirts"})
    report = say(shop, "Forgot something! Three cotton t-shirts as well, please.", found)
    assert [action.outcome for action in report.actions] == ["found", "added"]
    assert [line.quantity for line in shop.rows(CartLine)] == [3]


@pytest.mark.parametrize(
    "text",
    [
        "three cotton t-shirts, what would they cost",
        "two cotton t-shirts in stock?",
        "两件纯棉t恤多少钱",
        "looking for a cotton t-shirt",
        "show me two cotton t-shirts",
        "looking for two cotton t-shirts",
        "看看两件t恤",
    ],
)
def test_a_product_that_is_asked_about_is_not_added(shop: Shop, text: str) -> None:
    phrase = "t恤" if "恤" in text else "cotton t-shirt"
    report = say(shop, text, Choice("find_product", {"product": phrase}))
    assert [action.outcome for action in report.actions] == ["found"]
    assert shop.rows(CartLine) == []


def test_a_product_that_is_added_later_is_added_once(shop: Shop) -> None:
    found = Choice("find_product", {"product": "desk lamps"})
    added = Choice("add_to_cart", {"product": "two desk lamps", "quantity": 2})
    say(shop, "i want two desk lamps. view the cart", found, Choice("view_cart"), added)
    assert [line.quantity for line in shop.rows(CartLine)] == [2]


def test_what_was_left_out_is_added_before_the_checkout(shop: Shop) -> None:
    shop.log_in("s")
    text = "电热水壶1个、台灯3个, 结账, 寄海淀区中关村大街1号"
    kettle = Choice("add_to_cart", {"product": "电热水壶", "quantity": 1})
    report = say(shop, text, kettle, Choice("check_out", {"address": "海淀区中关村大街1号"}))
    assert [action.outcome for action in report.actions] == ["added", "added", "summarised"]
    assert "3 × 台灯" in report.replies[-1]


@pytest.mark.parametrize(
    "text",
    [
        "a kettle, do you have two lamps?",
        "a kettle, i have two lamps already",
        "a kettle please, not two lamps",
        "一个电热水壶, 台灯2个上次买过了",
    ],
)
def test_a_counted_product_that_is_not_wished_for_is_left_out(shop: Shop, text: str) -> None:
    product = "电热水壶" if "电" in text else "kettle"
    say(shop, text, Choice("add_to_cart", {"product": product}))
    assert [line.sku for line in shop.rows(CartLine)] == ["electric-kettle"]


def test_no_product_is_added_to_another_wish(shop: Shop) -> None:
    """The lamps are what comes out of the cart."""
    say(shop, "3 lamps", Choice("add_to_cart", {"product": "lamps", "quantity": 3}))
    text = "2 kettles please and 3 lamps out again"
    say(
        shop,
        text,
        Choice("remove_from_cart", {"product": "lamp"}),
        Choice("add_to_cart", {"product": "kettles", "quantity": 2}),
    )
    assert [line.sku for line in shop.rows(CartLine)] == ["electric-kettle"]


@pytest.mark.parametrize(
    "before, text, product",
    [
        ("a kettle", "no not a kettle, a lamp", "lamp"),
        ("the kettle", "i want a lamp instead of the kettle", "lamp"),
        ("电热水壶", "不要电热水壶, 要台灯", "台灯"),
    ],
)
def test_a_product_that_is_taken_back_leaves_the_cart(
    shop: Shop, before: str, text: str, product: str
) -> None:
    say(shop, before, Choice("add_to_cart", {"product": before}))
    say(shop, text, Choice("add_to_cart", {"product": product}))
    assert [line.sku for line in shop.rows(CartLine)] == ["desk-lamp"]


def test_a_product_that_is_only_mentioned_stays_in_the_cart(shop: Shop) -> None:
    say(shop, "a kettle", Choice("add_to_cart", {"product": "kettle"}))
    text = "not only a kettle, a lamp for my kettle corner"
    say(shop, text, Choice("add_to_cart", {"product": "lamp"}))
    assert {line.sku for line in shop.rows(CartLine)} == {"desk-lamp", "electric-kettle"}

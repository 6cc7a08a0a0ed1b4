"""People who handle cases of the shop under test."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sqlalchemy import update
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import Shop
from tests.support.turns import InlineWorkflow, new_handler

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.cases.people import Person
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.shop import Audience, Case, CaseEvent, OutboxMessage

BEN = Person("ben", may_approve=True)
# May approve up to 100.00.
EVA = Person("eva", may_approve=True, up_to=Decimal(100))
# May handle cases, and decide none.
HAL = Person("hal")


def new_desk(shop: Shop) -> Desk:
    return Desk(shop.book, shop.database, shop.clock)


def large_refund(shop: Shop, **arguments: Any) -> str:
    """Claim 267.00, which needs approval; return the case number."""
    shop.log_in("s")
    order = shop.order(delivered_days_ago=1, sku="bluetooth-headphones", quantity=3)
    step = shop.act("s", "request_refund", order=order, reason="defective", **arguments)
    assert step.report.outcome == "needs_approval"
    return shop.rows(Case)[-1].number


def hand_over(shop: Shop, message: str = "a human please") -> str:
    """Hand session `s` over to a person; return the case number."""
    assert shop.act("s", "escalate", message=message).report.outcome == "handed_over"
    return shop.rows(Case)[-1].number


def change(shop: Shop, number: str, **values: Any) -> None:
    """Change the row of a case."""
    with shop.database.transaction() as db:
        db.execute(update(Case).where(Case.id == int(number[2:])).values(**values))


def texts(shop: Shop, audience: Audience = Audience.CUSTOMER) -> list[str]:
    """Return the texts of the messages about cases, in order."""
    return [
        message.text
        for message in sorted(shop.rows(OutboxMessage), key=lambda each: each.id)
        if message.case_id is not None and message.audience is audience
    ]


def changes(shop: Shop) -> list[tuple[str, str]]:
    """Return actor and kind of every change, in order."""
    events = sorted(shop.rows(CaseEvent), key=lambda each: each.id)
    return [(event.actor, event.change) for event in events]


def hear(shop: Shop, text: str, session: str = "s") -> tuple[TurnReport, ScriptedModel]:
    """Handle a message that the agent, if it answers, greets."""
    model = ScriptedModel({text: ["greet"]})
    key = f"h{next(shop.keys)}"
    handler = new_handler(shop, model)
    return handler.handle_message(InlineWorkflow(), key, session, key, text), model


def outcome_of(decide: Callable[[], object]) -> object:
    """Return what a call returns, or the error that it raises."""
    try:
        return decide()
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error

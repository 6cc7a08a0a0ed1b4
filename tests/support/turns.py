"""Turns of the shop under test, without durable workflows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import select
from tests.support.scripted_model import FailingModel, Script, ScriptedModel
from tests.support.shop import CODE, Shop

from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.flows.prompt import Choice, calm
from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.payments.port import InvoicePayments
from gpt2flow.agent.report import Timer, TurnReport
from gpt2flow.agent.shop import Base, ReceivedMessage
from gpt2flow.agent.turns.choices.readings import Readings
from gpt2flow.agent.turns.execution import Event
from gpt2flow.agent.turns.handler import TurnHandler
from gpt2flow.agent.turns.model import RecordingModel

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")
# What Ann does to log in.
LOG_IN = Choice("log_in", {"contact": "ann@example.com"})
VERIFY = Choice("verify", {"code": CODE})
_EVENT = ("assign_courier", "send_delivery_details")


@dataclass
class InlineWorkflow:
    """Workflow that runs steps as plain calls, and records timers and retries."""

    timers: list[Timer] = field(default_factory=list)
    retries: list[tuple[str, Event, int]] = field(default_factory=list)

    def run_step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        return function(*args, **kwargs)

    def sleep(self, seconds: float) -> None:
        """Go on at once."""

    def set_timer(self, timer: Timer) -> None:
        self.timers.append(timer)

    def retry_event(self, session: str, event: Event, attempt: int) -> None:
        self.retries.append((session, event, attempt))


@dataclass
class WorkflowWithoutDatabase(InlineWorkflow):
    """Workflow in which the database fails once.

    Attributes:
        failing: Name of the step that fails.
        after: Number of times that the step succeeds before.
    """

    failing: str = field(kw_only=True)
    after: int = field(default=0, kw_only=True)

    def run_step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        if function.__name__ == self.failing:
            self.after -= 1
            if self.after == -1:
                raise DatabaseError("the connection is lost")
        return function(*args, **kwargs)


def new_handler(
    shop: Shop,
    model: ScriptedModel | FailingModel,
    payer: Payer | None = None,
    *,
    patience: float = 0.0,
) -> TurnHandler:
    recording_model = RecordingModel(model, shop.database, shop.clock)
    if payer is None:
        payer = Payer(InvoicePayments(), shop.database, shop.book.cases, shop.clock)
    return TurnHandler(
        shop.book,
        recording_model,
        Readings(shop.book, shop.database, shop.clock),
        shop.executor,
        payer,
        patience=patience,
    )


def say(
    shop: Shop,
    text: str,
    *choices: Choice | str,
    key: str | None = None,
    payer: Payer | None = None,
    workflow: InlineWorkflow | None = None,
    others: Sequence[Choice] = (),
) -> TurnReport:
    """Handle a message in session `s` with these choices and readings."""
    script: Script = {calm(text): choices, "order_submitted": _EVENT}
    model = ScriptedModel(script, others=others)
    key = key or f"m{next(shop.keys)}"
    handler = new_handler(shop, model, payer)
    return handler.handle_message(workflow or InlineWorkflow(), key, "s", key, text)


def snapshot(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of all tables but received messages, by name."""
    with shop.database.transaction() as db:
        every = Base.metadata.sorted_tables
        tables = [table for table in every if table is not ReceivedMessage.__table__]
        return {table.name: [tuple(row) for row in db.execute(select(table))] for table in tables}


def sign_up(shop: Shop) -> None:
    """Register Ann elsewhere, so that she is a guest in session `s`."""
    shop.log_in("other")


def refund(number: str, **arguments: Any) -> Choice:
    """Return the wish for a refund of an order."""
    return Choice("request_refund", {"order": number, **arguments})

"""Conversations in a database of their own, without durable workflows.

Turns run through the agent's own handler and executor. Only DBOS is absent: a process can
have one durable agent at a time, while an evaluation plays many conversations at once.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import ParamSpec, TypeVar

from gpt2flow.agent.agent import validate_message
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.payments.port import InvoicePayments
from gpt2flow.agent.report import Timer, TurnReport
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.shop.catalogue import Catalogue
from gpt2flow.agent.turns.choices.readings import Readings
from gpt2flow.agent.turns.execution import Event, Executor
from gpt2flow.agent.turns.handler import TurnHandler
from gpt2flow.agent.turns.model import ChoiceModel, RecordingModel

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class DirectWorkflow:
    """Workflow that runs its steps at once."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []

    def run_step(
        self, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
    ) -> _Result:
        """Call the function."""
        return function(*args, **kwargs)

    def sleep(self, seconds: float) -> None:
        """Go on at once."""

    def set_timer(self, timer: Timer) -> None:
        """Keep a timer until its time."""
        self._timers.append(timer)

    def retry_event(self, session: str, event: Event, attempt: int) -> None:
        """Drop the retry: the turn's report says that the event was postponed."""

    def take_due(self, now: datetime) -> list[Timer]:
        """Remove and return the timers whose time has come."""
        due = [timer for timer in self._timers if timer.due <= now]
        self._timers = [timer for timer in self._timers if timer.due > now]
        return due


class Conversation:
    """Agent of one scenario, with a clock that moves on request only.

    Args:
        book: Loaded flows.
        model: Model that chooses the actions.
        database: Open database of the shop.
        start: Time at which the clock starts.
        rng: Source of verification codes.
        confirm_below: Confidence below which the agent asks, from 0 to 1.
    """

    def __init__(
        self,
        book: FlowBook,
        model: ChoiceModel,
        database: Database,
        start: datetime,
        rng: random.Random,
        *,
        confirm_below: float,
    ) -> None:
        self.now = start
        self._workflow = DirectWorkflow()
        self._message_ids = count()

        def clock() -> datetime:
            return self.now

        def new_code() -> str:
            return f"{rng.randrange(10**6):06}"

        self._executor = Executor(book, database, clock, new_code, confirm_below)
        payer = Payer(InvoicePayments(), database, book.cases, clock)
        recording_model = RecordingModel(model, database, clock)
        self._handler = TurnHandler(
            book, recording_model, Readings(book, database, clock), self._executor, payer
        )

    def handle(self, session: str, text: str) -> TurnReport:
        """Handle one customer message.

        Raises:
            InputError: The message is invalid.
            ModelError: The model call failed.
            DatabaseError: The database failed.
        """
        message, message_id = validate_message(session, text), str(next(self._message_ids))
        key, start = f"{session}/{message_id}", perf_counter()
        report = self._handler.handle_message(self._workflow, key, session, message_id, message)
        elapsed = (perf_counter() - start) * 1000
        return report.model_copy(update={"milliseconds": elapsed})

    def forward(self, hours: float) -> None:
        """Move the clock, and make the changes of cases due then."""
        self.now += timedelta(hours=hours)
        for timer in self._workflow.take_due(self.now):
            for later in self._executor.cases.advance(timer.case):
                self._workflow.set_timer(later)


@contextmanager
def new_database(
    directory: Path, name: str, catalogue: Catalogue | None = None
) -> Iterator[Database]:
    """Open a new shop database in a directory until the block ends."""
    path = directory / f"{name}.sqlite"
    database = Database.open(database_url(str(path)), catalogue)
    try:
        yield database
    finally:
        database.close()
        for file in directory.glob(f"{path.name}*"):
            file.unlink()

"""Durable record of work on the screens, written around every press."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gpt2flow.agent.config import Clock
from gpt2flow.agent.hands.port import ScreenOutcome, ScreenTask
from gpt2flow.agent.shop import Database, ScreenWork


@dataclass(frozen=True)
class Progress:
    """How far an action has come.

    Attributes:
        before: What the page that proves it showed before; None if it was not read yet.
        pressed_at: Time of the press that carries it out; None before it.
        outcome: Outcome that the screen showed; None while it is not known.
    """

    before: str | None
    pressed_at: datetime | None
    outcome: ScreenOutcome | None


class Ledger:
    """Record of the actions that are under way.

    Args:
        database: Shop database.
        clock: Source of the current time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def begin(self, task: ScreenTask) -> Progress:
        """Record that an action begins, and return how far it has come."""
        with self._database.translate_errors(), self._database.transaction() as db:
            work = db.get(ScreenWork, task.key)
            if work is None:
                work = ScreenWork(
                    key=task.key,
                    session_id=task.session,
                    task=task.to_json(),
                    created_at=self._clock(),
                )
                db.add(work)
            outcome = None
            if work.outcome is not None:
                outcome = ScreenOutcome(work.outcome, work.fields or {})
            return Progress(work.before, work.pressed_at, outcome)

    def note_before(self, key: str, reading: str) -> None:
        """Record what the page that proves an action shows before it."""
        with self._database.translate_errors(), self._database.transaction() as db:
            db.get_one(ScreenWork, key).before = reading

    def note_press(self, key: str) -> None:
        """Record that the press that carries an action out comes next."""
        with self._database.translate_errors(), self._database.transaction() as db:
            db.get_one(ScreenWork, key).pressed_at = self._clock()

    def note_outcome(self, key: str, name: str, fields: Mapping[str, str | int]) -> ScreenOutcome:
        """Record the outcome of an action."""
        with self._database.translate_errors(), self._database.transaction() as db:
            work = db.get_one(ScreenWork, key)
            work.outcome, work.fields = name, dict(fields)
        return ScreenOutcome(name, fields)

"""Records of work on the screens, before and after each press."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.life import timers
from gpt2flow.agent.config import Clock
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.hands.errors import OvertakenError, UnexpectedPageError
from gpt2flow.agent.hands.port import Hands, ScreenNeededError, ScreenOutcome, ScreenTask
from gpt2flow.agent.operations import Context
from gpt2flow.agent.report import MessageSent
from gpt2flow.agent.shop import (
    Case,
    CustomerSession,
    Database,
    ExecutedAction,
    OutboxMessage,
    ScreenWork,
)


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
        secrets: Names of slots and fields whose values are not stored.
    """

    def __init__(self, database: Database, clock: Clock, secrets: Collection[str]) -> None:
        self._database = database
        self._clock = clock
        self._secrets = secrets

    def begin(self, task: ScreenTask) -> Progress:
        """Record that an action begins, and return how far it has come."""
        with self._database.translate_errors(), self._database.transaction() as db:
            record = db.get(ExecutedAction, task.key)
            if record is not None:
                # Another process has recorded it meanwhile.
                return Progress(None, None, ScreenOutcome(record.outcome or "", {}))
            work = db.get(ScreenWork, task.key)
            if work is None:
                work = ScreenWork(
                    key=task.key,
                    session_id=task.session,
                    task=task.to_json(self._secrets),
                    created_at=self._clock(),
                )
                db.add(work)
            outcome = None
            if work.outcome is not None:
                outcome = ScreenOutcome(work.outcome, work.fields or {})
            return Progress(work.before, work.pressed_at, outcome)

    def note_press(self, task: ScreenTask, before: str, seen: datetime | None) -> None:
        """Record that the press that carries an action out comes next.

        Args:
            task: Action.
            before: What the page that proves it shows now.
            seen: Time of the press that was known of; None of none.

        Raises:
            OvertakenError: Another process has pressed, or recorded the action.
            UnexpectedPageError: A person has taken the conversation.
        """
        with self._database.translate_errors(), self._database.transaction() as db:
            session = db.get_one(CustomerSession, task.session, with_for_update=True)
            if session.attended_by is not None and not task.is_event:
                raise UnexpectedPageError(f"{session.attended_by} has the conversation")
            known = ScreenWork.pressed_at.is_(None) if seen is None else _pressed(seen)
            change = (
                update(ScreenWork)
                .where(ScreenWork.key == task.key, ScreenWork.outcome.is_(None), known)
                .values(pressed_at=self._clock(), before=before)
                .returning(ScreenWork.key)
                .execution_options(synchronize_session=False)
            )
            if db.execute(change).scalar() is None:
                raise OvertakenError(f"another process has pressed for {task.key}")

    def note_outcome(self, key: str, name: str, fields: Mapping[str, str | int]) -> ScreenOutcome:
        """Record the outcome of an action."""
        with self._database.translate_errors(), self._database.transaction() as db:
            work = db.get(ScreenWork, key)
            if work is not None:
                work.outcome, work.fields = name, dict(fields)
        return ScreenOutcome(name, fields)


def _pressed(seen: datetime) -> ColumnElement[bool]:
    return ScreenWork.pressed_at == seen


def send_to_screens(
    hands: Hands,
    context: Context,
    used: Arguments,
    outcome: str,
    fields: Mapping[str, str | int],
    *,
    wish: str | None,
    is_detour: bool,
    is_event: bool,
) -> None:
    """End the transaction if an action is for the screens.

    Its operation was run to learn what is meant, and is undone with the transaction. An outcome
    that the screens do not show, such as an unknown product, is the database's.

    Args:
        hands: Hands that work on the screens.
        context: Context of the action.
        used: Arguments that the operation ran with.
        outcome: Name of its outcome.
        fields: Fields of the outcome's message.
        wish: Wish in whose place the action is taken.
        is_detour: Whether the action is on the way to a wish that is resumed later.
        is_event: Whether an event asks for it, and no message.

    Raises:
        ScreenNeededError: The action is for the screens.
    """
    choice = context.choice
    if outcome not in hands.outcomes(choice.action, context.language):
        return
    raise ScreenNeededError(
        ScreenTask(
            key=context.key,
            session=context.session.id,
            customer=context.customer.id if context.customer else None,
            language=context.language,
            message=context.message,
            action=choice.action,
            arguments=choice.arguments,
            confidence=choice.confidence,
            wish=wish,
            is_detour=is_detour,
            used=used,
            outcome=outcome,
            is_success=context.flow.actions[choice.action].outcomes[outcome].result == "ok",
            fields=fields,
            is_event=is_event,
            is_sent=context.recipient is not None,
            last_message=context.db.scalar(select(func.max(OutboxMessage.id))) or 0,
        )
    )


def finished_work(db: Session, key: str, message: str, given: Arguments) -> ScreenWork | None:
    """Return the work of an action that the screens have carried out.

    What was not pressed yet is planned anew: a person, or the customer, may have acted since.

    Args:
        db: Session on the shop.
        key: Idempotency key of the action.
        message: Message of the customer, or subject of the event.
        given: Arguments of the request.

    Raises:
        ScreenNeededError: It was pressed, and its outcome is not known.
    """
    work = db.get(ScreenWork, key)
    if work is None or work.outcome is not None:
        return work
    if work.pressed_at is not None:
        raise ScreenNeededError(ScreenTask.from_json(work.task, message, given))
    db.delete(work)
    db.flush()
    return None


def sent_by_shop(context: Context, task: ScreenTask) -> list[MessageSent]:
    """Return the messages to contacts that the shop has sent."""
    query = select(OutboxMessage).where(
        OutboxMessage.id > task.last_message,
        OutboxMessage.session_id == context.session.id,
        OutboxMessage.contact.is_not(None),
    )
    return [
        MessageSent(to=each.contact, language=each.language, text=each.text)
        for each in context.db.scalars(query.order_by(OutboxMessage.id))
    ]


def add_timers(context: Context) -> None:
    """Set the timers of cases that the shop may have opened."""
    is_theirs = Case.session_id == context.session.id
    cases = context.db.scalars(select(Case).where(is_theirs, Case.attention_at.is_not(None)))
    context.timers += [timer for case in cases for timer in timers(case)]

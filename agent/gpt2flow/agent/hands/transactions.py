"""Transactions before and after work on the screens."""

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.life import timers
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.hands.port import Hands, ScreenNeededError, ScreenTask
from gpt2flow.agent.operations import Context
from gpt2flow.agent.report import MessageSent
from gpt2flow.agent.shop import Case, OutboxMessage, ScreenWork


def send_to_screens(
    hands: Hands,
    context: Context,
    used: Arguments,
    outcome: str,
    fields: Mapping[str, str | int],
    *,
    wish: str | None,
    is_detour: bool,
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
            is_sent=context.recipient is not None,
            last_message=context.db.scalar(select(func.max(OutboxMessage.id))) or 0,
        )
    )


def finished_work(db: Session, key: str) -> ScreenWork | None:
    """Return the work of an action that the screens have carried out.

    Raises:
        ScreenNeededError: It has begun, and is not finished.
    """
    work = db.get(ScreenWork, key)
    if work is not None and work.outcome is None:
        raise ScreenNeededError(ScreenTask.from_json(work.task))
    return work


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

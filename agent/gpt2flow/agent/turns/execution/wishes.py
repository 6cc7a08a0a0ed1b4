"""Wishes that are not legal yet, and a session's latest actions."""

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.book import holds
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, Choice
from gpt2flow.agent.flows.slots import SlotKind, candidates, named_orders
from gpt2flow.agent.report import ActionReport, Wanted
from gpt2flow.agent.shop import CustomerSession
from gpt2flow.agent.turns.execution.task import ADD_TO_CART, AFFIRM, CLARIFY, DENY, SMALL_TALK, Task

_MAX_WANTED = 8
# A message that says yes, and nothing else but politeness.
_YES_WORDS = (
    "yes|yep|yeah|yup|sure|okay|ok|please do|go ahead|of course|alright|why not"
    "|好的?|可以|行|要的?|嗯+|是的?|对的?|没问题|当然"
)
_POLITE_WORDS = "please|thanks|thank you|谢谢|麻烦了?|吧|呀|啊|呢|哦"
_YES = re.compile(
    rf"(?=.*(?:{_YES_WORDS}))(?:(?:{_YES_WORDS}|{_POLITE_WORDS})[ ,.!，。！]*)+", re.IGNORECASE
)

SUMMARY: Final = "confirming"
"""Fact that a summary waits for a yes, which is a question like others."""

# Actions kept with their arguments: those in the prompt, and a few more to complete a wish from.
_MAX_PAST = 6


def fallback_arguments(book: FlowBook, action: str, wish: Choice, message: str) -> Arguments:
    """Return the arguments of a fallback from wish and message.

    A contact counts if it is the only one in the message.
    """
    arguments: Arguments = {}
    for name in book.actions[action].slots:
        if name in wish.arguments:
            arguments[name] = wish.arguments[name]
        elif book.slots[name].kind is SlotKind.CONTACT:
            found = candidates(SlotKind.CONTACT, message)
            if len(found) == 1:
                arguments[name] = found[0]
    return arguments


def is_superfluous(book: FlowBook, fallback: str, taken: Collection[str]) -> bool:
    """Return whether a message needs the fallback of a wish no more.

    Args:
        book: Loaded flows.
        fallback: Action that takes the place of a wish.
        taken: Actions that the message has led to so far.
    """
    is_small_talk = book.flow_of[fallback] is book.flow_of.get(CLARIFY)
    return fallback in taken or (bool(taken) and is_small_talk)


def kept_wishes(session: CustomerSession) -> list[Wanted]:
    """Return the wishes that a session still has, oldest first."""
    return [Wanted.model_validate(each) for each in session.wanted]


def resumable_wishes(
    book: FlowBook, session: CustomerSession, facts: Collection[str]
) -> list[Wanted]:
    """Return the session's wishes that are legal now, oldest first.

    An open question comes first, so that there are none during it.
    """
    if session.awaiting_slot is not None:
        return []
    return [wish for wish in kept_wishes(session) if holds(book.actions[wish.action].when, facts)]


def keep_wish(session: CustomerSession, task: Task) -> None:
    """Keep a wish until it can be carried out."""
    wanted = Wanted(
        action=task.choice.action,
        arguments=task.choice.arguments,
        message=task.message,
        confidence=task.choice.confidence,
    )
    drop_wish(session, task.choice)
    session.wanted = [*session.wanted, wanted.model_dump(mode="json")][-_MAX_WANTED:]


def drop_wish(session: CustomerSession, choice: Choice) -> bool:
    """Drop the kept wish that a choice is, if there is one.

    Returns:
        Whether there was one.
    """
    before = len(session.wanted)
    session.wanted = [
        wanted
        for wanted in session.wanted
        if (wanted["action"], wanted["arguments"]) != (choice.action, choice.arguments)
    ]
    return len(session.wanted) < before


def has_asked(book: FlowBook, session: CustomerSession, task: Task) -> bool:
    """Return whether a question of the message is still open.

    A kept wish is resumed when none is.
    """
    if task.is_first or task.event is not None or task.resumed is not None:
        return False
    if session.awaiting_slot is not None:
        return True
    spec = book.actions[task.choice.action]
    is_about_summary = SUMMARY in (*spec.when, *spec.effects.add)
    summarised = any(SUMMARY in book.actions[each].effects.add for each in task.taken)
    return summarised and not is_about_summary


def close_answered(session: CustomerSession, action: str, used: Arguments) -> None:
    """Close the open question for a value that an action has now."""
    slot = session.awaiting_slot
    if session.awaiting_action == action and slot != CONFIRMATION and slot in used:
        session.awaiting_action = session.awaiting_slot = session.awaiting_arguments = None


def read_slots(book: FlowBook, task: Task) -> set[str]:
    """Return the slots of which the message alone has a value."""
    text = task.message
    for value in task.choice.arguments.values():
        text = text.replace(str(value), " ")
    slots = book.actions[task.choice.action].slots
    orders = {slot for slot in slots if book.slots[slot].kind is SlotKind.ORDER}
    return orders if named_orders(text) else set()


def postpone(session: CustomerSession, task: Task) -> ActionReport:
    """Keep a wish until the open question is answered."""
    if not task.is_detour:  # Its wish is kept already.
        keep_wish(session, task)
    return ActionReport(
        action=task.choice.action, arguments=task.choice.arguments, used={}, result="blocked"
    )


def remember_action(session: CustomerSession, report: ActionReport) -> None:
    """Append an action to the session's latest ones."""
    result = "blocked" if report.wish is not None else report.result
    entry = {
        "action": report.wish or report.action,
        "result": result,
        "arguments": dict(report.used),
        "ended": [report.action, report.outcome],
    }
    session.past = [*session.past, entry][-_MAX_PAST:]


def added_products(session: CustomerSession) -> list[str]:
    """Return the products that the latest actions added, as named."""
    added = (e for e in session.past if e["action"] == ADD_TO_CART and e["result"] == "ok")
    return [str(entry["arguments"]["product"]) for entry in added]


def offered_wish(book: FlowBook, session: CustomerSession) -> Choice | None:
    """Return the action that the latest message offered, with its values."""
    ended = session.past[-1].get("ended") if session.past else None
    if ended is None or ended[1] is None:
        return None
    offer = book.actions[ended[0]].outcomes[ended[1]].offers
    if offer is None:
        return None
    slots = book.actions[offer].slots
    given = session.past[-1]["arguments"].items()
    return Choice(offer, {slot: value for slot, value in given if slot in slots})


def accept_offer(book: FlowBook, session: CustomerSession, task: Task) -> Task:
    """Return the task of a message, with what an offer adds.

    A plain yes to it is what was offered.
    """
    offer = offered_wish(book, session)
    if offer is None or not task.is_first or task.event is not None or task.resumed is not None:
        return task
    if task.choice.action == offer.action:
        return replace(task, pending_arguments=offer.arguments | task.pending_arguments)
    return replace(task, choice=offer) if _YES.fullmatch(task.message.strip()) else task


def is_said_again(session: CustomerSession, task: Task) -> bool:
    """Return whether a repeated message's choice was carried out before.

    Who denies what the agent asked about may say the whole message again.
    """
    said = session.awaiting_message
    if not said or said not in task.message or task.event is not None or task.resumed is not None:
        return False
    choice = task.choice
    if task.answers is not None or choice.action in (AFFIRM, DENY):
        return False
    return any(
        entry["action"] == choice.action
        and entry["result"] == "ok"
        and choice.arguments.items() <= entry["arguments"].items()
        for entry in session.past
    )


def proposed_wish(session: CustomerSession) -> Wanted | None:
    """Return the wish that an open "did you mean …?" is about."""
    if session.awaiting_slot != CONFIRMATION or session.awaiting_action is None:
        return None
    return Wanted(
        action=session.awaiting_action,
        arguments=session.awaiting_arguments or {},
        message=session.awaiting_message or "",
    )


def update_session(session: CustomerSession, task: Task) -> None:
    """Store the message's language, and reset state that an understood message ends."""
    session.language = task.language
    if task.choice.action == CLARIFY:
        return
    session.clarifications = 0
    # The rest of the message that led to the doubt does not end it, and a greeting neither.
    if task.is_first and task.choice.action not in (session.doubted, DENY, *SMALL_TALK):
        session.doubted = None
    if task.is_first and task.choice.action not in SMALL_TALK:
        session.awaiting_action = None
        session.awaiting_slot = None
        session.awaiting_arguments = None

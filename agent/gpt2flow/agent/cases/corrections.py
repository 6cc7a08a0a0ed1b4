"""Corrections of the model by people, as turns to train on."""

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import admits
from gpt2flow.agent.flows.prompt import DONE, END, Choice, extend_prompt
from gpt2flow.agent.shop import Case, CaseEvent, ModelCall

_EXAMPLE = '{"action":"track_order","order":"SO-1042"}'


def check_correction(book: FlowBook, case: Case, text: str) -> dict[str, Any]:
    """Validate the action that the model should have chosen.

    Args:
        book: Loaded flows.
        case: Case whose message the model misread.
        text: Action with its arguments, as the model writes one.

    Returns:
        The details of the change that closes the case.

    Raises:
        InputError: The model chose nothing for this case, or the text is no action that its
            message can mean.
    """
    call = (case.proposal or {}).get("call")
    if call is None or case.note is None:
        raise InputError(f"case {case.number} has no answer of the model to correct")
    try:
        choice = Choice.parse(text)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise InputError(f"correct is {text!r:.80}, must be an action such as {_EXAMPLE}") from None
    spec = book.actions.get(choice.action)
    if spec is None or spec.event is not None:
        raise InputError(f"action is {choice.action!r}, must be one of {', '.join(book.wishes)}")
    for slot in choice.arguments:
        if slot not in spec.slots:
            allowed = ", ".join(spec.slots) or "none"
            raise InputError(f"{choice.action} has no argument {slot!r}; allowed: {allowed}")
    if not admits(book, choice, case.note):
        raise InputError(f"the message {case.note!r:.80} does not have the values of {choice.text}")
    return {"correct": choice.text, "call": call}


def export_corrections(db: Session) -> Iterator[str]:
    """Return the corrected turns as training documents, the oldest first.

    A turn whose model call was erased is left out.

    Args:
        db: Session on the shop.
    """
    query = select(CaseEvent).where(CaseEvent.change == "closed").order_by(CaseEvent.id)
    for event in db.scalars(query):
        details = event.details or {}
        if "correct" not in details:
            continue
        call = db.get(ModelCall, details["call"])
        if call is not None:
            turn = extend_prompt(call.prompt, Choice.parse(details["correct"]), "ok")
            yield turn + Choice(DONE).text + END

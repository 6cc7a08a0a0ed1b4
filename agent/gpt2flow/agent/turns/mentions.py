"""Mentions in a message: used once, left out, or taken back."""

from collections.abc import Iterable, Sequence

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Choice
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.agent.report import Step
from gpt2flow.agent.shop.matching import split_words
from gpt2flow.agent.turns.execution.task import (
    ADD_TO_CART,
    AFFIRM,
    DENY,
    FIND_PRODUCT,
    SMALL_TALK,
)

# Actions beside which a message is a shopping list: a number elsewhere may be of something else.
_SHOPPING = (
    *(ADD_TO_CART, FIND_PRODUCT, "view_cart", "answer_question"),
    *("log_in", "register", "verify", AFFIRM, DENY, *SMALL_TALK),
)
_DONE = ("ok", "refused")


def repeated_step(
    book: FlowBook, done: Iterable[Step], choice: Choice, message: str
) -> Step | None:
    """Return the action that a choice repeats.

    That is a resumed wish or a fallback, or one for which the customer's words have been used
    already: what a message says once, it wants once.

    Args:
        book: Loaded flows.
        done: Steps of the message so far.
        choice: Choice of the model.
        message: Normalized message.
    """
    spans = [
        (slot, value)
        for slot, value in choice.arguments.items()
        if book.slots[slot].kind is SlotKind.SPAN
        and message.casefold().count(str(value).casefold()) == 1
    ]
    for step in done:
        report = step.report
        if report.action != choice.action:
            continue
        repeats = choice.arguments.items() <= report.used.items()
        if repeats and (report.resumed or report.wish is not None):
            return step
        if any(report.arguments.get(slot) == value for slot, value in spans):
            return step
    return None


def left_out_products(done: Sequence[Step]) -> list[Choice]:
    """Return the choices that a message still lacks, in its order.

    Only a message that the model has added a product for is read. What it takes back is removed.

    Args:
        done: Steps of the message so far.
    """
    added = _of_a_list(done, ADD_TO_CART)
    if not any(step.result in _DONE for step in added):
        return []
    taken_back = next((step.taken_back for step in added if step.taken_back), [])
    return [
        *(Choice("remove_from_cart", {"product": each}) for each in taken_back),
        *_additions(added, done),
    ]


def looked_up_products(done: Sequence[Step]) -> list[Choice]:
    """Return additions of what a message orders and the model looked up.

    Args:
        done: All steps of the message.
    """
    if any(step.report.action == ADD_TO_CART for step in done):
        return []
    return _additions(_of_a_list(done, FIND_PRODUCT), ())


def _of_a_list(done: Sequence[Step], action: str) -> list[Step]:
    """Return the steps of an action in a shopping list."""
    is_list = all(step.report.action in _SHOPPING for step in done)
    return [step for step in done if is_list and step.report.action == action]


def _additions(read: Iterable[Step], done: Iterable[Step]) -> list[Choice]:
    """Return additions of the products that steps read and lack."""
    counted = next((step.counted for step in read if step.counted), [])
    return [
        Choice(ADD_TO_CART, {"product": each.phrase, "quantity": each.quantity})
        for each in counted
        if not _is_named(each.phrase, done)
    ]


def _is_named(phrase: str, done: Iterable[Step]) -> bool:
    words = set(split_words(phrase))
    named = (step.report.arguments.get("product") for step in done)
    names = [set(split_words(str(each))) for each in named if each]
    return any(words <= name or name <= words for name in names)

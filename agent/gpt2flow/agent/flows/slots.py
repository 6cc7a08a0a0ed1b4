"""Extraction of candidate slot values from a message.

The grammar restricts the model to these candidates. The model can misread a
message, but it cannot invent an e-mail address or an order number.
"""

import re
from collections.abc import Callable
from enum import StrEnum

from gpt2flow.agent.flows.numbers import (
    CHINESE_COUNTS,
    CHINESE_TENS,
    QUANTITY_WORDS,
    parse_chinese_number,
)

LAST_ORDER = "last"
_CODE_LENGTH = 6


class SlotKind(StrEnum):
    """Kind of slot value."""

    SPAN = "span"
    CONTACT = "contact"
    CODE = "code"
    INTEGER = "integer"
    ORDER = "order"
    ENUM = "enum"


_EMAIL = re.compile(r"[a-z0-9][a-z0-9._%+-]*@[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)+", re.IGNORECASE)
_PHONE = re.compile(r"(?<![\d@.])\+?\d(?:[ .-]?\d){6,14}(?!\d)")
_CODE = re.compile(r"(?<!\d)(\d{3})[ -]?(\d{3})(?!\d)")
# Four to six digits, or fewer after a word that marks an order number.
_ORDER = re.compile(
    r"(?:(?:\bso ?-?|#|\border (?:no\.? ?|number )?|订单号?[是:]? ?) ?|(?<!\d)(?=\d{4}))"
    r"(\d{1,6})(?!\d)",
    re.IGNORECASE,
)
# A number of things: no price, discount, size or age.
_INTEGER = re.compile(
    r"(?<!\d)(?<!\d[.,:-])(?<![a-z]-)(?<![$£€¥#])(\d{1,5})(?![\d:])(?![.,]\d)"
    r"(?!\s?(?:%|percent\b|quid\b|pounds?\b|euros?\b|dollars?\b|rupees?\b|bucks\b|years?\b"
    r"|元|块钱|折|码|岁|(?:st|nd|rd|th)\b))",
    re.IGNORECASE,
)

# A value that is not meant, with what marks it as a number or a contact.
_VALUE = (
    r"(?:(?:the|an?|order|number|no\.?|nr\.?|订单号?|尾号) ?)*"
    r"(?:so ?-?|#)?[a-z0-9_.%+-]*[\d@][a-z0-9_.@-]*"
)
_NEGATED = re.compile(
    r"(?:(?<!why )(?<!if )(?<!but )\bnot |\bneither |\binstead of |\brather than "
    rf"|(?<!是)不是|(?<!要)不要)({_VALUE}(?: n?or {_VALUE}){{0,3}})",
    re.IGNORECASE,
)
_LATEST = re.compile(
    r"\b(?:last|latest|newest|recent)\b|最近|上一|上次|最后|最新|刚", re.IGNORECASE
)
_ENGLISH_NUMBER = re.compile(
    r"\b(" + "|".join(sorted(QUANTITY_WORDS, key=len, reverse=True)) + r")\b", re.IGNORECASE
)
_CHINESE_NUMBER = re.compile(rf"半打|一打|{CHINESE_TENS}|[{CHINESE_COUNTS}]")


def _find_contacts(text: str) -> list[str]:
    emails = [m.group().lower() for m in _EMAIL.finditer(text)]
    phones = [re.sub(r"[^\d+]", "", m.group()) for m in _PHONE.finditer(_EMAIL.sub(" ", text))]
    return emails + phones


def strip_contacts(text: str) -> str:
    """Return a text without e-mail addresses and phone numbers."""
    return _PHONE.sub(" ", _EMAIL.sub(" ", text)).strip(" ,;:|/()<>-，；、")


def _find_codes(text: str) -> list[str]:
    return [m.group(1) + m.group(2) for m in _CODE.finditer(text)]


def _find_orders(text: str) -> list[str]:
    return [f"SO-{m.group(1)}" for m in _ORDER.finditer(text)] + [LAST_ORDER]


def named_orders(text: str) -> list[str]:
    """Return the orders that a message names, without phone numbers and codes.

    Six digits count after a word such as "order" only.
    """
    text = _PHONE.sub(" ", _EMAIL.sub(" ", text))
    found = [
        m
        for m in _ORDER.finditer(text)
        if len(m.group(1)) < _CODE_LENGTH or m.group(0) != m.group(1)
    ]
    return list(dict.fromkeys(f"SO-{m.group(1)}" for m in found))


def _find_integers(text: str) -> list[str]:
    text = _EMAIL.sub(" ", text)
    found = [int(m.group(1)) for m in _INTEGER.finditer(text)]
    found += [QUANTITY_WORDS[m.group().lower()] for m in _ENGLISH_NUMBER.finditer(text)]
    found += [parse_chinese_number(m.group()) for m in _CHINESE_NUMBER.finditer(text)]
    return [str(n) for n in found]


_FINDERS: dict[SlotKind, Callable[[str], list[str]]] = {
    SlotKind.CONTACT: _find_contacts,
    SlotKind.CODE: _find_codes,
    SlotKind.ORDER: _find_orders,
    SlotKind.INTEGER: _find_integers,
}


def candidates(kind: SlotKind, message: str) -> list[str]:
    """Return the distinct candidate values for a slot of `kind` in `message`.

    Args:
        kind: Kind of the slot, except `SPAN` and `ENUM`, which are not extracted.
        message: Normalized message.

    Returns:
        Values in canonical form. E-mail addresses are in lower case, phone
        numbers are digits, and order numbers look like `SO-1042`. `last` stands
        for the most recent order. A value that the message negates, as in "not 1042 but
        1043", is none if there is another one, and then `last` is none either unless the
        message says so.
    """
    found = list(dict.fromkeys(_FINDERS[kind](message)))
    if kind is SlotKind.CODE:
        return found
    unmeant = negated(kind, message)
    if unmeant and not _LATEST.search(message):
        unmeant.add(LAST_ORDER)
    return [value for value in found if value not in unmeant] or found


def negated(kind: SlotKind, message: str) -> set[str]:
    """Return what a message negates, as 1042 in "not 1042, 1043"."""
    return {
        value
        for part in _NEGATED.finditer(message)
        for value in _FINDERS[kind](part.group(1))
        # What is named again afterwards is meant after all.
        if value != LAST_ORDER and value not in _FINDERS[kind](message[part.end() :])
    }

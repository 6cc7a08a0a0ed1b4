"""Extraction of candidate slot values from a message.

The grammar restricts the model to these candidates. The model can misread a
message, but it cannot invent an e-mail address or an order number.
"""

import re
from collections.abc import Callable
from enum import StrEnum

LAST_ORDER = "last"


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
_INTEGER = re.compile(r"(?<![\d.,:-])(\d{1,3})(?![\d:])(?![.,]\d)")

_ENGLISH_NUMBERS = {
    "half a dozen": 6,
    "a couple": 2,
    "a dozen": 12,
    "a pair": 2,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "fifteen": 15,
    "twenty": 20,
    "couple": 2,
    "dozen": 12,
    "pair": 2,
}
_ENGLISH_NUMBER = re.compile(
    r"\b(" + "|".join(sorted(_ENGLISH_NUMBERS, key=len, reverse=True)) + r")\b", re.IGNORECASE
)
_CHINESE_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2, "俩": 2, "仨": 3}
_CHINESE_NUMBER = re.compile(
    r"半打|一打|[一二三四五六七八九]?十[一二三四五六七八九]?|[一二三四五六七八九两俩仨]"
)


def _find_contacts(text: str) -> list[str]:
    emails = [m.group().lower() for m in _EMAIL.finditer(text)]
    phones = [re.sub(r"[^\d+]", "", m.group()) for m in _PHONE.finditer(_EMAIL.sub(" ", text))]
    return emails + phones


def _find_codes(text: str) -> list[str]:
    return [m.group(1) + m.group(2) for m in _CODE.finditer(text)]


def _find_orders(text: str) -> list[str]:
    return [f"SO-{m.group(1)}" for m in _ORDER.finditer(text)] + [LAST_ORDER]


def _parse_chinese_number(text: str) -> int:
    if text in ("半打", "一打"):
        return 6 if text == "半打" else 12
    if "十" in text:
        tens, ones = text.split("十")
        return (_CHINESE_DIGITS[tens] if tens else 1) * 10 + (_CHINESE_DIGITS[ones] if ones else 0)
    return _CHINESE_DIGITS[text]


def _find_integers(text: str) -> list[str]:
    found = [int(m.group(1)) for m in _INTEGER.finditer(text)]
    found += [_ENGLISH_NUMBERS[m.group().lower()] for m in _ENGLISH_NUMBER.finditer(text)]
    found += [_parse_chinese_number(m.group()) for m in _CHINESE_NUMBER.finditer(text)]
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
        message: Normalised message.

    Returns:
        Values in canonical form. E-mail addresses are in lower case, phone
        numbers are digits, and order numbers look like `SO-1042`. `last` stands
        for the most recent order and is always a candidate.
    """
    return list(dict.fromkeys(_FINDERS[kind](message)))

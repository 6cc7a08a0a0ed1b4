"""Values of typed slots that a message offers.

The model may only choose among them: it can misunderstand a message, but it
cannot make up an e-mail address or an order number.
"""

import re
from collections.abc import Callable
from enum import StrEnum

LAST_ORDER = "last"


class SlotKind(StrEnum):
    """How the value of a slot is found in a message."""

    SPAN = "span"
    CONTACT = "contact"
    CODE = "code"
    INTEGER = "integer"
    ORDER = "order"
    ENUM = "enum"


_EMAIL = re.compile(r"[a-z0-9][a-z0-9._%+-]*@[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)+", re.IGNORECASE)
_PHONE = re.compile(r"(?<![\d@.])\+?\d(?:[ .-]?\d){6,14}(?!\d)")
_CODE = re.compile(r"(?<!\d)(\d{3})[ -]?(\d{3})(?!\d)")
# Four to six digits, or fewer after a word that says what they are.
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


def _contacts(text: str) -> list[str]:
    emails = [m.group().lower() for m in _EMAIL.finditer(text)]
    phones = [re.sub(r"[^\d+]", "", m.group()) for m in _PHONE.finditer(_EMAIL.sub(" ", text))]
    return emails + phones


def _codes(text: str) -> list[str]:
    return [m.group(1) + m.group(2) for m in _CODE.finditer(text)]


def _orders(text: str) -> list[str]:
    return [f"SO-{m.group(1)}" for m in _ORDER.finditer(text)] + [LAST_ORDER]


def _chinese_number(text: str) -> int:
    if text in ("半打", "一打"):
        return 6 if text == "半打" else 12
    if "十" in text:
        tens, ones = text.split("十")
        return (_CHINESE_DIGITS[tens] if tens else 1) * 10 + (_CHINESE_DIGITS[ones] if ones else 0)
    return _CHINESE_DIGITS[text]


def _integers(text: str) -> list[str]:
    found = [int(m.group(1)) for m in _INTEGER.finditer(text)]
    found += [_ENGLISH_NUMBERS[m.group().lower()] for m in _ENGLISH_NUMBER.finditer(text)]
    found += [_chinese_number(m.group()) for m in _CHINESE_NUMBER.finditer(text)]
    return [str(n) for n in found]


_FINDERS: dict[SlotKind, Callable[[str], list[str]]] = {
    SlotKind.CONTACT: _contacts,
    SlotKind.CODE: _codes,
    SlotKind.ORDER: _orders,
    SlotKind.INTEGER: _integers,
}


def candidates(kind: SlotKind, message: str) -> list[str]:
    """Return the values that `message` offers a slot of `kind`, without repeats.

    Args:
        kind: any kind but `SPAN` and `ENUM`, whose values no finder lists.
        message: the normalised message.

    Returns:
        The values in their one written form: e-mail addresses in lower case,
        phone numbers as digits, order numbers as `SO-1042`, or `last` for the
        most recent order, which a message can name in words.
    """
    return list(dict.fromkeys(_FINDERS[kind](message)))

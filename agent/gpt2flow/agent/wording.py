"""Formatting of amounts, dates, lists and statuses for customers."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from gpt2flow.agent.shop import CaseKind, OrderStatus

Language = Literal["en", "zh"]

_STATUS: dict[OrderStatus, dict[Language, str]] = {
    OrderStatus.SUBMITTED: {"en": "being prepared", "zh": "正在备货"},
    OrderStatus.ASSIGNED: {"en": "waiting for the courier", "zh": "等待揽收"},
    OrderStatus.ON_ITS_WAY: {"en": "on its way", "zh": "正在配送"},
    OrderStatus.DELIVERED: {"en": "delivered", "zh": "已签收"},
    OrderStatus.CANCELLED: {"en": "cancelled", "zh": "已取消"},
}
_CLAIM: dict[CaseKind, dict[Language, str]] = {
    CaseKind.REFUND: {"en": "refund", "zh": "退款"},
    CaseKind.RETURN: {"en": "return", "zh": "退货"},
    CaseKind.EXCHANGE: {"en": "exchange", "zh": "换货"},
}
_CASE: dict[CaseKind, dict[Language, str]] = _CLAIM | {
    CaseKind.FOLLOW_UP: {"en": "call", "zh": "回访"},
    CaseKind.HAND_OVER: {"en": "conversation", "zh": "转人工"},
    CaseKind.DELIVERY_REPORT: {"en": "delivery report", "zh": "签收异常"},
    CaseKind.NO_COURIER: {"en": "no courier", "zh": "无可用快递"},
    CaseKind.FAILURE: {"en": "failure", "zh": "处理失败"},
}
_APPROVAL: dict[Language, str] = {
    "en": " A colleague has to approve it; you will hear from us.",
    "zh": "需要人工审核, 结果会通知您。",
}
_NONE: dict[Language, str] = {"en": "none", "zh": "无"}
_WEEKDAYS: dict[Language, Sequence[str]] = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def format_money(amount: Decimal) -> str:
    """Format an amount with two decimals."""
    return f"{amount:.2f}"


def format_date(value: date, language: Language) -> str:
    """Format a date with its weekday, independently of the system locale."""
    weekday = _WEEKDAYS[language][value.weekday()]
    if language == "zh":
        return f"{value.year}年{value.month}月{value.day}日{weekday}"
    return f"{weekday} {value.day} {_MONTHS[value.month - 1]} {value.year}"


def format_datetime(value: datetime, language: Language) -> str:
    """Format a date with its weekday and the time of day."""
    separator = " " if language == "zh" else ", "
    return f"{format_date(value.date(), language)}{separator}{value:%H:%M}"


def join_items(items: Iterable[str], language: Language) -> str:
    """Join items with commas, or return the word for none."""
    return ("、" if language == "zh" else ", ").join(items) or _NONE[language]


def format_line(quantity: int, name: str, price: Decimal) -> str:
    """Format one line of a cart or an order."""
    return f"{quantity} × {name} ({format_money(price * quantity)})"


def status_name(status: OrderStatus, language: Language) -> str:
    """Return the name of an order status."""
    return _STATUS[status][language]


def claim_name(kind: CaseKind, language: Language) -> str:
    """Return the name of a kind of claim."""
    return _CLAIM[kind][language]


def case_name(kind: CaseKind, language: Language) -> str:
    """Return the name of a kind of case."""
    return _CASE[kind][language]


def with_article(word: str, language: Language) -> str:
    """Return an English word with its indefinite article."""
    if language == "zh":
        return word
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def approval_part(language: Language, *, needed: bool) -> str:
    """Return the sentence about a person's approval, empty if none is needed."""
    return _APPROVAL[language] if needed else ""


def availability(stock: int, language: Language) -> str:
    """Return the phrase for a stock that is too small."""
    if stock == 0:
        return "暂时缺货" if language == "zh" else "out of stock at the moment"
    if language == "zh":
        return f"只剩 {stock} 件"
    return "only one is left" if stock == 1 else f"only {stock} are left"

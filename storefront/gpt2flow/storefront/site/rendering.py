"""Templates of the pages, and how they show what the shop has."""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from babel.dates import format_date, format_datetime
from babel.numbers import format_decimal
from jinja2 import Environment
from markupsafe import Markup

from gpt2flow.agent.shop import CaseKind
from gpt2flow.agent.wording import Language, case_name
from gpt2flow.web.website.rendering import LOCALES, new_templates

# As the agent writes them, so that a page and a message say the same.
_DAY: Final[dict[Language, str]] = {"en": "EEEE d MMMM y", "zh": "y年M月d日EEEE"}
_DAY_AND_TIME: Final[dict[Language, str]] = {
    "en": "EEEE d MMMM y, HH:mm",
    "zh": "y年M月d日EEEE HH:mm",
}


def storefront_templates() -> Environment:
    """Return the templates of the storefront."""
    filters: dict[str, Callable[..., Any]] = {
        "case_kind": case_kind,
        "clock_time": clock_time,
        "day": day,
        "day_and_time": day_and_time,
        "money": money,
    }
    return new_templates("gpt2flow.storefront", filters)


def money(value: Decimal, language: Language) -> str:
    """Return an amount in the shop's currency, in a language's form."""
    return format_decimal(value, "0.00", locale=LOCALES[language])


def day(value: date, language: Language) -> Markup:
    """Return a date with its weekday as an element."""
    shown = format_date(value, _DAY[language], locale=LOCALES[language])
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), shown)


def day_and_time(time: datetime, language: Language) -> Markup:
    """Return a time with its weekday as an element."""
    shown = format_datetime(time, _DAY_AND_TIME[language], locale=LOCALES[language])
    return Markup('<time datetime="{}">{}</time>').format(time.isoformat(), shown)


def clock_time(time: datetime, language: Language) -> Markup:
    """Return the time of day, with seconds, as an element."""
    shown = format_datetime(time, "HH:mm:ss", locale=LOCALES[language])
    return Markup('<time datetime="{}">{} UTC</time>').format(time.isoformat(), shown)


def case_kind(kind: CaseKind, language: Language) -> str:
    """Return the name of a kind of case, as a title."""
    name = case_name(kind, language)
    return name[:1].upper() + name[1:]

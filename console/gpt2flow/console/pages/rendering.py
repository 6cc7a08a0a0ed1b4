"""Templates of the pages, and how they show values."""

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_decimal
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gpt2flow.agent.shop import CaseKind
from gpt2flow.agent.wording import Language, case_name
from gpt2flow.console.pages.site import path_part

_LOCALES: Final[dict[Language, str]] = {"en": "en_GB", "zh": "zh_Hans_CN"}


def new_templates() -> Environment:
    """Return the templates, which escape all that they show."""
    environment = Environment(
        loader=PackageLoader("gpt2flow.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "age": age,
        "amount": amount,
        "at": at,
        "case_kind": case_kind,
        "compact_json": compact_json,
        "path": path_part,
        "share": share,
    }
    environment.filters.update(filters)
    return environment


def at(time: datetime, language: Language) -> Markup:
    """Return a time as an element that a script localizes."""
    shown = format_datetime(time, "d MMM y HH:mm", locale=_LOCALES[language])
    return Markup('<time datetime="{}">{} UTC</time>').format(time.isoformat(), shown)


def age(since: datetime, now: datetime, language: Language) -> str:
    """Return a duration in its largest unit, such as `3 hours`."""
    return format_timedelta(now - since, locale=_LOCALES[language], threshold=1.2)


def amount(value: str | Decimal, language: Language) -> str:
    """Return an amount with two decimals, in a language's form."""
    return format_decimal(Decimal(value), "#,##0.00", locale=_LOCALES[language])


def share(value: float) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{100 * value:.1f} %"


def case_kind(kind: CaseKind, language: Language) -> str:
    """Return the name of a kind of case."""
    return case_name(kind, language)


def compact_json(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)

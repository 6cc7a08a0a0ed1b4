"""Templates of pages, and how they show values."""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_decimal
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gpt2flow.web.website.requests import path_part
from gpt2flow.web.website.words import Language

LOCALES: Final[dict[Language, str]] = {"en": "en_GB", "zh": "zh_Hans_CN"}
"""Locale of each language."""


def new_templates(package: str, filters: Mapping[str, Callable[..., Any]]) -> Environment:
    """Return the templates of a package, which escape all that they show.

    Args:
        package: Name of the package.
        filters: Its filters besides `age`, `amount`, `at` and `path`, by name.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = {"age": age, "amount": amount, "at": at, "path": path_part}
    environment.filters.update(shared | dict(filters))
    return environment


def at(time: datetime, language: Language) -> Markup:
    """Return a time as an element that a script can localize."""
    shown = format_datetime(time, "d MMM y HH:mm", locale=LOCALES[language])
    return Markup('<time datetime="{}">{} UTC</time>').format(time.isoformat(), shown)


def age(since: datetime, now: datetime, language: Language) -> str:
    """Return a duration in its largest unit, such as `3 hours`."""
    return format_timedelta(now - since, locale=LOCALES[language], threshold=1.2)


def amount(value: str | Decimal, language: Language) -> str:
    """Return an amount with two decimals, in a language's form."""
    return format_decimal(Decimal(value), "#,##0.00", locale=LOCALES[language])

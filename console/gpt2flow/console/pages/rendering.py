"""Templates of the pages, and how they show what cases have."""

import json
from collections.abc import Callable
from typing import Any

from jinja2 import Environment

from gpt2flow.agent.shop import CaseKind
from gpt2flow.agent.wording import Language, case_name
from gpt2flow.web.website.rendering import new_templates


def console_templates() -> Environment:
    """Return the templates of the console."""
    filters: dict[str, Callable[..., Any]] = {
        "case_kind": case_kind,
        "compact_json": compact_json,
        "share": share,
    }
    return new_templates("gpt2flow.console", filters)


def share(value: float) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{100 * value:.1f} %"


def case_kind(kind: CaseKind, language: Language) -> str:
    """Return the name of a kind of case."""
    return case_name(kind, language)


def compact_json(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)

"""Terminal page of the inbox and of one case."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from gpt2flow.agent.cases.inbox import CaseView, InboxLine

_URGENCY = ("", "reminded", "escalated")
_COLUMNS = ("case", "kind", "status", "since", "customer", "order", "amount", "with", "urgent")
# A table needs more than the 80 columns that rich assumes for a pipe.
_PIPE_WIDTH = 120


def print_inbox(lines: Sequence["InboxLine"], *, as_json: bool) -> None:
    """Print a list of cases.

    Args:
        lines: Cases in their order.
        as_json: Print a JSON array instead of a table.
    """
    if as_json:
        typer.echo(json.dumps([line.model_dump(mode="json") for line in lines]))
        return
    if not lines:
        typer.echo("no cases")
        return
    table = Table(*_COLUMNS)
    for line in lines:
        cells = (
            line.case,
            line.kind,
            line.status,
            f"{line.since:%Y-%m-%d %H:%M}",
            line.customer or "",
            line.order or "",
            line.amount or "",
            line.assignee or "",
            _URGENCY[line.urgency],
        )
        table.add_row(*map(escape, cells))
    _console().print(table)


def print_case(view: "CaseView", *, as_json: bool) -> None:
    """Print all that a person has to see of a case.

    Args:
        view: Case to print.
        as_json: Print a JSON object instead of a page.
    """
    if as_json:
        typer.echo(view.model_dump_json())
        return
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(view):
        facts.add_row(name, escape(value))
    console = _console()
    console.print(facts)
    for title, lines in (("Conversation", _conversation(view)), ("History", _history(view))):
        if lines:
            console.print(f"\n[bold]{title}[/bold]")
            for line in lines:
                console.print(escape(line), highlight=False)


def _console() -> Console:
    # Customers write `:+1:` and mean it.
    console = Console(emoji=False)
    return console if console.is_terminal else Console(emoji=False, width=_PIPE_WIDTH)


def _facts(view: "CaseView") -> list[tuple[str, str]]:
    proposal = view.proposal or {}
    arguments = json.dumps(proposal.get("arguments", {}), ensure_ascii=False)
    facts: list[tuple[str, str | None]] = [
        ("case", f"{view.case} {view.kind}"),
        ("status", " ".join(filter(None, (view.status, _URGENCY[view.urgency])))),
        ("since", f"{view.since:%Y-%m-%d %H:%M} UTC"),
        ("due", f"{view.due_at:%Y-%m-%d %H:%M} UTC" if view.due_at else None),
        ("with", view.assignee),
        ("customer", f"{view.customer}, {view.contact}" if view.customer else None),
        ("reason", view.reason),
        ("amount", view.amount),
        ("message", view.note),
        (
            "model",
            f"{proposal['action']} {arguments}, confidence {proposal['confidence']}"
            if proposal
            else None,
        ),
        ("pictures", _pictures(view)),
        *_bought(view),
        ("digest", view.digest),
    ]
    return [(name, value) for name, value in facts if value]


def _pictures(view: "CaseView") -> str | None:
    """Return how many pictures there are, and how to see them."""
    if not view.pictures:
        return None
    return f"{len(view.pictures)} of stopped screens; --pictures DIR saves them"


def _bought(view: "CaseView") -> list[tuple[str, str | None]]:
    if view.bought is None:
        return []
    delivered = view.bought.delivered_at
    status = f"{view.bought.status} {delivered:%Y-%m-%d %H:%M}" if delivered else view.bought.status
    policies = ", ".join(f"{name}={value}" for name, value in view.policies.items())
    return [
        ("order", f"{view.bought.order}, {status}, total {view.bought.total}"),
        ("", "; ".join(view.bought.lines)),
        ("policies", policies),
    ]


def _earlier(count: int, what: str) -> list[str]:
    """Return the line that says what is left out, if anything is."""
    return [f"… {count} earlier {what}; --all shows them"] if count else []


def _conversation(view: "CaseView") -> list[str]:
    return _earlier(view.earlier_messages, "messages") + [
        f"{said.at:%m-%d %H:%M} {said.by}{f' → {said.to}' if said.to else ''}: {said.text}"
        for said in view.conversation
    ]


def _history(view: "CaseView") -> list[str]:
    lines = _earlier(view.earlier_changes, "changes")
    for change in view.history:
        details = json.dumps(change.details, ensure_ascii=False) if change.details else ""
        parts = (change.change, "by", change.actor, change.text or "", details)
        lines.append(f"{change.at:%m-%d %H:%M} " + " ".join(part for part in parts if part))
    return lines

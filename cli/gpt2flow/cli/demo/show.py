"""What the demo prints: each step as it happens, and a table at the end."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gpt2flow.cli.demo.play import Played, Report, actions_of

# A table of six columns needs more than the 80 that a pipe is taken to have.
_PIPE_WIDTH = 180


def console() -> Console:
    """The console of the demo."""
    shown = Console(highlight=False)
    return shown if shown.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def turn(out: Console, report: Report) -> None:
    """Print a message, the actions that answered it, and what was sent."""
    out.print(f"[bold]{escape(report['session'])}[/]: {escape(report['message'])}")
    for action in actions_of(report):
        out.print(f"   [cyan]{escape(_action(action))}[/]")
        for message in action["messages"]:
            to = f"to {message['to']}: " if message["to"] else ""
            out.print(f"   [green]✉ {escape(to + message['text'])}[/]")
    calls = report["calls"]
    tokens = sum(call["completion_tokens"] for call in calls)
    out.print(
        f"   [dim]{report['milliseconds']:.0f} ms, {len(calls)} model calls, {tokens} tokens[/]"
    )


def summary(out: Console, played: Sequence[Played]) -> None:
    """Print the table of the workflows."""
    table = Table(title="Workflows", show_lines=True, title_justify="left")
    for column, ratio in (("input", 5), ("actions", 5), ("final rows", 5), ("messages sent", 5)):
        table.add_column(column, ratio=ratio, overflow="fold")
    table.add_column("ms", justify="right")
    table.add_column("tokens/s", justify="right")
    for one in played:
        table.add_row(
            Group(
                Text(one.scenario.title, "bold"), *(Text(f"· {r['message']}") for r in one.reports)
            ),
            "\n".join(escape(_action(action)) for action in one.actions),
            "\n".join(escape(line) for line in _rows(one)),
            "\n".join(escape(f"✉ {_short(message['text'])}") for message in one.messages),
            f"{one.milliseconds:.0f}",
            f"{one.tokens_per_second:.0f}",
        )
    out.print(table)
    for one in played:
        mark = "[red]differs[/]" if one.differences else "[green]as expected[/]"
        out.print(f"{escape(one.scenario.title)}: {mark}")
        for difference in one.differences:
            out.print(f"   [red]{escape(difference)}[/]")


def _action(action: Report) -> str:
    used = " ".join(f"{name}={value}" for name, value in action["used"].items())
    ending = f"asked for {action['asked']}" if action["asked"] else action["outcome"]
    return f"{action['action']}({used}) → {ending}"


def _rows(one: Played) -> list[str]:
    """The rows left in each table that the scenario judges, by the columns it judges."""
    lines = []
    for table, expected in one.scenario.expect.rows.items():
        columns = list(dict.fromkeys(name for row in expected for name in row))
        left = one.rows[table]
        lines += [f"{table}: {_cells(row, columns)}" for row in left] or [f"{table}: none"]
    return lines


def _cells(row: dict[str, Any], columns: Sequence[str]) -> str:
    return " ".join(f"{column}={row.get(column)}" for column in columns)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

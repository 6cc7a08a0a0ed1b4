"""Output of the demo: turns as they happen, and a final table."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gpt2flow.cli.demo.play import JsonObject, ScenarioResult, actions_of

# The table needs more than the 80 columns that rich assumes for a pipe.
_PIPE_WIDTH = 180


def make_console() -> Console:
    """Return the console of the demo."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def print_turn(console: Console, report: JsonObject) -> None:
    """Print a customer's message, the agent's actions, and the messages sent."""
    console.print(f"[bold]{escape(report['session'])}[/]: {escape(report['message'])}")
    for action in actions_of(report):
        console.print(f"   [cyan]{escape(format_action(action))}[/]")
        for message in action["messages"]:
            to = f"to {message['to']}: " if message["to"] else ""
            console.print(f"   [green]✉ {escape(to + message['text'])}[/]")
    calls = report["calls"]
    tokens = sum(call["completion_tokens"] for call in calls)
    console.print(
        f"   [dim]{report['milliseconds']:.0f} ms, {len(calls)} model calls, {tokens} tokens[/]"
    )


def print_summary(console: Console, results: Sequence[ScenarioResult]) -> None:
    """Print the table of the workflows, and differences from their expected results."""
    table = Table(title="Workflows", show_lines=True, title_justify="left")
    for column, ratio in (("input", 5), ("actions", 5), ("final rows", 5), ("messages sent", 5)):
        table.add_column(column, ratio=ratio, overflow="fold")
    table.add_column("ms", justify="right")
    table.add_column("tokens/s", justify="right")
    for result in results:
        table.add_row(
            Group(
                Text(result.scenario.title, "bold"),
                *(Text(f"· {r['message']}") for r in result.reports),
            ),
            "\n".join(escape(format_action(action)) for action in result.actions),
            "\n".join(escape(line) for line in _final_rows(result)),
            "\n".join(escape(f"✉ {_shorten(message['text'])}") for message in result.messages),
            f"{result.milliseconds:.0f}",
            f"{result.tokens_per_second:.0f}",
        )
    console.print(table)
    for result in results:
        mark = "[red]differs[/]" if result.differences else "[green]as expected[/]"
        console.print(f"{escape(result.scenario.title)}: {mark}")
        for difference in result.differences:
            console.print(f"   [red]{escape(difference)}[/]")


def print_screens(console: Console, results: Sequence[ScenarioResult]) -> None:
    """Print how long actions took on the screens."""
    console.print(screen_times(results), soft_wrap=True, markup=False)


def print_report(console: Console, page: Path) -> None:
    """Print where the report is."""
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


def screen_times(results: Sequence[ScenarioResult]) -> str:
    """Return how long actions took on the screens, in words.

    The first action of each shop starts the browser, so that it has a figure of its own.
    """
    last_steps = [[steps[-1] for steps in result.on_screens] for result in results]
    first = [steps[0] for steps in last_steps if steps]
    if not first:
        return "No action was carried out on the screens."
    others = [step for steps in last_steps for step in steps[1:]] or first
    slowest, start = (max(each, key=lambda step: step.seconds) for each in (others, first))
    every = [step.seconds for steps in last_steps for step in steps]
    return (
        f"{len(every)} actions on the screens, pictures included: {fmean(every):.1f} s on "
        f"average, {slowest.seconds:.1f} s at most ({slowest.action}); the first of each shop, "
        f"which starts Chromium, {start.seconds:.1f} s at most."
    )


def format_action(action: JsonObject) -> str:
    """Return an action with its arguments and its ending."""
    arguments = " ".join(f"{name}={value}" for name, value in action["used"].items())
    asked = f"asked for {action['asked']}" if action["asked"] else "not possible now"
    ending = action["outcome"] or asked
    return f"{action['action']}({arguments}) → {ending}"


def _final_rows(result: ScenarioResult) -> list[str]:
    """Return one line per final row, with the columns under test."""
    lines = []
    for table in result.tables:
        rows = [" ".join(map("=".join, zip(table.columns, row, strict=True))) for row in table.rows]
        lines += [f"{table.title}: {row}" for row in rows] or [f"{table.title}: none"]
    return lines


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

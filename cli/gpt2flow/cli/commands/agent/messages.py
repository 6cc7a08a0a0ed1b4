"""Commands `gpt2flow agent ask` and `gpt2flow agent run`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from gpt2flow.cli.agent_options import AgentOptions, agent_settings, with_agent_options
from gpt2flow.cli.connection import SecurityOptions, with_security_options
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.agent.agent import Agent
    from gpt2flow.agent.report import TurnReport


@with_agent_options
@with_security_options
def ask(
    text: Annotated[str, typer.Argument(help="Message of the customer.")],
    session: Annotated[str, typer.Option(help="Name of the conversation.")] = "default",
    message_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            help="Id of the message, which makes retries safe: the same id is handled once.",
            show_default="a new id",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    *,
    agent_options: AgentOptions,
    security_options: SecurityOptions,
) -> None:
    """Handle one customer message and print the actions taken and messages sent."""
    with _open_agent(agent_options, security_options) as agent:
        report = agent.handle(session, text, message_id)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _print_report(report)


@with_agent_options
@with_security_options
def run(
    messages: Annotated[
        str,
        typer.Argument(
            help="File of messages, one JSON object per line, with session, text and, "
            "optionally, id; - reads stdin."
        ),
    ],
    *,
    agent_options: AgentOptions,
    security_options: SecurityOptions,
) -> None:
    """Handle a file of customer messages, with one JSON report each.

    A failed line is reported with its error, and the next one is handled.
    Exits with 2 if a line was invalid, else with 1 if a message failed.
    """
    with (
        _open_lines(messages) as lines,
        _open_agent(agent_options, security_options) as agent,
    ):
        from gpt2flow.agent.jsonl import handle_lines

        worst = 0
        for result in handle_lines(agent, lines):
            typer.echo(json.dumps(result.json_line(), ensure_ascii=False))
            sys.stdout.flush()
            worst = max(worst, result.exit_code)
    if worst:
        raise typer.Exit(worst)


@contextmanager
def _open_agent(
    agent_options: AgentOptions, security_options: SecurityOptions
) -> Iterator["Agent"]:
    with needs_extra("agent"):
        from gpt2flow.agent.agent import Agent
        from gpt2flow.agent.config import AgentConfig
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.telemetry.log import logging_to_stderr
    # The standard output has the reports only.
    with logging_to_stderr("console"), reported(bad_input=InputError, failure=AgentError):
        settings = agent_settings(asdict(agent_options))
        config = AgentConfig(**settings, security=security_options.security())
        with Agent(config) as agent:
            yield agent


@contextmanager
def _open_lines(messages: str) -> Iterator[IO[str]]:
    if messages == "-":
        yield sys.stdin
        return
    try:
        with Path(messages).open(encoding="utf-8") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{messages}: {error}", Exit.BAD_INPUT) from error


def _print_report(report: "TurnReport") -> None:
    event_actions = [action for event in report.events for action in event.actions]
    for action in [*report.actions, *event_actions]:
        used = json.dumps(action.used, ensure_ascii=False)
        asked = f"asked for {action.asked}" if action.asked else "not possible now"
        typer.echo(f"{action.action} {used}: {action.outcome or asked}")
        for message in action.messages:
            typer.echo(f"  → {message.to or report.session}: {message.text}")
    if report.attended_by is not None:
        typer.echo(f"{report.attended_by} answers this conversation")
    tokens = sum(call.completion_tokens for call in report.calls)
    typer.echo(f"{report.milliseconds:.0f} ms, {len(report.calls)} model calls, {tokens} tokens")


def add_commands(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command()(ask)
    group.command()(run)

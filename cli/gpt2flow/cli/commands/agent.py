"""`gpt2flow agent`: ask and run."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    Address,
    Protection,
    takes_protection,
)
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.agent.agent import Agent
    from gpt2flow.agent.report import TurnReport

app = typer.Typer(help="Carry out what customers write.", no_args_is_help=True)

Model = Annotated[str, typer.Option(help="The model; default: the server's first.")]
Database = Annotated[
    str,
    typer.Option(help="SQLite file, or URL of a PostgreSQL database.", envvar="GPT2FLOW_DATABASE"),
]
Flows = Annotated[Path | None, typer.Option(help="Folder of flows; default: the built-in ones.")]
Timeout = Annotated[float, typer.Option(help="Seconds that one answer of the model may take.")]
DEFAULT_DATABASE = "gpt2flow.sqlite"


@app.command()
@takes_protection
def ask(
    text: Annotated[str, typer.Argument(help="The customer's message.")],
    session: Annotated[str, typer.Option(help="Names the conversation.")] = "default",
    message_id: Annotated[
        str | None, typer.Option("--id", help="A message sent again under its id is done once.")
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    database: Database = DEFAULT_DATABASE,
    flows: Flows = None,
    timeout: Timeout = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    *,
    protection: Protection,
) -> None:
    """Carry out one message and print what was done and sent."""
    with _open(address, model, database, flows, timeout, protection) as agent:
        report = agent.handle(session, text, message_id)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _print(report)


@app.command()
@takes_protection
def run(
    messages: Annotated[
        str, typer.Argument(help='File of JSON lines {"session", "text", "id"?}; - is stdin.')
    ],
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    database: Database = DEFAULT_DATABASE,
    flows: Flows = None,
    timeout: Timeout = 30.0,
    *,
    protection: Protection,
) -> None:
    """Carry out a file of messages; print a JSON report a line, as each is done.

    A line that fails is reported with its error, and the rest go on. The exit
    code is 2 if a line could not be used, else 1 if a message failed.
    """
    with (
        _lines(messages) as lines,
        _open(address, model, database, flows, timeout, protection) as agent,
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
def _open(
    address: str,
    model: str,
    database: str,
    flows: Path | None,
    timeout: float,
    protection: Protection,
) -> Iterator["Agent"]:
    with needs_extra("agent"):
        from gpt2flow.agent.agent import Agent
        from gpt2flow.agent.config import AgentConfig
        from gpt2flow.agent.errors import AgentError, InputError
    with reported(bad_input=InputError, failure=AgentError):
        config = AgentConfig(
            address=address,
            model=model,
            database=database,
            flows=flows,
            timeout=timeout,
            security=protection.security(),
        )
        with Agent(config) as agent:
            yield agent


@contextmanager
def _lines(messages: str) -> Iterator[IO[str]]:
    if messages == "-":
        yield sys.stdin
        return
    try:
        with Path(messages).open(encoding="utf-8") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{messages}: {error}", Exit.BAD_INPUT) from error


def _print(report: "TurnReport") -> None:
    of_events = [action for event in report.events for action in event.actions]
    for action in [*report.actions, *of_events]:
        used = json.dumps(action.used, ensure_ascii=False)
        typer.echo(f"{action.action} {used}: {action.outcome or f'asked for {action.asked}'}")
        for message in action.messages:
            typer.echo(f"  → {message.to or report.session}: {message.text}")
    tokens = sum(call.completion_tokens for call in report.calls)
    typer.echo(f"{report.milliseconds:.0f} ms, {len(report.calls)} model calls, {tokens} tokens")


def add_commands(parent: typer.Typer) -> None:
    """Add `agent` and its subcommands."""
    parent.add_typer(app, name="agent")

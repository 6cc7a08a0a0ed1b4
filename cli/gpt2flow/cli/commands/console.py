"""Command `gpt2flow console`: the web console of the agent's cases."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.commands.agent.messages import Database, Flows, LogFormat, LogFormatOption
from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    SecurityOptions,
    with_options,
    with_security_options,
)
from gpt2flow.cli.outcome import needs_extra, reported
from gpt2flow.cli.processes import announce


@dataclass(frozen=True)
class ConsoleOptions:
    """Options of the console."""

    tokens: Annotated[
        Path,
        typer.Option(
            help="TOML file of tokens, which names the people and what each may do.",
            envvar="GPT2FLOW_TOKENS",
        ),
    ]
    database: Database = "gpt2flow.sqlite"
    flows: Flows = None
    server: Annotated[
        str, typer.Option(help="Address of the model server.", envvar="GPT2FLOW_ADDRESS")
    ] = DEFAULT_ADDRESS
    address: Annotated[
        str, typer.Option(help="host:port to listen on; port 0 picks a free one.")
    ] = "127.0.0.1:8090"
    https_certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the console's certificate, then those between it and its CA. "
            "Requires --https-key; without it, only this machine is served."
        ),
    ] = None
    https_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the console's private key, without a passphrase. Requires "
            "--https-certificate."
        ),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which browsers may address the console; may repeat.",
            show_default="localhost and loopback addresses",
        ),
    ] = None
    reports: Annotated[
        Path | None,
        typer.Option(
            help="Folder of evaluation reports in JSON, which are shown side by side.",
            show_default="none",
        ),
    ] = None
    metrics: Annotated[
        str,
        typer.Option(
            help="URL of the server's Prometheus endpoint, for the live figures.",
            show_default="none",
        ),
    ] = ""
    session_hours: Annotated[
        float, typer.Option(help="Time after which people sign in again, in hours.")
    ] = 8.0
    log_format: LogFormatOption = LogFormat.JSON


@with_options(ConsoleOptions, "console_options")
@with_security_options
def console(
    ready_file: Annotated[
        Path | None,
        typer.Option(help="File that is written when ready: the bound port, one line."),
    ] = None,
    *,
    console_options: ConsoleOptions,
    security_options: SecurityOptions,
) -> None:
    """Serve the web console of cases and conversations until SIGTERM.

    People sign in with their own token. docs/console.md describes the pages.
    """
    with needs_extra("console"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.console.config import ConsoleConfig
        from gpt2flow.console.process import serve
    with reported(bad_input=InputError, failure=AgentError):
        options = asdict(console_options)
        options["allowed_hosts"] = tuple(options.pop("allowed_host") or ())
        serve(
            ConsoleConfig(**options, security=security_options.security()),
            on_ready=lambda port: announce(ready_file, port),
        )


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(console)

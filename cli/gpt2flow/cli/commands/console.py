"""Command `gpt2flow console`: the web console of the agent's cases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    SecurityOptions,
    with_options,
    with_security_options,
)
from gpt2flow.cli.outcome import needs_extra, reported
from gpt2flow.cli.processes import announce
from gpt2flow.cli.website import ReadyFile, WebsiteOptions


@dataclass(frozen=True, kw_only=True)
class ConsoleOptions(WebsiteOptions):
    """Options of the console."""

    server: Annotated[
        str, typer.Option(help="Address of the model server.", envvar="GPT2FLOW_ADDRESS")
    ] = DEFAULT_ADDRESS
    address: Annotated[
        str, typer.Option(help="host:port to listen on; port 0 picks a free one.")
    ] = "127.0.0.1:8090"
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


@with_options(ConsoleOptions, "console_options")
@with_security_options
def console(
    ready_file: ReadyFile = None,
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
        serve(
            ConsoleConfig(**console_options.settings(), security=security_options.security()),
            on_ready=lambda port: announce(ready_file, port),
        )


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(console)

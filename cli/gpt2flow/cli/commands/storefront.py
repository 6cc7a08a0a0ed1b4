"""Command `gpt2flow storefront`: a web shop and its back office."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gpt2flow.cli.agent_options import Payments, PaymentsTokenFile
from gpt2flow.cli.connection import with_options
from gpt2flow.cli.outcome import needs_extra, reported
from gpt2flow.cli.processes import announce
from gpt2flow.cli.website import ReadyFile, WebsiteOptions


@dataclass(frozen=True, kw_only=True)
class StorefrontOptions(WebsiteOptions):
    """Options of the storefront."""

    address: Annotated[
        str, typer.Option(help="host:port to listen on; port 0 picks a free one.")
    ] = "127.0.0.1:8091"
    payments: Payments = ""
    payments_token_file: PaymentsTokenFile = None
    agent: Annotated[
        str,
        typer.Option(
            help="URL of `gpt2flow agent serve`, which answers the chat box.",
            show_default="no chat box",
        ),
    ] = ""
    agent_secret_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the secret that signs messages to the agent.", show_default="none"
        ),
    ] = None
    chat_seconds: Annotated[
        float, typer.Option(help="Longest time for the agent to answer a message.")
    ] = 30.0
    console: Annotated[
        str,
        typer.Option(
            help="URL of the console, to which the back office links cases.", show_default="none"
        ),
    ] = ""
    disturb: Annotated[
        list[str] | None,
        typer.Option(
            help="Way in which pages change on purpose, for rehearsals: renamed-label, "
            "moved-fields, extra-question, slow-page or ended-session; may repeat.",
            show_default="none",
        ),
    ] = None
    disturb_seconds: Annotated[
        float, typer.Option(help="Delay of the answers that slow-page makes late, in seconds.")
    ] = 20.0

    def settings(self) -> dict[str, Any]:
        """Return the settings of the storefront, by name."""
        return super().settings() | {"disturb": tuple(self.disturb or ())}


@with_options(StorefrontOptions, "storefront_options")
def storefront(
    ready_file: ReadyFile = None,
    *,
    storefront_options: StorefrontOptions,
) -> None:
    """Serve a web shop and its back office until SIGTERM.

    Customers need no account to look around. docs/storefront.md describes the pages.
    """
    with needs_extra("storefront"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.storefront.config import StorefrontConfig
        from gpt2flow.storefront.process import serve
    with reported(bad_input=InputError, failure=AgentError):
        serve(
            StorefrontConfig(**storefront_options.settings()),
            on_ready=lambda port: announce(ready_file, port),
        )


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(storefront)

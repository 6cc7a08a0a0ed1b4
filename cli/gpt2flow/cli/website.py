"""Options of the commands that serve a website of the shop."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gpt2flow.cli.agent_options import Database, Flows, LogFormat, LogFormatOption

ReadyFile = Annotated[
    Path | None,
    typer.Option(help="File that is written when ready: the bound port, one line."),
]


@dataclass(frozen=True, kw_only=True)
class WebsiteOptions:
    """Options of every website."""

    tokens: Annotated[
        Path,
        typer.Option(
            help="TOML file of tokens, which names the people and what each may do.",
            envvar="GPT2FLOW_TOKENS",
        ),
    ]
    database: Database = "gpt2flow.sqlite"
    flows: Flows = None
    https_certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the website's certificate, then those between it and its CA. "
            "Requires --https-key; without it, only this machine is served."
        ),
    ] = None
    https_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the website's private key, without a passphrase. Requires "
            "--https-certificate."
        ),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which browsers may address the website; may repeat.",
            show_default="localhost and loopback addresses",
        ),
    ] = None
    session_hours: Annotated[
        float, typer.Option(help="Time after which people sign in again, in hours.")
    ] = 8.0
    log_format: LogFormatOption = LogFormat.JSON

    def settings(self) -> dict[str, Any]:
        """Return the settings of the website, by name."""
        options = asdict(self)
        options["allowed_hosts"] = tuple(options.pop("allowed_host") or ())
        return options

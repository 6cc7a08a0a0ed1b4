"""Command `gpt2flow gateway`: OpenAI's HTTP API in front of a server."""

from dataclasses import asdict, dataclass, fields, make_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from gpt2flow.cli.connection import DEFAULT_ADDRESS, SecurityOptions, with_options
from gpt2flow.cli.outcome import needs_extra, reported
from gpt2flow.cli.processes import announce


class _LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


@dataclass(frozen=True)
class GatewayOptions:
    """Options of the HTTP side."""

    server: Annotated[
        str, typer.Option(help="Address of the server, as host:port.", envvar="GPT2FLOW_ADDRESS")
    ] = DEFAULT_ADDRESS
    address: Annotated[
        str, typer.Option(help="host:port to listen on; port 0 picks a free one.")
    ] = "127.0.0.1:8000"
    chat_template: Annotated[
        list[str] | None,
        typer.Option(
            help="[MODEL=]FILE of a chat template in Jinja, or a tokenizer_config.json that holds "
            "one; may repeat.",
            show_default="none: /v1/chat/completions is refused",
        ),
    ] = None
    https_certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the gateway's certificate, then those between it and its CA. "
            "Requires --https-key."
        ),
    ] = None
    https_key: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of the gateway's private key, without a passphrase. Requires "
            "--https-certificate."
        ),
    ] = None
    plain_http: Annotated[
        bool,
        typer.Option("--plain-http", help="Serve plain HTTP on addresses that others can reach."),
    ] = False
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which requests may address a gateway on a loopback address; may repeat. "
            "Needed behind a proxy that passes on the name of the outside.",
            show_default="localhost and loopback addresses",
        ),
    ] = None
    metrics_address: Annotated[
        str | None,
        typer.Option(
            help="host:port of the Prometheus endpoint: plain HTTP without access control.",
            show_default="none",
        ),
    ] = None
    request_timeout: Annotated[
        float, typer.Option(help="Longest time of a request, in seconds.")
    ] = 600.0
    max_body_bytes: Annotated[int, typer.Option(help="Largest body of a request.")] = 4 << 20
    max_connections: Annotated[int, typer.Option(help="Most open connections.")] = 1000
    drain_seconds: Annotated[
        float, typer.Option(help="Time for running requests to end after SIGTERM, in seconds.")
    ] = 30.0
    log_format: Annotated[
        _LogFormat, typer.Option(help="json (one object a line) or console (for people).")
    ] = _LogFormat.JSON


def _security_options() -> type[Any]:
    """Return the options of the connection, without a token."""
    hints = get_type_hints(SecurityOptions, include_extras=True)
    given = [
        (each.name, hints[each.name], each.default)
        for each in fields(SecurityOptions)
        if each.name != "token_file"
    ]
    return make_dataclass("ConnectionOptions", given, frozen=True)


@with_options(GatewayOptions, "gateway_options")
@with_options(_security_options(), "connection_options")
def gateway(
    ready_file: Annotated[
        Path | None,
        typer.Option(help="File that is written when ready: the bound port, one line."),
    ] = None,
    *,
    gateway_options: GatewayOptions,
    connection_options: Any,
) -> None:
    """Serve OpenAI's HTTP API in front of a server until SIGTERM.

    The API keys are the server's tokens. docs/gateway.md lists the fields.
    """
    with needs_extra("gateway"):
        from gpt2flow.gateway.config import GatewayConfig
        from gpt2flow.gateway.errors import GatewayConfigError, GatewayError
        from gpt2flow.gateway.process import serve
    with reported(bad_input=GatewayConfigError, failure=GatewayError):
        options = asdict(gateway_options)
        options["chat_templates"] = tuple(options.pop("chat_template") or ())
        options["allowed_hosts"] = tuple(options.pop("allowed_host") or ())
        security = SecurityOptions(**asdict(connection_options)).security()
        serve(
            GatewayConfig(**options, security=security),
            on_ready=lambda port: announce(ready_file, port),
        )


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gateway)

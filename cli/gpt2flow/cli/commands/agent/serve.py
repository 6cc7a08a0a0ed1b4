"""Command `gpt2flow agent serve`."""

from dataclasses import asdict, dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from gpt2flow.cli.agent_options import (
    AgentOptions,
    LogFormat,
    LogFormatOption,
    MetricsAddress,
    agent_settings,
)
from gpt2flow.cli.connection import (
    DEFAULT_ADDRESS,
    SecurityOptions,
    with_options,
    with_security_options,
)
from gpt2flow.cli.outcome import needs_extra, reported
from gpt2flow.cli.processes import announce

# Below the deadline of a request, so that its report says that a person takes over.
_DEFAULTS = {"patience": 60.0}


@dataclass(frozen=True)
class HttpOptions:
    """Options of the HTTP endpoint."""

    address: Annotated[
        str, typer.Option(help="host:port to take messages on; port 0 picks a free one.")
    ] = "127.0.0.1:8080"
    metrics_address: MetricsAddress = None
    secret_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the secrets that requests are signed with, one a line. Reread when it "
            "changes.",
            show_default="unsigned requests from this machine only",
        ),
    ] = None
    request_timeout: Annotated[
        float,
        typer.Option(help="Longest wait of a request for its turn, in seconds. The turn goes on."),
    ] = 90.0
    max_body_bytes: Annotated[int, typer.Option(help="Largest body of a request.")] = 65_536
    max_turns: Annotated[int, typer.Option(help="Most turns at a time.")] = 16
    max_queued: Annotated[int, typer.Option(help="Most turns that wait.")] = 64
    max_per_minute: Annotated[
        int, typer.Option(help="Most requests of a session in a minute, for each route.")
    ] = 60
    max_connections: Annotated[int, typer.Option(help="Most open connections.")] = 1000
    drain_seconds: Annotated[
        float, typer.Option(help="Time for accepted turns to end after SIGTERM, in seconds.")
    ] = 30.0
    log_messages: Annotated[
        bool,
        typer.Option(
            "--log-messages", help="Write messages and replies to the log and the traces."
        ),
    ] = False
    log_format: LogFormatOption = LogFormat.JSON


def _server_options() -> type[Any]:
    """Return the options of the agent, with `--server` for `--address`.

    `--address` is where this command listens, `--server` the model server. Nobody waits in front
    of a terminal, so that there is patience.
    """
    hints = get_type_hints(AgentOptions, include_extras=True)
    server = Annotated[
        str,
        typer.Option(
            help="Address of the model server, as host:port or unix:PATH; several with commas.",
            envvar="GPT2FLOW_ADDRESS",
        ),
    ]
    given = [
        ("server", server, DEFAULT_ADDRESS)
        if each.name == "address"
        else (each.name, hints[each.name], _DEFAULTS.get(each.name, each.default))
        for each in fields(AgentOptions)
    ]
    return make_dataclass("ServerOptions", given, frozen=True)


with_http_options = with_options(HttpOptions, "http_options")
with_server_options = with_options(_server_options(), "server_options")


@with_http_options
@with_server_options
@with_security_options
def serve(
    ready_file: Annotated[
        Path | None,
        typer.Option(help="File that is written when ready: the bound port, one line."),
    ] = None,
    *,
    http_options: HttpOptions,
    server_options: Any,
    security_options: SecurityOptions,
) -> None:
    """Take customer messages over HTTP until SIGTERM or Ctrl-C.

    docs/http.md describes the requests and how to sign them.
    """
    with needs_extra("service"):
        from gpt2flow.agent.config import AgentConfig
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.http.config import HttpConfig
        from gpt2flow.agent.http.process import serve as run
    with reported(bad_input=InputError, failure=AgentError):
        options = agent_settings(asdict(server_options))
        options["address"] = options.pop("server")
        run(
            HttpConfig(**asdict(http_options)),
            AgentConfig(
                **options,
                security=security_options.security(),
                trace_messages=http_options.log_messages,
            ),
            on_ready=lambda port: announce(ready_file, port),
        )


def add_commands(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command()(serve)

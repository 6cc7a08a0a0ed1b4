"""Command `gpt2flow token`, which creates a bearer token."""

import json
from typing import Annotated

import typer

from gpt2flow.cli.outcome import needs_extra, reported


def token(
    name: Annotated[
        str, typer.Argument(help="Name of the token's holder, for logs and per-caller limits.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print token and entry as one JSON object on stdout.")
    ] = False,
) -> None:
    """Create a bearer token for `serve --tokens`.

    Prints the token to stderr, once: it is not stored. Prints the entry for
    the tokens file, which contains the token's hash, to stdout.

    Example: gpt2flow token shop-agent >> tokens.toml
    """
    with needs_extra("server"):
        from gpt2flow.server import ConfigError
        from gpt2flow.server.access.tokens import make_token
    with reported(bad_input=ConfigError):
        secret, entry = make_token(name)
    if as_json:
        typer.echo(json.dumps({"name": name, "token": secret, "entry": entry}))
        return
    typer.echo(secret, err=True)
    typer.echo(entry, nl=False)


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(token)

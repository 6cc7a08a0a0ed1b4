"""`gpt2flow token`."""

import json
from typing import Annotated

import typer

from gpt2flow.cli.outcome import needs_extra, reported


def token(
    name: Annotated[str, typer.Argument(help="Who will hold it, as logs and limits call them.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Token and entry as JSON on standard output.")
    ] = False,
) -> None:
    """Make a token for `serve --tokens`; it is shown once and stored nowhere.

    The token goes to standard error, its entry to standard output:
    gpt2flow token shop-agent >> tokens.toml
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
    """Add `token`."""
    app.command()(token)

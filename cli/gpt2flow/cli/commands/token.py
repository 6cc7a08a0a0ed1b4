"""Command `gpt2flow token`, which creates a bearer token."""

import json
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated

import typer

from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported


class _Right(StrEnum):
    HANDLE = "handle"
    APPROVE = "approve"


def token(
    name: Annotated[
        str, typer.Argument(help="Name of the token's holder, for logs and per-caller limits.")
    ],
    may: Annotated[
        _Right | None,
        typer.Option(
            help="Rights of a person on the agent's cases: handle them, or also approve and "
            "reject claims.",
            show_default="nothing",
        ),
    ] = None,
    up_to: Annotated[
        str | None,
        typer.Option(
            metavar="<amount>",
            help="Largest amount that the person may approve.",
            show_default="any",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print token and entry as one JSON object on stdout.")
    ] = False,
) -> None:
    """Create a bearer token, for `serve --tokens` or for a person.

    Prints the token to stderr, once: it is not stored. Prints the entry for
    the tokens file, which contains the token's hash, to stdout.

    Example: gpt2flow token shop-agent >> tokens.toml
    """
    with needs_extra("agent"):
        from gpt2flow.files.tokens import make_token
    with reported(bad_input=ValueError):
        amount = None if up_to is None else _parse_amount(up_to)
        secret, entry = make_token(
            name, ValueError, may=None if may is None else may.value, up_to=amount
        )
    if as_json:
        typer.echo(json.dumps({"name": name, "token": secret, "entry": entry}))
        return
    typer.echo(secret, err=True)
    typer.echo(entry, nl=False)


def _parse_amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise CommandError(
            f"--up-to is {text!r}, must be an amount such as 500 or 99.90", Exit.BAD_INPUT
        ) from None


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(token)

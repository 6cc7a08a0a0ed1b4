"""Command `gpt2flow token`, which creates a bearer token."""

import json
from datetime import datetime
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
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model that the holder may call; may repeat.", show_default="all"),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(
            help="Most unfinished requests at the same time; each prompt counts.",
            show_default="any",
        ),
    ] = None,
    max_priority: Annotated[
        int | None,
        typer.Option(help="Highest priority of a request, from -100 to 100.", show_default="any"),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most new tokens of a request.", show_default="any")
    ] = None,
    max_candidates: Annotated[
        int | None, typer.Option(help="Most candidates (n) of a request.", show_default="any")
    ] = None,
    max_beams: Annotated[
        int | None, typer.Option(help="Most beams of a request.", show_default="any")
    ] = None,
    manage_models: Annotated[
        bool, typer.Option("--manage-models", help="Let the holder load and unload models.")
    ] = False,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="<time>",
            help="Time from which the token is invalid, such as 2027-01-01T00:00:00Z.",
            show_default="never",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print token and entry as one JSON object on stdout.")
    ] = False,
) -> None:
    """Create a bearer token, for `serve --tokens` or for a person.

    Prints the token to stderr, once: it is not stored. Prints the entry for
    the tokens file, which contains the token's hash, to stdout.

    Example: gpt2flow token shop-agent --max-requests 8 >> tokens.toml
    """
    with needs_extra("agent"):
        from gpt2flow.files.tokens import make_token
    with reported(bad_input=ValueError):
        amount = None if up_to is None else _parse_amount(up_to)
        limits = {
            "models": model or None,
            "max_requests": max_requests,
            "max_priority": max_priority,
            "max_new_tokens": max_new_tokens,
            "max_candidates": max_candidates,
            "max_beams": max_beams,
            "manage_models": manage_models or None,
            "expires": None if expires is None else _parse_time(expires),
        }
        secret, entry = make_token(
            name, ValueError, may=None if may is None else may.value, up_to=amount, limits=limits
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


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise CommandError(
            f"--expires is {text!r}, must be a time with its zone such as 2027-01-01T00:00:00Z",
            Exit.BAD_INPUT,
        )
    return time


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(token)

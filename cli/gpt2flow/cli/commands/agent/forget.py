"""Command `gpt2flow agent forget`."""

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2flow.cli.commands.agent.messages import Database
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.agent.erasure import Erasure


def forget(
    contact: Annotated[
        str | None,
        typer.Argument(
            metavar="<contact>",
            help="E-mail address or phone number of the customer.",
            show_default="use --older-than",
        ),
    ] = None,
    older_than: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=36_500,
            metavar="<days>",
            help="Forget the conversations in which nothing was written for so many days.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Forget a customer whose orders or cases are open."),
    ] = False,
    database: Database = "gpt2flow.sqlite",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Erase what a customer wrote, or old conversations; orders and payments stay."""
    if (contact is None) == (older_than is None):
        raise CommandError("name either a contact or --older-than", Exit.BAD_INPUT)
    erasure = _erase(database, contact, older_than, force=force)
    if as_json:
        typer.echo(json.dumps(asdict(erasure)))
    else:
        typer.echo(
            f"erased {erasure.sessions} conversations, {erasure.messages} messages,"
            f" {erasure.model_calls} model calls, {erasure.turns} records of turns"
        )


def _erase(database: str, contact: str | None, older_than: int | None, *, force: bool) -> "Erasure":
    with needs_extra("agent"):
        from gpt2flow.agent.config import utc_now
        from gpt2flow.agent.erasure import forget_before, forget_contact
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.shop import Database, database_url
    with reported(bad_input=InputError, failure=AgentError):
        shop = Database.open_existing(database_url(database))
        try:
            if contact is not None:
                return forget_contact(shop, contact, force=force)
            return forget_before(shop, utc_now() - timedelta(days=older_than or 0))
        finally:
            shop.close()


def add_commands(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command()(forget)

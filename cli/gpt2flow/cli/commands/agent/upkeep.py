"""Commands `gpt2flow agent migrate` and `gpt2flow agent forget`: upkeep of a database."""

import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2flow.cli.agent_options import Database
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported

if TYPE_CHECKING:
    from gpt2flow.agent.erasure import Erasure
    from gpt2flow.agent.shop.migration import Migration


def migrate(
    database: Database = "gpt2flow.sqlite",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the database and its revisions as JSON.")
    ] = False,
) -> None:
    """Upgrade the schema of a database to that of this version.

    All changes are one transaction: if one fails, or the command is killed, the database
    stays as it was. A database that is up to date is left alone.

    Back the database up first, and stop the agents on it, since they need the old schema.
    """
    with needs_extra("agent"):
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.shop import database_url
        from gpt2flow.agent.shop import migration as schema
        from gpt2flow.agent.shop.database import display_name
    with reported(bad_input=InputError, failure=AgentError):
        url = database_url(database)
        done = schema.migrate(url)
    name = display_name(url)
    if as_json:
        typer.echo(json.dumps({"database": name, **asdict(done)}, ensure_ascii=False))
    else:
        typer.echo(f"{name}: {_text(done)}")


def _text(done: "Migration") -> str:
    """Return what a migration has done, in words."""
    if done.before == done.after:
        return f"{done.after}, nothing to do"
    return f"{done.before} → {done.after}"


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
    """Add the commands to the group."""
    group.command()(migrate)
    group.command()(forget)

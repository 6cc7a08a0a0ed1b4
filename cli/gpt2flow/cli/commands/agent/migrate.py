"""Command `gpt2flow agent migrate`, which upgrades the schema of a database."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2flow.cli.commands.agent.messages import Database
from gpt2flow.cli.outcome import needs_extra, reported

if TYPE_CHECKING:
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


def add_commands(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command()(migrate)

"""Migration of a shop database to the schema of this program."""

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, inspect, text

from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.shop.database import (
    SCHEMA_REVISION,
    Database,
    display_name,
    lock_schema,
    read_revision,
)

# Before Alembic, a table of its own named the version of the schema.
_OLD_TABLE = "schema_version"
_FIRST_REVISION = "v0001"
_OLD_VERSION = 2


@dataclass(frozen=True)
class Migration:
    """Result of a migration.

    Attributes:
        before: Revision that was found.
        after: Revision that the database has now.
    """

    before: str
    after: str


def migrate(url: URL) -> Migration:
    """Upgrade the schema of a database, or leave it whole.

    Args:
        url: URL of the database.

    Raises:
        DatabaseError: There is no shop in the database, its schema is newer than this program
            or too old for it, or the database failed.
        InputError: The driver of the database is not installed.
    """
    if _is_missing_file(url):
        raise _no_shop(url)
    database = Database(url)
    try:
        with database.translate_errors(), database.engine.begin() as connection:
            lock_schema(connection)
            configuration = _configuration(connection)
            before = _find_revision(connection, url, configuration)
            command.upgrade(configuration, SCHEMA_REVISION)
    finally:
        database.close()
    return Migration(before, SCHEMA_REVISION)


def _is_missing_file(url: URL) -> bool:
    """Return whether there is no SQLite file, which a connection would make."""
    is_path = url.get_backend_name() == "sqlite" and not str(url.database).startswith("file:")
    return is_path and not Path(str(url.database)).exists()


def _no_shop(url: URL) -> DatabaseError:
    return DatabaseError(f"database {display_name(url)}: there is no shop in it")


def _configuration(connection: Connection) -> Config:
    """Return Alembic's settings, without a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _find_revision(connection: Connection, url: URL, configuration: Config) -> str:
    """Return the revision of a database.

    A database from before Alembic is given one.
    """
    name = display_name(url)
    revision = read_revision(connection)
    if revision is None:
        if not inspect(connection).has_table(_OLD_TABLE):
            raise _no_shop(url)
        version = connection.scalar(text(f"SELECT version FROM {_OLD_TABLE}"))  # noqa: S608
        if version != _OLD_VERSION:
            raise DatabaseError(
                f"database {name}: schema version is {version}, and only {_OLD_VERSION} can be"
                " upgraded"
            )
        command.stamp(configuration, _FIRST_REVISION)
        connection.execute(text(f"DROP TABLE {_OLD_TABLE}"))
        return _FIRST_REVISION
    if revision not in _revisions(configuration):
        # Revisions are numbered, so that another program's are told apart.
        is_newer = revision.startswith("v") and revision > SCHEMA_REVISION
        raise DatabaseError(
            f"database {name}: its schema is {revision}, newer than {SCHEMA_REVISION} of this"
            " program; upgrade gpt2flow"
            if is_newer
            else f"database {name}: its schema is {revision}, which is no shop's"
        )
    return revision


def _revisions(configuration: Config) -> set[str]:
    """Return the revisions that this program knows."""
    return {each.revision for each in ScriptDirectory.from_config(configuration).walk_revisions()}

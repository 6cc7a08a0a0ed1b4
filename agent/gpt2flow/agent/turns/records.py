"""Durable records of turns, which DBOS keeps beside the shop."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from dbos import DBOSClient
from sqlalchemy import URL, create_engine

from gpt2flow.agent.shop.database import translate_errors
from gpt2flow.agent.shop.tables.records import turn_prefix


def system_database_url(url: URL) -> URL:
    """Return the URL of DBOS's database.

    It is a second SQLite file, or a schema of PostgreSQL.
    """
    if url.get_backend_name() != "sqlite":
        return url.set(drivername="postgresql")
    return url.set(database=f"{url.database}-dbos")


def prepare_system_database(url: URL) -> str:
    """Return the URL of DBOS's database after checking it for writing.

    Raises:
        DatabaseError: It is not.
    """
    system_url = system_database_url(url)
    if url.get_backend_name() == "sqlite":
        # DBOS would retry and log for a long time; this check fails at once. The journal
        # mode is stored in the file and saves DBOS most of its waits for the disk.
        engine = create_engine(system_url)
        with translate_errors(system_url), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.rollback()
        engine.dispose()
    return system_url.render_as_string(hide_password=False)


def delete_turns(url: URL, sessions: Iterable[str]) -> int:
    """Delete the durable records of the turns of some sessions.

    Args:
        url: URL of the shop database.
        sessions: Ids of the sessions.

    Returns:
        The number of turns.

    Raises:
        DatabaseError: The database failed.
    """
    system_url = system_database_url(url)
    if url.get_backend_name() == "sqlite" and not Path(str(system_url.database)).is_file():
        return 0
    count = 0
    text = system_url.render_as_string(hide_password=False)
    with translate_errors(system_url), closing(_Client(system_database_url=text)) as client:
        for session in sessions:
            turns = client.list_workflows(
                workflow_id_prefix=turn_prefix(session), load_input=False, load_output=False
            )
            if turns:
                client.delete_workflows([turn.workflow_id for turn in turns])
            count += len(turns)
    return count


def compact(url: URL) -> None:
    """Overwrite what was deleted from SQLite files; PostgreSQL vacuums by itself.

    Args:
        url: URL of the shop database.

    Raises:
        DatabaseError: The database failed.
    """
    if url.get_backend_name() != "sqlite":
        return
    for each in (url, system_database_url(url)):
        if not Path(str(each.database)).is_file():
            continue
        engine = create_engine(each, isolation_level="AUTOCOMMIT")
        with translate_errors(each), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 10000")
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()


class _Client(DBOSClient):
    """Client whose connections `closing` closes."""

    def close(self) -> None:
        self.destroy()

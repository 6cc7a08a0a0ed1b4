"""Crash driver: kills a migration before its changes, and before its commit.

`test_migration.py` runs it as `python -m tests.support.migration_crashes URL STRIDE` on an old
shop. It kills before each STRIDE-th change, and prints how many kills there were.
"""

import itertools
import os
import signal
import sys
from functools import partial
from typing import Any

from sqlalchemy import Engine, event
from tests.support.agent_crashes import fork, wait_for_exit
from tests.support.old_shop import rows_of, schema_of

from gpt2flow.agent.shop import database_url
from gpt2flow.agent.shop.migration import migrate

_CHANGES = ("CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE")


def migrate_and_die(url: str, kill_at: int | None) -> None:
    """Migrate a database; kill this process on the way.

    Args:
        url: URL or path of the database.
        kill_at: Number of the change to die before, from 0; None is the commit.
    """
    passed = itertools.count()

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(_CHANGES) and next(passed) == kill_at:
            die()

    event.listen(Engine, "before_cursor_execute", before_statement)
    if kill_at is None:
        event.listen(Engine, "commit", die)
    migrate(database_url(url))


def main(url: str, stride: int) -> None:
    old = schema_of(url), rows_of(url)
    for kills, kill_at in enumerate(itertools.chain([None], itertools.count(step=stride))):
        exit_code = wait_for_exit(fork(partial(migrate_and_die, url, kill_at)))
        if exit_code == 0:
            sys.stdout.write(f"{kills}\n")
            return
        assert exit_code == -signal.SIGKILL
        assert (schema_of(url), rows_of(url)) == old, f"killed before change {kill_at}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""Commands of docs/database.md, run while an agent works, and the backup restored."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.support.agent_process import AgentUnderTest
from tests.support.doc_pages import blocks
from tests.support.old_shop import rows_of
from tests.support.postgresql import DATABASES, PostgresqlServer
from tests.support.waiting import eventually

from gpt2flow.agent.shop import CartLine, Database, database_url

[BACK_UP_SQLITE] = blocks("database.md", "python")
RESTORE_SQLITE, BACK_UP_POSTGRESQL, RESTORE_POSTGRESQL = blocks("database.md", "sh")
[RIGHTS] = blocks("database.md", "sql")
TURN = "a kettle and a lamp"
# Turns that the agent is given before the backup; it finishes some of them.
TURNS = 40


@dataclass(frozen=True)
class Site:
    """Shop with the ways to back it up and to restore it.

    Attributes:
        url: Path or URL of the database.
        restored: Path or URL of the restored database.
        back_up: Replaces the backup by a new one.
        restore: Replaces the restored database by the backup.
    """

    url: str
    restored: str
    back_up: Callable[[], None]
    restore: Callable[[], None]


def run(folder: Path, *command: str, **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def sqlite_site(folder: Path) -> Site:
    shop, other = folder / "shop", folder / "other"
    shop.mkdir()
    other.mkdir()

    def back_up() -> None:
        shutil.rmtree(shop / "backup", ignore_errors=True)
        run(shop, sys.executable, "-c", BACK_UP_SQLITE)

    def restore() -> None:
        shutil.rmtree(other / "backup", ignore_errors=True)
        shutil.copytree(shop / "backup", other / "backup")
        # It belongs to a database that was in the place of the restored one.
        (other / "gpt2flow.sqlite-wal").write_bytes(b"old")
        run(other, "sh", "-ec", RESTORE_SQLITE)

    name = "gpt2flow.sqlite"
    return Site(str(shop / name), str(other / name), back_up, restore)


@contextmanager
def postgresql_site(server: PostgresqlServer, folder: Path) -> Iterator[Site]:
    """Yield a site whose role has the rights that the page names."""
    role, names = "keeper", ("kept", "restored")
    assert "CREATE ROLE gpt2flow LOGIN" in RIGHTS
    assert "CREATE DATABASE gpt2flow OWNER gpt2flow" in RIGHTS
    server.execute("CREATE ROLE {} LOGIN", role)
    server.execute("CREATE DATABASE {} OWNER {}", names[0], role)
    url, restored = (server.url(name, role) for name in names)
    path = f"{server.programs}:{os.environ['PATH']}"

    def back_up() -> None:
        run(folder, "sh", "-ec", BACK_UP_POSTGRESQL, PATH=path, GPT2FLOW_DATABASE=url)

    def restore() -> None:
        server.execute("DROP DATABASE IF EXISTS {}", names[1])
        server.execute("CREATE DATABASE {} OWNER {}", names[1], role)
        run(folder, "sh", "-ec", RESTORE_POSTGRESQL, PATH=path, RESTORED=restored)

    yield Site(url, restored, back_up, restore)
    for name in names:
        server.execute("DROP DATABASE {} WITH (FORCE)", name)
    server.execute("DROP ROLE {}", role)


@pytest.fixture(params=DATABASES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "sqlite":
        yield sqlite_site(tmp_path)
        return
    with postgresql_site(request.getfixturevalue("postgresql"), tmp_path) as site:
        yield site


def cart_lines(url: str) -> dict[str, int]:
    """Return the number of lines of each session's cart."""
    database = Database.open(database_url(url))
    with database.transaction() as db:
        query = select(CartLine.session_id, func.count()).group_by(CartLine.session_id)
        lines = dict(db.execute(query).all())
    database.close()
    return lines


def test_a_restored_backup_has_every_row_and_finishes_every_turn(site: Site) -> None:
    with AgentUnderTest(site.url, 0.3) as agent:
        for number, message in enumerate(("i'm Ann, ann@example.com", "123456")):
            agent.handle("ann", str(number), message)
        for number in range(TURNS):
            agent.send(f"s{number}", "1", TURN)
        for _ in range(TURNS // 2):
            site.back_up()
            site.restore()
            before = cart_lines(site.restored)
            if 1 in before.values():
                break
        assert list(before.values()).count(1) == 1
        agent.kill()
    rows, source = rows_of(site.restored), rows_of(site.url)
    assert rows["customers"] == source["customers"]
    assert set(rows["cart_lines"]) <= set(source["cart_lines"])
    with AgentUnderTest(site.restored) as agent:
        eventually(lambda: set(cart_lines(site.restored).values()) == {2})
        assert cart_lines(site.restored).keys() == before.keys()
        # Whether the backup has the turn or not, the message can be sent again.
        for number in (0, TURNS - 1):
            assert agent.handle(f"s{number}", "1", TURN) == ["added", "added"]
        assert cart_lines(site.restored)["s0"] == 2

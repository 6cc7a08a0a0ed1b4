"""Migration of old shops on both databases."""

import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError
from tests.support.old_shop import CREATED, DUE, ROWS, make_old_shop, rows_of, schema_of
from tests.support.postgresql import DATABASES, PostgresqlServer
from tests.support.project import PROJECT
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import Clock
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.shop import (
    Audience,
    Base,
    Case,
    CaseStatus,
    Database,
    Delivery,
    OutboxMessage,
    database_url,
    migration,
)
from gpt2flow.agent.shop.database import SCHEMA_REVISION
from gpt2flow.agent.shop.migration import Migration, migrate

pytestmark = pytest.mark.process

MIGRATE = """
import sys
from gpt2flow.agent.shop import database_url
from gpt2flow.agent.shop.migration import migrate
print(migrate(database_url(sys.argv[1])).before)
"""


@pytest.fixture(params=DATABASES)
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Function that returns the path or URL of a database without tables."""
    if request.param == "sqlite":
        paths = (str(tmp_path / f"{number}.sqlite") for number in itertools.count())
        yield lambda: next(paths)
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    with ExitStack() as resources:
        yield lambda: resources.enter_context(server.database())


@pytest.fixture
def old(new_database: Callable[[], str]) -> str:
    """Path or URL of a shop of before Alembic."""
    url = new_database()
    make_old_shop(url)
    return url


def execute(url: str, *statements: str) -> None:
    engine = create_engine(database_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def error_of_migration(url: str) -> str:
    with pytest.raises(DatabaseError) as caught:
        migrate(database_url(url))
    message = str(caught.value)
    assert "\n" not in message
    return message


def error_of_opening(url: str) -> str:
    with pytest.raises(DatabaseError) as caught:
        Database.open(database_url(url)).close()
    return str(caught.value)


def test_a_migrated_schema_equals_a_new_one(old: str, new_database: Callable[[], str]) -> None:
    """Keys, defaults and checks are compared too, unlike by Alembic."""
    assert migrate(database_url(old)) == Migration("v0001", SCHEMA_REVISION)
    engine = create_engine(database_url(old))
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()
    new = new_database()
    Database.open(database_url(new)).close()
    assert schema_of(old) == schema_of(new)
    assert set(schema_of(old)) == set(Base.metadata.tables)


def test_a_migration_keeps_every_row(old: str) -> None:
    columns = {name: list(rows[0]) for name, rows in ROWS.items()}
    before = rows_of(old, columns)
    assert {name: len(rows) for name, rows in before.items()} == {
        name: len(rows) for name, rows in ROWS.items()
    }
    migrate(database_url(old))
    assert rows_of(old, columns) == before


def test_a_migration_sends_no_old_message_and_has_old_cases_looked_after(old: str) -> None:
    migrate(database_url(old))
    database = Database.open(database_url(old))
    with database.transaction() as db:
        answered, dead = db.scalars(select(OutboxMessage).order_by(OutboxMessage.id))
        cases = {case.status: case for case in db.scalars(select(Case))}
    database.close()
    assert (answered.delivery, answered.error) == (Delivery.ANSWERED, None)
    assert dead.delivery is Delivery.DEAD
    assert dead.error == "written before messages were delivered"
    assert {(row.audience, row.attempts) for row in (answered, dead)} == {(Audience.CUSTOMER, 0)}
    assert {status: case.inbox_since for status, case in cases.items()} == {
        CaseStatus.OPEN: CREATED,
        CaseStatus.DUE: CREATED,
        CaseStatus.SCHEDULED: None,
        CaseStatus.APPROVED: None,
    }
    assert {status: case.attention_at for status, case in cases.items()} == {
        CaseStatus.OPEN: CREATED,
        CaseStatus.DUE: DUE,
        CaseStatus.SCHEDULED: DUE,
        CaseStatus.APPROVED: None,
    }
    assert {case.urgency for case in cases.values()} == {0}


def test_a_shop_of_the_revision_before_keeps_every_row(old: str) -> None:
    url = database_url(old)
    engine = create_engine(url)
    with engine.begin() as connection:
        configuration = migration._configuration(connection)
        migration._find_revision(connection, url, configuration)
        command.upgrade(configuration, "v0002")
    engine.dispose()
    columns = {name: list(rows[0]) for name, rows in ROWS.items()}
    before = rows_of(old, columns)
    assert migrate(url) == Migration("v0002", SCHEMA_REVISION)
    assert rows_of(old, columns) == before
    database = Database.open(url)
    with database.transaction() as db:
        assert {row.trace for row in db.scalars(select(OutboxMessage))} == {None}
    database.close()


def test_a_migrated_shop_takes_new_rows(old: str) -> None:
    """Numbers go on after the old ones, and keys are still unique."""
    migrate(database_url(old))
    database = Database.open(database_url(old))
    with database.transaction() as db:
        old_message = db.get_one(OutboxMessage, 1)
        for key in ("k3", old_message.key):
            values = {"flow": "order", "language": "en", "text": "!", "created_at": CREATED}
            db.add(OutboxMessage(key=key, case_id=1, **values))
            if key == "k3":
                db.flush()
        with pytest.raises(IntegrityError, match=r"(?i)unique"):
            db.flush()
        db.rollback()
    database.close()


def test_a_second_migration_changes_nothing(old: str) -> None:
    migrate(database_url(old))
    once = schema_of(old), rows_of(old)
    assert migrate(database_url(old)) == Migration(SCHEMA_REVISION, SCHEMA_REVISION)
    assert (schema_of(old), rows_of(old)) == once


def test_two_migrations_at_once_migrate_once(old: str) -> None:
    command = [sys.executable, "-c", MIGRATE, old]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = sorted(process.communicate(timeout=SECONDS)[0].strip() for process in both)
    assert found == ["v0001", SCHEMA_REVISION]


def test_an_agent_works_on_a_migrated_shop(old: str) -> None:
    """It looks after the cases, of which one is overdue, and answers."""
    migrate(database_url(old))
    model = ScriptedModel({"hello": ["greet"]})
    with Agent(AgentConfig(database=old), model=model, clock=Clock()) as agent:
        assert agent.handle("s", "hello").actions[0].action == "greet"
        eventually(lambda: urgencies(old)[0] == 1)


def urgencies(url: str) -> list[int]:
    database = Database.open(database_url(url))
    with database.transaction() as db:
        found = list(db.scalars(select(Case.urgency).order_by(Case.id)))
    database.close()
    return found


def test_a_killed_migration_leaves_the_old_schema_whole(old: str) -> None:
    """SIGKILL strikes before every fourth change, and before the commit."""
    command = [sys.executable, "-m", "tests.support.migration_crashes", old, "4"]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert int(run.stdout) >= 10
    assert migrate(database_url(old)) == Migration(SCHEMA_REVISION, SCHEMA_REVISION)


def test_an_old_shop_is_not_opened_but_names_the_remedy(old: str) -> None:
    before = schema_of(old)
    assert "its schema is older than v0001" in error_of_opening(old)
    assert "run `gpt2flow agent migrate --database " in error_of_opening(old)
    assert schema_of(old) == before
    migrate(database_url(old))
    execute(old, "UPDATE alembic_version SET version_num = 'v0001'")
    assert f"its schema is v0001, this program needs {SCHEMA_REVISION}" in error_of_opening(old)


def test_a_newer_shop_is_neither_opened_nor_migrated(old: str) -> None:
    migrate(database_url(old))
    execute(old, "UPDATE alembic_version SET version_num = 'v9999'")
    assert error_of_opening(old).endswith(f"needs {SCHEMA_REVISION}; upgrade gpt2flow")
    expected = f"its schema is v9999, newer than {SCHEMA_REVISION} of this program; upgrade"
    assert expected in error_of_migration(old)


def test_a_shop_that_is_too_old_is_not_migrated(new_database: Callable[[], str]) -> None:
    url = new_database()
    make_old_shop(url, version=1)
    before = schema_of(url), rows_of(url)
    assert "schema version is 1, and only 2 can be upgraded" in error_of_migration(url)
    assert (schema_of(url), rows_of(url)) == before


def test_a_database_without_a_shop_is_left_alone(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    url = new_database()
    assert error_of_migration(url).endswith(": there is no shop in it")
    assert list(tmp_path.iterdir()) == []
    assert schema_of(url) == {}


def test_the_database_of_another_program_is_left_alone(new_database: Callable[[], str]) -> None:
    """Other programs have a table of Alembic too."""
    url = new_database()
    execute(url, "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    execute(url, "INSERT INTO alembic_version VALUES ('5f3c0a')")
    assert error_of_migration(url).endswith(": its schema is 5f3c0a, which is no shop's")
    assert "a shop needs a database of its own" in error_of_opening(url)
    assert list(schema_of(url)) == ["alembic_version"]


@pytest.mark.parametrize(
    "url, message",
    [
        ("postgresql://ann:secret@127.0.0.1:9/shop", "ann:***@127.0.0.1:9/shop: connection"),
        ("{}/file/shop.sqlite", "there is no shop in it"),
        ("{}/file", "file is not a database"),
        ("{}", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_opened_is_reported_on_one_line(
    url: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no database, but a text that is long enough" * 100)
    assert message in error_of_migration(url.format(tmp_path))


def test_a_locked_shop_is_reported_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "shop.sqlite")
    make_old_shop(path)
    monkeypatch.setattr("gpt2flow.agent.shop.database._BUSY_MILLISECONDS", 50)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert error_of_migration(path).endswith("database is locked")
    migrate(database_url(path))


def test_the_revision_of_this_program_is_the_newest_migration() -> None:
    config = Config()
    folder = Path(migration.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_REVISION]

"""Tests of `gpt2flow agent migrate`."""

import json
from pathlib import Path

import pytest
from tests.support.command_line import gpt2flow
from tests.support.old_shop import make_old_shop
from tests.support.postgresql import PostgresqlServer

from gpt2flow.agent.shop.database import SCHEMA_REVISION


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with an old shop, and a file that is no database."""
    make_old_shop(str(tmp_path / "gpt2flow.sqlite"))
    (tmp_path / "text.sqlite").write_text("no database, but a text that is long enough\n" * 100)
    return tmp_path


def test_an_old_database_is_refused_until_it_is_migrated_once(folder: Path) -> None:
    ask = ("agent", "ask", "hello", "--address", "127.0.0.1:9")
    code, _, err = gpt2flow(*ask, cwd=folder)
    assert code == 1
    assert "run `gpt2flow agent migrate --database gpt2flow.sqlite`" in err
    migrate = ("agent", "migrate", "--database", "gpt2flow.sqlite")
    expected = f"gpt2flow.sqlite: v0001 → {SCHEMA_REVISION}\n"
    assert gpt2flow(*migrate, cwd=folder) == (0, expected, "")
    expected = f"gpt2flow.sqlite: {SCHEMA_REVISION}, nothing to do\n"
    assert gpt2flow("agent", "migrate", cwd=folder) == (0, expected, "")
    code, _, err = gpt2flow(*ask, cwd=folder)
    assert "migrate" not in err


def test_the_revisions_of_a_postgresql_database_are_printed_as_json(
    postgresql: PostgresqlServer,
) -> None:
    with postgresql.database() as url:
        make_old_shop(url)
        code, out, err = gpt2flow("agent", "migrate", "--json", "--database", url)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found.pop("database").startswith("postgresql://gpt2flow@/test_")
    assert found == {"before": "v0001", "after": SCHEMA_REVISION}


@pytest.mark.parametrize(
    "database, code, message",
    [
        ("", 2, "the database is empty"),
        ("mysql://nowhere/shop", 2, "database 'mysql' is not supported; use sqlite or postgresql"),
        ("nowhere.sqlite", 1, "database nowhere.sqlite: there is no shop in it"),
        ("text.sqlite", 1, "database text.sqlite: file is not a database"),
        ("postgresql://ann:secret@127.0.0.1:9/shop", 1, "ann:***@127.0.0.1:9/shop: connection"),
    ],
)
def test_a_mistake_is_reported_on_one_line(
    database: str, code: int, message: str, folder: Path
) -> None:
    found, out, err = gpt2flow("agent", "migrate", "--database", database, cwd=folder)
    assert (found, out) == (code, "")
    assert err.startswith("gpt2flow: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "nowhere.sqlite").exists()


def test_help_describes_the_command() -> None:
    code, out, err = gpt2flow("agent", "migrate", "--help")
    assert (code, err) == (0, "")
    for text in ("--database", "--json", "GPT2FLOW_DATABASE", "Upgrade the schema"):
        assert text in out

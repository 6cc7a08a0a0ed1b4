"""Shop of before Alembic, and what a migration must keep of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, Table, create_engine, insert, inspect, text

from gpt2flow.agent.shop import database_url, migration

CREATED = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DUE = datetime(2026, 3, 5, 15, 0, tzinfo=UTC)
# Table of those shops that named the version of the schema.
OLD_TABLE = "schema_version"


def _message(number: int, contact: str | None) -> dict[str, Any]:
    return {
        "id": number,
        "key": f"k{number}",
        "session_id": "s",
        "customer_id": 1,
        "contact": contact,
        "flow": "order",
        "language": "en",
        "text": "It's 5 Oak Rd — 好的",
        "created_at": CREATED,
    }


def _case(number: int, kind: str, status: str, due: datetime | None = None) -> dict[str, Any]:
    return {
        "id": number,
        "kind": kind,
        "status": status,
        "session_id": "s",
        "customer_id": 1,
        "order_id": 1,
        "reason": "damaged",
        "amount": 1990,
        "due_at": due,
        "note": None,
        "created_at": CREATED,
    }


# Rows in the order of their foreign keys; money is in cents.
ROWS: dict[str, list[dict[str, Any]]] = {
    "couriers": [{"code": "NW", "name_en": "Northwind", "name_zh": "北风", "active": True}],
    "customers": [
        {
            "id": 1,
            "name": "Ann",
            "contact": "ann@example.com",
            "language": "en",
            "address": None,
            "created_at": CREATED,
        }
    ],
    "products": [
        {"sku": "kettle", "name_en": "kettle", "name_zh": "水壶", "price": 1990, "stock": 3}
    ],
    "orders": [
        {
            "id": 1,
            "customer_id": 1,
            "status": "delivered",
            "address": "5 Oak Rd",
            "total": 1990,
            "created_at": CREATED,
            "delivered_at": CREATED,
        }
    ],
    "order_lines": [{"order_id": 1, "sku": "kettle", "quantity": 1, "price": 1990}],
    "sessions": [
        {
            "id": "s",
            "customer_id": 1,
            "language": "en",
            "clarifications": 0,
            "past": [],
            "wanted": [{"action": "check_out", "arguments": {}, "message": "5 Oak Rd"}],
            "created_at": CREATED,
        }
    ],
    "cases": [
        _case(1, "refund", "open"),
        _case(2, "follow_up", "scheduled", DUE),
        _case(3, "return", "approved"),
        _case(4, "follow_up", "due", DUE),
    ],
    "outbox": [_message(1, None), _message(2, "ann@example.com")],
}


def make_old_shop(url: str, version: int = 2) -> None:
    """Fill an empty database with a shop of before Alembic.

    Args:
        url: URL or path of the database.
        version: Version of the schema that its table names.
    """
    engine = create_engine(database_url(url))
    with engine.begin() as connection:
        config = Config()
        folder = Path(migration.__file__).parent / "migrations"
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, "v0001")
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(text(f"CREATE TABLE {OLD_TABLE} (version INTEGER PRIMARY KEY)"))
        connection.execute(text(f"INSERT INTO {OLD_TABLE} VALUES ({version})"))  # noqa: S608
        for name, rows in ROWS.items():
            # Numbers are given by the database, which goes on counting.
            given = [{k: v for k, v in row.items() if (k, type(v)) != ("id", int)} for row in rows]
            connection.execute(insert(Table(name, MetaData(), autoload_with=connection)), given)
    engine.dispose()


def schema_of(url: str) -> dict[str, dict[str, object]]:
    """Return what the tables of a database are made of, by name.

    Names of constraints are left out: SQLite has none.
    """
    engine = create_engine(database_url(url))
    found = inspect(engine)
    columns, primary_keys = found.get_multi_columns(), found.get_multi_pk_constraint()
    foreign_keys, unique = found.get_multi_foreign_keys(), found.get_multi_unique_constraints()
    indexes, checks = found.get_multi_indexes(), found.get_multi_check_constraints()
    engine.dispose()
    return {
        key[1]: {
            "columns": {
                each["name"]: (str(each["type"]), each["nullable"], each["default"])
                for each in columns[key]
            },
            "primary key": primary_keys[key]["constrained_columns"],
            "foreign keys": sorted(
                f"{each['constrained_columns']} {each['referred_table']} {each['referred_columns']}"
                for each in foreign_keys[key]
            ),
            "unique": sorted(each["column_names"] for each in unique[key]),
            "indexes": sorted(
                f"{each['name']} {each['column_names']} {each['unique']}" for each in indexes[key]
            ),
            "checks": sorted(each["sqltext"] for each in checks[key]),
        }
        for key in columns
    }


def rows_of(url: str, columns: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
    """Return the rows of a database by table.

    Args:
        url: URL or path of the database.
        columns: Columns to return by table; None is all of all tables.
    """
    engine, rows = create_engine(database_url(url)), {}
    with engine.connect() as connection:
        for name in columns or inspect(connection).get_table_names():
            wanted = ", ".join(f'"{each}"' for each in (columns or {}).get(name, [])) or "*"
            found = connection.execute(text(f'SELECT {wanted} FROM "{name}"'))  # noqa: S608
            rows[name] = sorted(map(str, found))
    engine.dispose()
    return rows

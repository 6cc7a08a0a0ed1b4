"""Collects which rows a transaction wrote, for the report of an action."""

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from sqlalchemy import event, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session

from gpt2flow.agent.report import RowChange
from gpt2flow.agent.shop import Base, ExecutedAction, ModelCall, OutboxMessage

# The agent's own records; the report holds what they say.
_RECORDS = (ExecutedAction, ModelCall, OutboxMessage)


def collect_changes(db: Session, changes: list[RowChange]) -> None:
    """Append to `changes` every row that the session writes from now on."""

    def after_flush(session: Session, context: object) -> None:
        del context
        _note_all(changes, session.new, "insert")
        _note_all(changes, session.dirty, "update")
        _note_all(changes, session.deleted, "delete")

    event.listen(db, "after_flush", after_flush)


def merged(changes: list[RowChange]) -> list[RowChange]:
    """One change a row, with the last values, in the order of the first ones."""
    by_row: dict[tuple[str, str], RowChange] = {}
    for change in changes:
        row = (change.table, repr(change.key))
        before = by_row.get(row)
        if before is None or change.change == "delete":
            by_row[row] = change
        else:
            values = before.values | change.values
            by_row[row] = before.model_copy(update={"values": values})
    return list(by_row.values())


def _note_all(
    changes: list[RowChange],
    rows: Any,
    kind: Literal["insert", "update", "delete"],
) -> None:
    noted = [_change(row, kind) for row in rows if not isinstance(row, _RECORDS)]
    changes += sorted(
        (change for change in noted if change.values or kind == "delete"),
        key=lambda change: (change.table, repr(change.key)),
    )


def _change(row: Base, kind: Literal["insert", "update", "delete"]) -> RowChange:
    state: InstanceState[Base] = inspect(row)
    mapper: Mapper[Base] = state.mapper
    key = mapper.primary_key_from_instance(row)
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return RowChange(
        table=row.__tablename__,
        key=dict(zip(names, map(_plain, key), strict=True)),
        change=kind,
        values={} if kind == "delete" else _values(state, kind),
    )


def _values(state: InstanceState[Base], kind: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for attribute in state.mapper.column_attrs:
        column, history = attribute.columns[0], state.attrs[attribute.key].history
        if column.primary_key or column.info.get("private"):
            continue
        value = state.dict.get(attribute.key)
        if history.has_changes() or (kind == "insert" and value is not None):
            values[attribute.key] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    match value:
        case Enum():
            return value.value
        case Decimal():
            return str(value)
        case date():
            return value.isoformat()
        case _:
            return value

"""Rows that an action writes, for its report, and its own record."""

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from sqlalchemy import event, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session

from gpt2flow.agent.operations import Context
from gpt2flow.agent.report import RowChange, Step
from gpt2flow.agent.shop import Base, ExecutedAction, ModelCall, OutboxMessage

# Tables of the agent's own records, whose content the report already holds.
_RECORDS = (ExecutedAction, ModelCall, OutboxMessage)


def collect_changes(db: Session, changes: list[RowChange]) -> None:
    """Append every row that the session writes from now on to `changes`."""

    def after_flush(session: Session, context: object) -> None:
        del context
        _append_changes(changes, session.new, "insert")
        _append_changes(changes, session.dirty, "update")
        _append_changes(changes, session.deleted, "delete")

    event.listen(db, "after_flush", after_flush)


def merge_changes(changes: list[RowChange]) -> list[RowChange]:
    """Merge changes to one per row, in the order of first changes."""
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


def keep_step(context: Context, step: Step) -> None:
    """Write the record that makes an action idempotent."""
    report = step.report
    context.db.add(
        ExecutedAction(
            key=context.key,
            session_id=context.session.id,
            action=report.action,
            arguments=dict(report.used),
            outcome=report.outcome,
            result=report.result,
            step=step.model_dump(mode="json"),
            created_at=context.now,
        )
    )


def _append_changes(
    changes: list[RowChange],
    rows: Any,
    kind: Literal["insert", "update", "delete"],
) -> None:
    new = [_change(row, kind) for row in rows if not isinstance(row, _RECORDS)]
    changes += sorted(
        (change for change in new if change.values or kind == "delete"),
        key=lambda change: (change.table, repr(change.key)),
    )


def _change(row: Base, kind: Literal["insert", "update", "delete"]) -> RowChange:
    state: InstanceState[Base] = inspect(row)
    mapper: Mapper[Base] = state.mapper
    key = mapper.primary_key_from_instance(row)
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return RowChange(
        table=row.__tablename__,
        key=dict(zip(names, map(_to_json, key), strict=True)),
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
            values[attribute.key] = _to_json(value)
    return values


def _to_json(value: Any) -> Any:
    """Return a column value as a JSON value."""
    match value:
        case Enum():
            return value.value
        case Decimal():
            return str(value)
        case date():
            return value.isoformat()
        case _:
            return value

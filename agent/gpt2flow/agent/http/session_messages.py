"""Messages to a conversation, in pages."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.shop import Audience, Delivery, OutboxMessage

# Messages of an answer.
PAGE = 100
# On PostgreSQL, ids are not committed in their order: a message may become visible after one with a
# larger id. Only messages that are older than any transaction are therefore passed for good.
_SETTLED = timedelta(seconds=10)


class SessionMessage(BaseModel):
    """Message to a conversation.

    Attributes:
        id: Number of the message; larger ones are newer.
        case: Number of the case that the message is about.
        in_report: Whether the report of a turn has the message too.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    language: str
    text: str
    case: str | None
    in_report: bool
    created_at: datetime


class SessionMessages(BaseModel):
    """Messages to a conversation, oldest first.

    Attributes:
        after: Value of `after` for the next request. Messages of the last seconds come again then.
    """

    model_config = ConfigDict(frozen=True)

    messages: Sequence[SessionMessage]
    after: int


def read_messages(reader: ShopReader, session: str, after: int, now: datetime) -> SessionMessages:
    """Return messages to the customer that the conversation itself delivers.

    Args:
        reader: Reader of the database.
        session: Id of the conversation.
        after: Id of the last message that is not wanted.
        now: Current time.

    Raises:
        DatabaseError: The database cannot be read.
    """
    query = (
        select(OutboxMessage)
        .where(
            OutboxMessage.session_id == session,
            OutboxMessage.contact.is_(None),
            OutboxMessage.audience == Audience.CUSTOMER,
            OutboxMessage.id > after,
        )
        .order_by(OutboxMessage.id)
        .limit(PAGE)
    )
    with reader.reading() as db:
        rows = list(db.scalars(query))
    # A full page ends before the newest messages, so its last one need not come again.
    settled = [r.id for r in rows if len(rows) == PAGE or r.created_at <= now - _SETTLED]
    return SessionMessages(
        messages=[_session_message(row) for row in rows], after=max(settled, default=after)
    )


def _session_message(row: OutboxMessage) -> SessionMessage:
    return SessionMessage(
        id=row.id,
        language=row.language,
        text=row.text,
        case=None if row.case_id is None else f"C-{row.case_id}",
        in_report=row.delivery is Delivery.ANSWERED,
        created_at=row.created_at,
    )

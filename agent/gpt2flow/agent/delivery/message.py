"""Messages on their way out, and what sends them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from gpt2flow.agent.errors import AgentError
from gpt2flow.agent.shop import Audience, Case, OutboxMessage

_MAX_ERROR_CHARACTERS = 300


@dataclass(frozen=True)
class OutgoingMessage:
    """Message of the outbox as transports see it.

    Attributes:
        key: Idempotency key, the same in every attempt.
        case: Number of the case that the message is about, such as `C-7`.
        attempts: Number of attempts that have failed.
        trace: `traceparent` of the span that wrote the message; None without traces.
    """

    id: int
    key: str
    audience: Audience
    session: str | None
    contact: str | None
    language: str
    text: str
    case: str | None
    flow: str
    attempts: int
    created_at: datetime
    trace: str | None

    @classmethod
    def from_row(cls, row: OutboxMessage) -> Self:
        """Return the message of a row."""
        return cls(
            id=row.id,
            key=row.key,
            audience=row.audience,
            session=row.session_id,
            contact=row.contact,
            language=row.language,
            text=row.text,
            case=None if row.case_id is None else Case(id=row.case_id).number,
            flow=row.flow,
            attempts=row.attempts,
            created_at=row.created_at,
            trace=row.trace,
        )

    def payload(self) -> dict[str, Any]:
        """Return the JSON object of webhooks and files, constant over attempts."""
        return {
            "type": f"message.{self.audience}",
            "timestamp": self.created_at.isoformat(),
            "data": {
                "key": self.key,
                "session": self.session,
                "contact": self.contact,
                "language": self.language,
                "text": self.text,
                "case": self.case,
                "flow": self.flow,
            },
        }


class DeliveryError(AgentError):
    """Failed attempt to send a message.

    Args:
        reason: What happened; characters that no terminal should get are replaced.
        is_permanent: Whether another attempt cannot succeed.
        retry_after: Least seconds until the next attempt, as the receiver asked.
    """

    def __init__(
        self, reason: str, *, is_permanent: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(printable(" ".join(reason.split()))[:_MAX_ERROR_CHARACTERS])
        self.is_permanent = is_permanent
        self.retry_after = retry_after


class Transport(Protocol):
    """Way to send messages.

    Attributes:
        name: Name in log, metrics and traces.
    """

    name: str

    async def send(self, message: OutgoingMessage) -> None:
        """Send a message; return once the receiver has taken it.

        Raises:
            DeliveryError: The receiver did not take it, or may not have.
        """

    async def close(self) -> None:
        """Close connections."""


def printable(text: str) -> str:
    """Replace control characters other than line breaks."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)

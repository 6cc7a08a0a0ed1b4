"""Records of executed actions, model calls and agent processes."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.tables.base import Base


class ExecutedAction(Base):
    """Executed action, written in the transaction of its effects.

    The key makes the effects idempotent: a second attempt returns `step` instead.
    """

    __tablename__ = "executed_actions"

    key: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str | None] = mapped_column(index=True)
    action: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    outcome: Mapped[str | None]
    result: Mapped[str]
    step: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class ModelCall(Base):
    """Model call: prompt, grammar of the answer, and answer.

    Attributes:
        confidence: Probability that the model gave the answer, from 0 to 1; None for calls from
            before it was recorded.
    """

    __tablename__ = "model_calls"

    key: Mapped[str] = mapped_column(primary_key=True)
    prompt: Mapped[str]
    constraint: Mapped[str]
    output: Mapped[str]
    milliseconds: Mapped[float]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    fingerprint: Mapped[str]
    confidence: Mapped[float | None]
    created_at: Mapped[datetime]


class AgentProcess(Base):
    """Running agent process, on PostgreSQL.

    Attributes:
        executor_id: Id under which DBOS records the work of the process.
        version: Version of its workflows.
        seen_at: Time of its latest sign of life, by the clock of the database.
    """

    __tablename__ = "agent_processes"

    executor_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    seen_at: Mapped[datetime]


def turn_id(session: str, message_id: str) -> str:
    """Return a unique id of a session's message, for any characters."""
    return f"{turn_prefix(session)}{quote(message_id, safe='')}"


def turn_prefix(session: str) -> str:
    """Return the prefix of the ids of a session's turns alone."""
    return f"{quote(session, safe='')}/"

"""What the agent did, and what the model was asked and answered."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.base import Base


class ExecutedAction(Base):
    """An action that was carried out.

    It is written in the transaction of its effects, so its key guards them: a
    second attempt finds it and returns `step` again.
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
    """One question to the model: the prompt, what it might answer, what it did."""

    __tablename__ = "model_calls"

    key: Mapped[str] = mapped_column(primary_key=True)
    prompt: Mapped[str]
    constraint: Mapped[str]
    output: Mapped[str]
    milliseconds: Mapped[float]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    fingerprint: Mapped[str]
    created_at: Mapped[datetime]

"""Agent processes on one database."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.base import Base


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

"""The agent's settings, made once at the edge."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gpt2flow.agent.errors import InputError
from gpt2flow.client import Security

# An aware instant; tests and replays bring their own.
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one agent.

    Attributes:
        address: `host:port` of the model's server.
        model: name of the model; empty is the server's first.
        database: URL of the shop's database, or the path of an SQLite file.
        flows: folder of the flows; None is the one that ships.
        timeout: seconds that one answer of the model may take.
        security: TLS and token of the connection to the server.
    """

    address: str = "127.0.0.1:50051"
    model: str = ""
    database: str = "gpt2flow.sqlite"
    flows: Path | None = None
    timeout: float = 30.0
    security: Security = field(default_factory=Security)

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: a setting is not usable.
        """
        if not self.address.strip():
            raise InputError("the server has no address")
        if not 0 < self.timeout < float("inf"):
            raise InputError(f"the timeout is {self.timeout} s; it must be above 0")

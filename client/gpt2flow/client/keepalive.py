"""Keepalive settings of a connection."""

from dataclasses import dataclass

from gpt2flow.client import validation
from gpt2flow.client.errors import SettingsError

_SHORTEST, _LONGEST = 0.1, 86400.0


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """Detection of dead connections by HTTP/2 pings.

    A dead connection carries no traffic although neither side has closed it: for example
    after a cable was unplugged. Its calls fail with `UnavailableError` at most
    `seconds` + `timeout` after the last traffic.

    Attributes:
        seconds: Seconds without traffic during a call before the client pings the server.
            From 0.1 to 86,400.
        timeout: Seconds that the server has to acknowledge a ping. From 0.1 to 86,400.

    Raises:
        SettingsError: A value is out of range.
    """

    seconds: float = 60.0
    timeout: float = 20.0

    def __post_init__(self) -> None:
        """Raise SettingsError if a value is out of range."""
        for name, value in (("seconds", self.seconds), ("timeout", self.timeout)):
            if not _SHORTEST <= validation.number(f"keepalive {name}", value) <= _LONGEST:
                raise SettingsError(
                    f"keepalive {name} is {value:g}, must be {_SHORTEST:g} to {_LONGEST:g}"
                )

"""How a client finds out that its connection is dead."""

from dataclasses import dataclass

from gpt2flow.client.errors import SettingsError

_SHORTEST, _LONGEST = 0.1, 86400.0


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """Finds a connection that nobody closed and on which nothing comes any more.

    Its calls end with UNAVAILABLE, `seconds` and `timeout` after the last traffic at most.

    Attributes:
        seconds: After so long without traffic under a call, the server is asked whether it is
            there.
        timeout: Seconds that it has to answer.
    """

    seconds: float = 60.0
    timeout: float = 20.0

    def __post_init__(self) -> None:
        """Raise SettingsError when a value is out of its range."""
        for name, value in (("seconds", self.seconds), ("timeout", self.timeout)):
            if not _SHORTEST <= value <= _LONGEST:
                raise SettingsError(
                    f"keepalive {name} is {value:g}, must be {_SHORTEST:g} to {_LONGEST:g}"
                )

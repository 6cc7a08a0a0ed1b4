"""Bearer tokens of the server's callers."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gpt2flow.files.tokens import TokenEntry, find_entry, read_token_file
from gpt2flow.server.access.permissions import Caller
from gpt2flow.server.errors import ConfigError, UnauthenticatedError


class Tokens:
    """Tokens and their callers."""

    def __init__(
        self,
        entries: Sequence[TokenEntry],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._entries = entries
        self._clock = clock

    def caller_of(self, token: str) -> Caller:
        """Return the caller of a token.

        Raises:
            UnauthenticatedError: The token is unknown or has expired.
        """
        entry = find_entry(self._entries, token)
        if entry is None:
            raise UnauthenticatedError("the token is unknown")
        if entry.expires is not None and self._clock() >= entry.expires:
            raise UnauthenticatedError(f"the token of {entry.name!r} has expired")
        return Caller(
            entry.name,
            models=None if entry.models is None else frozenset(entry.models),
            max_requests=entry.max_requests,
            max_priority=entry.max_priority,
            max_new_tokens=entry.max_new_tokens,
            max_candidates=entry.max_candidates,
            max_beams=entry.max_beams,
            manage_models=entry.manage_models,
        )


def read_tokens(path: Path) -> Tokens:
    """Read a file of tokens.

    Raises:
        ConfigError: The file is unreadable or invalid; the error names file, entry and field.
    """
    return Tokens(read_token_file(path, ConfigError))

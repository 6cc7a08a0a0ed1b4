"""People of the file of tokens, read again when it changes."""

from pathlib import Path
from typing import Final

from gpt2flow.agent.cases.people import NotAllowedError, Person, person_of
from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import InputError
from gpt2flow.files.tokens import TokenEntry, find_entry, read_token_file, token_digest

_Stamp = tuple[int, int, int]
_MAX_TOKEN: Final = 1000


class People:
    """People who may use a website of the shop.

    Args:
        path: File of tokens.
        clock: Source of the current time.

    Raises:
        InputError: The file is unreadable or invalid.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._stamp: _Stamp | None = None
        self._entries: list[TokenEntry] = []
        self._read()

    def sign_in(self, token: str) -> tuple[Person, str]:
        """Return the holder of a token, and the token's digest.

        Raises:
            NotAllowedError: The token is unknown or has expired, or is no person's.
            InputError: The file is unreadable or invalid.
        """
        self._read()
        entry = find_entry(self._entries, token[:_MAX_TOKEN])
        if entry is None:
            raise NotAllowedError("the token is unknown")
        return person_of(entry, self._path, self._clock()), token_digest(token)

    def resume(self, name: str, digest: str) -> Person | None:
        """Return a person who signed in, by the file's present entry.

        None if the token is not theirs any more, has expired, or the file cannot be read.
        """
        try:
            self._read()
            for entry in self._entries:
                if entry.name == name and digest in entry.sha256:
                    return person_of(entry, self._path, self._clock())
        except InputError:
            return None
        return None

    def names(self) -> list[str]:
        """Return the names of the people who may handle cases, sorted."""
        now = self._clock()
        return sorted(
            entry.name
            for entry in self._entries
            if entry.may is not None and (entry.expires is None or now < entry.expires)
        )

    def _read(self) -> None:
        """Read the file unless it is the one that was read last."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            stamp = None
        if stamp is None or stamp != self._stamp:
            self._entries = read_token_file(self._path, InputError)
            self._stamp = stamp

"""The bearer token, as it is now."""

import os
from pathlib import Path

from gpt2flow.client.errors import SettingsError

# Of a file: which one it is, when it was written, and how long it is.
_Version = tuple[int, int, int]


class TokenSource:
    """Gives the token of each call.

    Args:
        token: The token, or the file that holds it.

    Raises:
        SettingsError: It is not usable, or cannot be read.
    """

    def __init__(self, token: str | Path) -> None:
        self._file = token if isinstance(token, Path) else None
        self._version: _Version | None = None
        if isinstance(token, Path):
            try:
                self._version, self._token = _read(token)
            except OSError as error:
                raise SettingsError(f"token: cannot read {token}: {error.strerror}") from error
        else:
            self._token = _checked(token, "token")

    def current(self) -> str:
        """Return the token; of a file that has become unusable, the last one that was good.

        It is for the server to say when that one is not good any more.
        """
        if self._file is not None:
            try:
                if _version(self._file.stat()) != self._version:
                    self._version, self._token = _read(self._file)
            except (OSError, SettingsError):
                # Being replaced, perhaps; the next call looks again.
                self._version = None
        return self._token


def _read(path: Path) -> tuple[_Version, str]:
    with path.open("rb") as file:
        version = _version(os.fstat(file.fileno()))
        return version, _checked(file.read().decode("ascii", "replace").strip(), f"token of {path}")


def _version(status: os.stat_result) -> _Version:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _checked(token: str, what: str) -> str:
    """Return a token that can travel in metadata; the text of a bad one is not shown."""
    if not token:
        raise SettingsError(f"{what} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SettingsError(f"{what} must be printable ASCII without blanks, on one line")
    return token

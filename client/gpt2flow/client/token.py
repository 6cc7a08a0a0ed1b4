"""Bearer token of a client, fixed or read from a file."""

import os
from pathlib import Path

from gpt2flow.client.errors import SettingsError

# Inode, modification time in nanoseconds, and size in bytes: they identify a file's content.
_FileVersion = tuple[int, int, int]


class TokenSource:
    """Source of the bearer token of each call.

    Args:
        token: The token, or the path of a file that holds it.

    Raises:
        SettingsError: The token is invalid, or its file cannot be read.
    """

    def __init__(self, token: str | Path) -> None:
        self._file = token if isinstance(token, Path) else None
        self._version: _FileVersion | None = None
        if isinstance(token, Path):
            try:
                self._version, self._token = _read(token)
            except OSError as error:
                raise SettingsError(f"token: cannot read {token}: {error.strerror}") from error
            except SettingsError:
                raise
            except ValueError as error:  # A path with a null character.
                raise SettingsError(f"token: cannot read {str(token)!r}: {error}") from error
        else:
            self._token = _valid_token(token, "token")

    def current(self) -> str:
        """Return the current token.

        A changed file is read again. While the file is missing or invalid, the last valid
        token is returned. The server decides when to reject that one.
        """
        if self._file is not None:
            try:
                if _file_version(self._file.stat()) != self._version:
                    self._version, self._token = _read(self._file)
            except (OSError, SettingsError):
                # The file may be in the middle of its replacement: the next call tries again.
                self._version = None
        return self._token


def _read(path: Path) -> tuple[_FileVersion, str]:
    with path.open("rb") as file:
        version = _file_version(os.fstat(file.fileno()))
        token = file.read().decode("ascii", "replace").strip()
    return version, _valid_token(token, f"token of {path}")


def _file_version(status: os.stat_result) -> _FileVersion:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _valid_token(token: str, name: str) -> str:
    """Return the token if it is valid in gRPC metadata.

    Error messages use `name`, never the token's text.
    """
    if not token:
        raise SettingsError(f"{name} is empty")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SettingsError(f"{name} must be printable ASCII without blanks, on one line")
    return token

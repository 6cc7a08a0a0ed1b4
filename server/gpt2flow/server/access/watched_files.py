"""Content of files that is reloaded when they change."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from gpt2flow.server.errors import ConfigError

_T = TypeVar("_T")
_Stamp = tuple[tuple[int, int, int] | None, ...]

# Attempts to read files that change in the meantime.
_ATTEMPTS = 3


class WatchedFiles(Generic[_T]):
    """Content of files, reloaded on access when they have changed.

    An access costs one `stat` per file; there is no timer. If the changed files are unusable, the
    previous content stays, and the log holds the reason. For any thread.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], _T]) -> None:
        """Read the files for the first time.

        Args:
            paths: Files to watch.
            load: Function that reads them; it raises ConfigError if they are unusable.

        Raises:
            ConfigError: The files are unusable.
        """
        self._paths = paths
        self._load = load
        self._lock = threading.Lock()
        self._log = structlog.get_logger().bind(files=[str(path) for path in paths])
        self._stamp, self._value = self._read()

    def get(self) -> _T:
        """Return the content of the files, or the last usable one."""
        with self._lock:
            stamp = _stamp(self._paths)
            if stamp != self._stamp:
                # Logged once per change, not at every access.
                self._stamp = stamp
                try:
                    self._stamp, self._value = self._read()
                except ConfigError as error:
                    self._log.error("reload_failed", reason=str(error))
                else:
                    self._log.info("reloaded")
            return self._value

    def _read(self) -> tuple[_Stamp, _T]:
        """Return the stamp of the files, and the content at that stamp."""
        for _ in range(_ATTEMPTS):
            stamp = _stamp(self._paths)
            value = self._load()
            if stamp == _stamp(self._paths):
                return stamp, value
        raise ConfigError(f"{', '.join(map(str, self._paths))}: changes while it is read")


def _stamp(paths: Sequence[Path]) -> _Stamp:
    return tuple(map(_state, paths))


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

"""Files that are read again when they change."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from gpt2flow.server.errors import ConfigError

_T = TypeVar("_T")
_Stamp = tuple[tuple[int, int, int] | None, ...]

# Files that change while they are read are read again, so often.
_ATTEMPTS = 3


class WatchedFiles(Generic[_T]):
    """What was read from files, always of their present state.

    Asking costs a `stat` of each file, so no timer is needed. Files that became
    unusable change nothing: what was read before stays, and the log says why.
    May be used from any thread.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], _T]) -> None:
        """Read the files for the first time.

        Args:
            paths: What is watched.
            load: Reads them; raises ConfigError where they are not usable.

        Raises:
            ConfigError: They are not usable.
        """
        self._paths = paths
        self._load = load
        self._lock = threading.Lock()
        self._log = structlog.get_logger().bind(files=[str(path) for path in paths])
        self._stamp, self._value = self._read()

    def get(self) -> _T:
        """Return what the files hold, or held when they were last usable."""
        with self._lock:
            stamp = _stamp(self._paths)
            if stamp != self._stamp:
                # Said once for each change, not at every call.
                self._stamp = stamp
                try:
                    self._stamp, self._value = self._read()
                except ConfigError as error:
                    self._log.error("reload_failed", reason=str(error))
                else:
                    self._log.info("reloaded")
            return self._value

    def _read(self) -> tuple[_Stamp, _T]:
        """Return what one state of the files holds, and that state."""
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

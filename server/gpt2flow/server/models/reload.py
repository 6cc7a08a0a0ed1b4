"""Reload of the settings and the models of a running server."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import structlog

from gpt2flow.server.config.settings import ServerConfig
from gpt2flow.server.errors import ServerError
from gpt2flow.server.models.registry import Registry

_POLL_SECONDS = 1.0
# Settings that a reload applies; others need a restart.
_RELOADABLE = frozenset({"models", "engine"})

# Inode, size and modification time, by file.
_Stamp = dict[Path, tuple[int, int, int]]


class Reloader:
    """Reloader of settings, on request and when a watched file changes."""

    def __init__(
        self,
        registry: Registry,
        config: ServerConfig,
        read: Callable[[], ServerConfig],
        file: Path | None,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        """Prepare; `run` watches.

        Args:
            registry: Registry of the models that are served.
            config: Settings that the server runs with.
            read: Function that reads the settings again.
            file: File to watch together with bundles and lists; None watches nothing.
            poll_seconds: Time between two checks of the files.
        """
        self._registry = registry
        self._config = config
        self._read = read
        self._file = file
        self._poll_seconds = None if file is None else poll_seconds
        self._watched = _paths(config)
        self._triggered = asyncio.Event()
        self._log = structlog.get_logger()

    def trigger(self) -> None:
        """Request a reload of the settings and the bundles."""
        self._triggered.set()

    async def run(self) -> None:
        """Watch until cancelled; errors are logged, and the models stay."""
        applied = before = await self._stamp()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._triggered.wait()
            now = await self._stamp()
            # Files that differ between two checks may still be written.
            if self._triggered.is_set() or (now != applied and now == before):
                self._triggered.clear()
                applied = await self._reload(now)
            before = now

    async def _reload(self, now: _Stamp | None = None) -> _Stamp:
        """Reload; return the state of the files before they were read.

        Args:
            now: State of the files that were watched so far; None is unknown.
        """
        stamp = known = now or {}
        try:
            config = await asyncio.to_thread(self._read)
            self._watched = _paths(config)
            fresh = await self._stamp()
            stamp = {path: known.get(path, facts) for path, facts in fresh.items()}
            changes = await self._registry.apply(config.model_configs)
        except ServerError as error:
            self._log.error("reload_failed", reason=str(error))
            return stamp
        except Exception:  # noqa: BLE001 - the server survives any failure
            self._log.exception("reload_failed")
            return stamp
        self._log.info("reloaded", **dataclasses.asdict(changes))
        if others := _other_changes(self._config, config):
            self._log.warning("needs_restart", settings=others)
        return stamp

    async def _stamp(self) -> _Stamp:
        if self._file is None:
            return {}
        return await asyncio.to_thread(_stamp, self._file, self._watched)


def _paths(config: ServerConfig) -> list[Path]:
    """Return the directories of bundles, and the files of lists."""
    models = config.model_configs.values()
    return [
        *(model.path for model in models),
        *(path for model in models for path in model.engine.choices.values()),
    ]


def _other_changes(old: ServerConfig, new: ServerConfig) -> list[str]:
    """Return the settings that differ, and that a reload does not apply."""
    names = [name for name in ServerConfig.model_fields if name not in _RELOADABLE]
    changed = [name for name in names if getattr(old, name) != getattr(new, name)]
    # gRPC reads this one limit of the requests when the server starts.
    if old.engine.requests.message_bytes != new.engine.requests.message_bytes:
        changed.append("engine.requests.message_bytes")
    return changed


def _stamp(file: Path, watched: Iterable[Path]) -> _Stamp:
    """Return a stamp that changes if a file is changed or replaced."""
    paths = [file, *(path for each in watched for path in _files(each))]
    return {path: _facts(path) for path in paths}


def _files(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the files of a directory."""
    try:
        yield from path.iterdir()
    except NotADirectoryError:
        yield path
    except OSError:
        return


def _facts(path: Path) -> tuple[int, int, int]:
    try:
        facts = path.stat()
    except OSError:
        return 0, 0, 0
    return facts.st_ino, facts.st_size, facts.st_mtime_ns

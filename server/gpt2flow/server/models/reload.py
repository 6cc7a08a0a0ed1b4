"""Makes a running server serve what its settings have come to say."""

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
# Settings that say which models are served and how.
_OF_MODELS = frozenset({"models", "engine"})

# By file: inode, size, time of change.
_Stamp = dict[Path, tuple[int, int, int]]


class Reloader:
    """Reads the settings again when it is asked to, and when their file or a bundle changes."""

    def __init__(
        self,
        registry: Registry,
        config: ServerConfig,
        read: Callable[[], ServerConfig],
        file: Path | None,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        """Prepares; `run` watches.

        Args:
            registry: Of the models that are served.
            config: The settings that the server runs with.
            read: Reads them again.
            file: What is watched together with the bundles; without one, nothing is.
            poll_seconds: Between two looks.
        """
        self._registry = registry
        self._config = config
        self._read = read
        self._file = file
        self._poll_seconds = None if file is None else poll_seconds
        self._bundles = _paths(config)
        self._asked = asyncio.Event()
        self._log = structlog.get_logger()

    def ask(self) -> None:
        """Has the settings and the bundles read soon."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until it is cancelled. What goes wrong is logged, and the old models go on."""
        applied = before = await self._stamp()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._asked.wait()
            now = await self._stamp()
            # What changes between two looks is not whole yet.
            if self._asked.is_set() or (now != applied and now == before):
                self._asked.clear()
                await self._reload()
                # Of files that are watched from now on, the present state is what was read.
                fresh = await self._stamp()
                applied = {path: now.get(path, facts) for path, facts in fresh.items()}
            before = now

    async def _reload(self) -> None:
        try:
            config = await asyncio.to_thread(self._read)
            self._bundles = _paths(config)
            changes = await self._registry.apply(config.model_configs)
        except ServerError as error:
            self._log.error("reload_failed", reason=str(error))
            return
        except Exception:  # noqa: BLE001 - whatever it is, the server must live on
            self._log.exception("reload_failed")
            return
        self._log.info("reloaded", **dataclasses.asdict(changes))
        if others := _other_changes(self._config, config):
            self._log.warning("needs_restart", settings=others)

    async def _stamp(self) -> _Stamp:
        if self._file is None:
            return {}
        return await asyncio.to_thread(_stamp, self._file, self._bundles)


def _paths(config: ServerConfig) -> list[Path]:
    return [model.path for model in config.model_configs.values()]


def _other_changes(old: ServerConfig, new: ServerConfig) -> list[str]:
    """Names the settings that differ and do not belong to models."""
    names = [name for name in ServerConfig.model_fields if name not in _OF_MODELS]
    return [name for name in names if getattr(old, name) != getattr(new, name)]


def _stamp(file: Path, bundles: Iterable[Path]) -> _Stamp:
    """Return what changes when one of the files does, or another takes its place."""
    paths = [file, *(path for bundle in bundles for path in _files(bundle))]
    return {path: _facts(path) for path in paths}


def _files(bundle: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from bundle.iterdir()


def _facts(path: Path) -> tuple[int, int, int]:
    try:
        facts = path.stat()
    except OSError:
        return 0, 0, 0
    return facts.st_ino, facts.st_size, facts.st_mtime_ns

"""Registry of the models of one server, which change while it serves."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from gpt2flow.server.bundle.manifest import load_bundle
from gpt2flow.server.config.settings import ModelConfig
from gpt2flow.server.errors import (
    BrokenModelError,
    DrainingError,
    LoadingError,
    ModelNotFoundError,
    UnloadedError,
)
from gpt2flow.server.grammar.stored_choices import files_digest
from gpt2flow.server.models.loading import load_model
from gpt2flow.server.models.memory import trim
from gpt2flow.server.models.model import Model


class Lease:
    """Lease of a model by one request, which keeps it loaded."""

    def __init__(self, loaded: "_Loaded") -> None:
        self._loaded: _Loaded | None = loaded
        loaded.users += 1
        loaded.unused.clear()

    def release(self) -> None:
        """End the use, and drop the reference to the model."""
        if self._loaded is not None:
            self._loaded.users -= 1
            if not self._loaded.users:
                self._loaded.unused.set()
            self._loaded = None


@dataclass(eq=False, slots=True)
class _Loaded:
    """Loaded model and the number of requests that use it.

    Attributes:
        model: The model.
        config: Its settings.
        choices_digest: Digest of the files of its lists of choices.
        users: Number of requests.
        unused: Event that is set while there is none.
    """

    model: Model
    config: ModelConfig
    choices_digest: str
    users: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.unused.set()


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes made by a new set of models, by name."""

    added: list[str]
    replaced: list[str]
    removed: list[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed)


class Registry:
    """Registry of the models of a server, by name.

    All methods are for the event loop's thread; models load in another one.

    Attributes:
        draining: Whether new requests are refused.
        closed: Whether all models have ended.
    """

    def __init__(self, names: Iterable[str], drain_seconds: float) -> None:
        """Start without a model.

        Args:
            names: Names of the models to be loaded, the default first.
            drain_seconds: Time for requests to end on a model that is replaced or unloaded.
        """
        self._drain_seconds = drain_seconds
        self._loading = list(names)
        self._loaded: dict[str, _Loaded] = {}
        # Settings in use, of models that were taken out of service too.
        self._configs: dict[str, ModelConfig] = {}
        self._unloaded: set[str] = set()
        self._changing = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], list[_Loaded]] = {}
        self._changed = asyncio.Event()
        self.draining = False
        self.closed = False

    @property
    def models(self) -> list[Model]:
        """Loaded models; the first is the default."""
        return [loaded.model for loaded in self._loaded.values()]

    @property
    def names(self) -> list[str]:
        """Names of the configured models, the default first, loaded or not."""
        return list(self._configs or self._loading)

    @property
    def default(self) -> str:
        """Name of the default model; empty if there is none."""
        return next(iter(self.names), "")

    @property
    def ready(self) -> bool:
        """True if all models serve requests."""
        return bool(self._loaded) and all(map(self.model_ready, self._loaded))

    def model_ready(self, name: str) -> bool | None:
        """Return whether a model serves requests; None if it does not exist."""
        if name in self._loaded:
            return self._loaded[name].model.engine.healthy and not self.draining
        return False if name in self._loading or name in self._unloaded else None

    async def changed(self) -> None:
        """Wait for the next change of readiness."""
        await self._changed.wait()

    def lease(self, name: str) -> tuple[Model, Lease]:
        """Return a model, and a lease that the caller must release.

        Args:
            name: Name of the model; empty for the default.

        Raises:
            DrainingError: The server is shutting down.
            LoadingError: The model is still loading.
            UnloadedError: The model was taken out of service.
            BrokenModelError: The model has failed, and was not reloaded since.
            ModelNotFoundError: No model has this name.
        """
        if self.draining:
            raise DrainingError("the server is shutting down")
        name = name or self.default
        if name in self._loaded:
            if self._loaded[name].model.engine.broken:
                raise BrokenModelError(name)
            return self._loaded[name].model, Lease(self._loaded[name])
        if name in self._loading:
            raise LoadingError(f"model {name!r} is loading")
        if name in self._unloaded:
            raise UnloadedError(name)
        raise ModelNotFoundError(name, list(self._loaded))

    async def apply(self, configs: Mapping[str, ModelConfig]) -> Changes:
        """Replace the models by others; on an error, keep the present ones.

        A model is kept if its path, its fingerprint, its engine's settings and its lists of
        choices are the same, unless it is broken or failing. Requests on a model that is replaced
        or unloaded end on it; then its memory is released. A model that `unload` took out of
        service stays out.

        Args:
            configs: Settings by name; the first model is the default.

        Raises:
            BundleError: A bundle cannot be served.
            ConfigError: The memory for a KV cache does not hold one sequence, or a list of choices
                is unusable.
        """
        async with self._changing:
            wanted = {name: each for name, each in configs.items() if name not in self._unloaded}
            with self._marked_as_loading(wanted):
                loaded = {name: await self._load(name, each) for name, each in wanted.items()}
            self._configs = dict(configs)
            self._unloaded &= set(configs)
            return self._replace(loaded)

    async def load(self, name: str) -> None:
        """Load a configured model, or replace it if its bundle has changed.

        The load goes on if its caller is cancelled. On an error, the present model stays.

        Raises:
            BundleError: The bundle cannot be served.
            ConfigError: The memory for the KV cache does not hold one sequence.
            DrainingError: The server is shutting down.
            ModelNotFoundError: No model has this name in the settings.
        """
        task = asyncio.create_task(self._load_one(name))
        # Without a caller, nothing else reads the error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(task)

    async def unload(self, name: str) -> None:
        """Take a model out of service, until `load` brings it back.

        Requests on it end as on a replaced one.

        Raises:
            ModelNotFoundError: No model has this name in the settings.
        """
        async with self._changing:
            self._check_configured(name)
            self._unloaded.add(name)
            self._replace({key: each for key, each in self._loaded.items() if key != name})

    async def _load_one(self, name: str) -> None:
        async with self._changing:
            self._check_configured(name)
            with self._marked_as_loading([name]):
                new = await self._load(name, self._configs[name])
            if self.draining:
                raise DrainingError("the server is shutting down")
            self._unloaded.discard(name)
            loaded = self._loaded | {name: new}
            self._replace({key: loaded[key] for key in self._configs if key in loaded})

    def _check_configured(self, name: str) -> None:
        if name not in self._configs:
            raise ModelNotFoundError(name, list(self._loaded))

    @contextlib.contextmanager
    def _marked_as_loading(self, names: Iterable[str]) -> Iterator[None]:
        self._loading = list(names)
        self._notify()
        try:
            yield
        finally:
            self._loading = []
            self._notify()

    def _replace(self, loaded: dict[str, _Loaded]) -> Changes:
        """Serve these models from now on, and retire the others."""
        before, self._loaded = self._loaded, loaded
        for name, each in loaded.items():
            if before.get(name) is not each:
                each.model.start(self._notify)
        self._notify()
        self._retire([each for name, each in before.items() if loaded.get(name) is not each])
        return Changes(
            added=[name for name in loaded if name not in before],
            replaced=[n for n, each in loaded.items() if n in before and before[n] is not each],
            removed=[name for name in before if name not in loaded],
        )

    async def _load(self, name: str, config: ModelConfig) -> _Loaded:
        """Verify a bundle, and load it unless it is loaded already."""
        bundle = await asyncio.to_thread(load_bundle, config.path, config.fingerprint)
        # Before the lists are read: one that is replaced meanwhile is read again next time.
        choices_digest = await asyncio.to_thread(files_digest, config.engine.choices)
        old = self._loaded.get(name)
        if (
            old is not None
            and old.model.engine.healthy
            and (old.config.path, old.config.engine) == (config.path, config.engine)
            and old.model.bundle.fingerprint == bundle.fingerprint
            and old.choices_digest == choices_digest
        ):
            return old
        model = await asyncio.to_thread(load_model, name, bundle, config.engine)
        if reason := model.tokenizer.constraint_error:
            structlog.get_logger().warning("no_constraints", model=name, reason=reason)
        for warning in bundle.manifest.warnings:
            structlog.get_logger().warning("bundle_warning", model=name, warning=warning)
        return _Loaded(model, config, choices_digest)

    def drain(self) -> None:
        """Refuse new requests."""
        self.draining = True
        self._notify()

    async def finished(self) -> None:
        """Wait until no request uses a model."""
        for loaded in self._all():
            await loaded.unused.wait()

    async def close(self) -> None:
        """End all models; unfinished and new requests end with `DrainingError`."""
        self.draining = True
        for loaded in self._all():
            await loaded.model.stop("the server is shutting down")
        for task in list(self._retiring):
            task.cancel()
        self.closed = True
        self._notify()

    def _all(self) -> list[_Loaded]:
        retiring = [each for several in self._retiring.values() for each in several]
        return [*self._loaded.values(), *retiring]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _retire(self, old: list[_Loaded]) -> None:
        if old:
            task = asyncio.create_task(self._unload(old))
            self._retiring[task] = old
            task.add_done_callback(self._retiring.pop)

    async def _unload(self, old: list[_Loaded]) -> None:
        """End models after the drain time at the latest; release their memory."""
        log = structlog.get_logger()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                for unused in [loaded.unused for loaded in old]:
                    await unused.wait()
        while old:
            model = old[-1].model
            await model.stop("the model was unloaded")
            log.info("unloaded", model=model.name, fingerprint=model.bundle.fingerprint)
            del model, old[-1]
        await asyncio.to_thread(trim)

"""Download of a model from a Hugging Face hub into its cache.

The cache, the login and the environment variables are those of `huggingface_hub`.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Final

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError
from huggingface_hub.utils.tqdm import tqdm

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME, Architecture, find_activation
from gpt2flow.export.checkpoint.hints import ADAPTER_CONFIG_NAME
from gpt2flow.export.checkpoint.weight_files import (
    WEIGHT_NAMES,
    find_weight_files,
    index_name,
    read_weight_map,
)
from gpt2flow.export.errors import CheckpointError, HubError, NoModelError, first_line
from gpt2flow.export.sources.files import ADAPTER_WEIGHT_NAMES, is_adapter, is_small_file
from gpt2flow.files.documents import read_json

# A hub that ignores ranges sends a file from its start again, and may never reach its end.
_MAX_RESTARTS: Final = 3
_NO_ACCESS: Final = (401, 403, 404)
_BAR: Final = "tqdm_class"
# The client of transformers 4 draws bars of its own.
_TAKES_BAR: Final = _BAR in signature(hf_hub_download).parameters

BytesCallback = Callable[[int, int], None]
"""Function of the bytes downloaded, and of those in total."""


@dataclass(frozen=True, slots=True)
class Hub:
    """Access to a Hugging Face hub.

    Attributes:
        token: Access token; None for `HF_TOKEN` or that of a login.
        endpoint: Address of the hub; None for `HF_ENDPOINT`, or else the public one.
        cache: Directory of the cache; None for that of `huggingface_hub`.
    """

    token: str | None = None
    endpoint: str | None = None
    cache: Path | None = None

    @property
    def address(self) -> str:
        """Address of the hub."""
        return self.endpoint or constants.ENDPOINT

    def fetch(
        self,
        model_id: str,
        revision: str | None,
        on_bytes: BytesCallback,
        on_warning: Callable[[str], None],
    ) -> Path:
        """Return the cached directory of a model, downloaded if needed.

        It has the files that an export reads. What is cached already is not downloaded again. A
        hub that cannot be reached is replaced by a complete copy in the cache, with a warning.

        Args:
            model_id: Id of the model, as `gpt2` or `owner/name`.
            revision: Branch, tag or commit; None for the main branch.
            on_bytes: Progress callback of the weights.
            on_warning: Callback for a line about a hub that cannot be reached.

        Raises:
            HubError: There is no such model, it is no GPT-2, or it can be neither downloaded nor
                found in the cache.
        """
        with _quiet_client():
            cached = self.find_cached(model_id, revision)
            if constants.HF_HUB_OFFLINE:
                return self._require_cached(cached, model_id, revision)
            download = _Download(self, model_id, revision, on_bytes)
            try:
                return download.run()
            except (CheckpointError, HubError):
                raise
            except Exception as error:  # Its client, which differs by version, raises any kind.
                unreachable = _status(error) is None or _status(error) not in _NO_ACCESS
                if unreachable and cached is not None and _is_complete(cached):
                    reason = _reason(error)
                    on_warning(f"{self.address}: {reason}; exporting {model_id} from the cache")
                    return cached
                if unreachable and download.begun:
                    raise HubError(
                        f"the download of {model_id} from {self.address} ended early: "
                        f"{_reason(error)}; run it again to go on"
                    ) from error
                raise self._refusal(error, model_id, revision) from error

    def find_cached(self, model_id: str, revision: str | None) -> Path | None:
        """Return the cached directory of a model, which may be incomplete."""
        for name in (CONFIG_NAME, ADAPTER_CONFIG_NAME):
            found = try_to_load_from_cache(
                model_id, name, cache_dir=self.cache, revision=revision or "main"
            )
            if isinstance(found, str):
                return Path(found).parent
        return None

    def _require_cached(self, cached: Path | None, model_id: str, revision: str | None) -> Path:
        if cached is not None and _is_complete(cached):
            return cached
        state = "is not in" if cached is None else "is not complete in"
        where = self.cache or constants.HF_HUB_CACHE
        name = model_id if revision is None else f"{model_id} at {revision}"
        raise NoModelError(
            f"{name} {state} the cache {where}, and HF_HUB_OFFLINE forbids to fetch it"
        )

    def _refusal(self, error: Exception, model_id: str, revision: str | None) -> HubError:
        """Return the error of a download that failed."""
        status = _status(error)
        if isinstance(error, RevisionNotFoundError):
            return HubError(f"{model_id} has no revision {revision or 'main'!r} on {self.address}")
        if isinstance(error, GatedRepoError) or status == 403:
            return HubError(
                f"{self.address} denies access to {model_id} (HTTP {status}); accept its terms "
                "there, and give a token that may read it by HF_TOKEN or --hub-token-file"
            )
        if status in _NO_ACCESS:
            return NoModelError(
                f"{self.address} has no model {model_id} that may be read (HTTP {status}); a "
                "private one takes a token by HF_TOKEN or --hub-token-file"
            )
        reason = _reason(error)
        if status is not None:
            return HubError(f"{self.address} failed to send {model_id}: {reason}")
        return NoModelError(f"{self.address} cannot be reached: {reason}")


class _Download:
    """Download of one model, small files first and weights last.

    So a copy in the cache with its weights has all other files too.

    Attributes:
        begun: Whether the hub has answered, and files are being downloaded.
    """

    def __init__(
        self, hub: Hub, model_id: str, revision: str | None, on_bytes: BytesCallback
    ) -> None:
        self._hub = hub
        self._model_id = model_id
        self._revision = revision
        self._on_bytes = on_bytes
        self.begun = False

    def run(self) -> Path:
        """Return the directory with the files."""
        sizes = self._list_files()
        self.begun = True
        directory = self._fetch_small_files(sorted(sizes))
        adapter = is_adapter(sizes)
        if not adapter:
            # Weights of another architecture may be large.
            architecture = Architecture.from_config(
                read_json(directory / CONFIG_NAME, CheckpointError)
            )
            find_activation(architecture.activation_function)
        weights = self._list_weights(sizes, directory, adapter=adapter)
        self._fetch_weights(directory, {name: sizes.get(name, 0) for name in weights})
        return directory

    def _list_files(self) -> dict[str, int]:
        """Return the size of each file of the model."""
        api = HfApi(endpoint=self._hub.endpoint, token=self._hub.token)
        found = api.model_info(
            self._model_id,
            revision=self._revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        sizes = {each.rfilename: each.size or 0 for each in found.siblings or ()}
        if CONFIG_NAME not in sizes and not is_adapter(sizes):
            raise HubError(
                f"{self._model_id} on {self._hub.address} has no {CONFIG_NAME}, so it is no GPT-2"
            )
        return sizes

    def _fetch_small_files(self, names: list[str]) -> Path:
        small = [name for name in names if is_small_file(name, names)]
        # The first file resolves the revision, and all others are of the same commit.
        first = CONFIG_NAME if CONFIG_NAME in small else ADAPTER_CONFIG_NAME
        directory = self._fetch(first, self._revision).parent
        for name in small:
            self._fetch(name, directory.name)
        return directory

    def _list_weights(
        self, names: dict[str, int], directory: Path, *, adapter: bool
    ) -> Iterator[str]:
        """Yield the names of the preferred weight files."""
        for name in ADAPTER_WEIGHT_NAMES if adapter else WEIGHT_NAMES:
            if name in names:
                yield name
                return
            if index_name(name) in names:
                index = self._fetch(index_name(name), directory.name)
                yield from sorted(set(read_weight_map(index).values()))
                return
        raise HubError(
            f"{self._model_id} on {self._hub.address} has no weights: none of "
            f"{', '.join(ADAPTER_WEIGHT_NAMES if adapter else WEIGHT_NAMES)}"
        )

    def _fetch_weights(self, directory: Path, sizes: dict[str, int]) -> None:
        total, complete = sum(sizes.values()), 0
        for name, size in sizes.items():
            self._fetch(name, directory.name, _Report(self._on_bytes, complete, total))
            complete += size
            self._on_bytes(complete, total)

    def _fetch(self, name: str, revision: str | None, report: "_Report | None" = None) -> Path:
        options: dict[str, Any] = {_BAR: _bar_of(report or _Report())} if _TAKES_BAR else {}
        return Path(
            hf_hub_download(
                self._model_id,
                name,
                revision=revision,
                token=self._hub.token,
                endpoint=self._hub.endpoint,
                cache_dir=self._hub.cache,
                etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
                **options,
            )
        )


class _Report:
    """Bytes of one file, added to those of the files before it."""

    def __init__(
        self, on_bytes: BytesCallback | None = None, complete: int = 0, total: int = 0
    ) -> None:
        self._on_bytes = on_bytes
        self._complete = complete
        self._total = total
        self._restarts = 0

    def add(self, count: int) -> None:
        """Count bytes; a negative count is of an attempt that restarts.

        Raises:
            HubError: Too many attempts ended before the file did.
        """
        self._complete += count
        self._restarts += count < 0
        if self._restarts > _MAX_RESTARTS:
            raise HubError(f"the hub ended a file early {self._restarts} times; try again later")
        if self._on_bytes is not None:
            self._on_bytes(min(self._complete, self._total), self._total)


def _bar_of(report: _Report) -> type[tqdm]:
    """Return a class of progress bars that show nothing and report."""

    class _Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            report.add(int(n or 0))

    return _Bar


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Silence the client's log; its errors are reported in one line."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def without_hub() -> Iterator[None]:
    """Keep the libraries off the hub, whatever they look up."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_complete(directory: Path) -> bool:
    """Return whether a cached model has weights, which are fetched last."""
    if is_adapter({path.name for path in directory.iterdir()}):
        return any((directory / name).is_file() for name in ADAPTER_WEIGHT_NAMES)
    try:
        return bool(find_weight_files(directory).paths)
    except CheckpointError:
        return False


def _status(error: BaseException) -> int | None:
    """Return the status of the hub's answer, None without one."""
    response = getattr(_root(error), "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _reason(error: BaseException) -> str:
    root = _root(error)
    if isinstance(root, json.JSONDecodeError):
        return "it does not answer like a hub"
    return first_line(root).rstrip(".")


def _root(error: BaseException) -> BaseException:
    """Return the error behind the client's own, which names the cause."""
    while isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error

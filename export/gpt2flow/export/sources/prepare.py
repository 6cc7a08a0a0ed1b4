"""Checkpoint of an export, made from whatever was given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpt2flow.export.checkpoint.hints import ADAPTER_CONFIG_NAME
from gpt2flow.export.errors import AdapterError, CheckpointError, InputError
from gpt2flow.export.sources.adapter import read_adapter
from gpt2flow.export.sources.files import is_adapter
from gpt2flow.export.sources.hub import Hub
from gpt2flow.export.sources.locate import Located, Locator
from gpt2flow.server.bundle.manifest import HubModel


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checkpoint to export.

    Attributes:
        directory: Its directory.
        models: Models of a hub that it comes from: checkpoint or adapter, then the base model.
    """

    directory: Path
    models: tuple[HubModel, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Start of an export.

    Attributes:
        given: Directory, or id of a model on a hub; a checkpoint or an adapter.
        revision: Branch, tag or commit on the hub.
        base: Base model of an adapter, instead of the one that its configuration names.
        hub: Access to the hub.
    """

    given: str | Path
    revision: str | None = None
    base: str | Path | None = None
    hub: Hub | None = None

    def prepare(
        self,
        workspace: Path,
        progress: Callable[[str, int, int], None],
        on_warning: Callable[[str], None],
    ) -> Prepared:
        """Return the checkpoint, with an adapter merged.

        Args:
            workspace: Directory to create for the merged checkpoint.
            progress: Callback for the progress of the stages `download` and `merge`.
            on_warning: Callback for a line about what was chosen.

        Raises:
            HubError: The model cannot be had from the hub.
            AdapterError: The adapter cannot be merged.
            CheckpointError: A file is damaged.
            InputError: An option does not fit to what was given.
        """
        locator = Locator(
            self.hub or Hub(),
            on_bytes=lambda done, total: progress("download", done, total),
            on_warning=on_warning,
        )
        found = locator.locate(self.given, self.revision)
        if not is_adapter(_list_names(found.directory)):
            if self.base is not None:
                raise InputError(
                    f"--base is {str(self.base)!r}, but {self.given} is no adapter: it has no "
                    f"{ADAPTER_CONFIG_NAME}, or weights of its own"
                )
            return Prepared(found.directory, _models(found))
        base = self._merge(found.directory, locator, workspace, progress)
        return Prepared(workspace, _models(found, base))

    def _merge(
        self,
        directory: Path,
        locator: Locator,
        workspace: Path,
        progress: Callable[[str, int, int], None],
    ) -> Located:
        """Merge an adapter, and return where its base was found."""
        # Importing torch takes seconds, so all cheaper checks come first.
        from gpt2flow.export.sources.merge import merge_adapter  # noqa: PLC0415 - as above

        adapter = read_adapter(directory)
        named = self.base is None
        base = adapter.base if self.base is None else self.base
        if base is None:
            raise AdapterError(
                f"{directory / ADAPTER_CONFIG_NAME} names no base model; give it with --base"
            )
        try:
            located = locator.locate(base, adapter.base_revision if named else None)
        except InputError as error:
            hint = "; --base names another one" if named else ""
            raise AdapterError(f"base model {str(base)!r}: {error}{hint}") from error
        if not located.directory.is_dir():
            raise AdapterError(
                f"{base}, the base model of {directory}, is no directory; give it with --base"
            )
        workspace.mkdir()
        merge_adapter(
            adapter,
            located.directory,
            workspace,
            lambda done, total: progress("merge", done, total),
        )
        return located


def _models(*found: Located) -> tuple[HubModel, ...]:
    return tuple(each.model for each in found if each.model is not None)


def _list_names(directory: Path) -> set[str]:
    """Return the names of a directory's files, if it is one.

    Raises:
        CheckpointError: It cannot be listed.
    """
    try:
        return {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror}") from error


@contextmanager
def named_as(workspace: Path, given: str | Path) -> Iterator[None]:
    """Name what was given in errors about a merged checkpoint.

    Raises:
        CheckpointError: As the block raised it, with other names of files.
    """
    try:
        yield
    except CheckpointError as error:
        message = str(error)
        if str(workspace) not in message:
            raise
        raise CheckpointError(message.replace(str(workspace), f"{given} (merged)")) from error

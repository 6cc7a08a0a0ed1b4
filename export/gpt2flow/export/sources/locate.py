"""Directory of a checkpoint, given as a path or an id."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from gpt2flow.export.errors import HubError, InputError, NoModelError
from gpt2flow.export.sources.hub import BytesCallback, Hub
from gpt2flow.server.bundle.manifest import HubModel

HUB_PREFIX: Final = "hf://"
"""Prefix of an id, for a model whose name a directory here has too."""

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
# GPT-2s whose ids have no owner, which the hub admits for the first models only.
_KNOWN: Final = frozenset({"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"})


def _ignore_bytes(_done: int, _total: int) -> None:
    """Discard progress when the caller passes no callback."""


def _ignore_line(_line: str) -> None:
    """Discard a warning when the caller passes no callback."""


@dataclass(frozen=True, slots=True)
class Located:
    """Directory of a checkpoint or an adapter.

    Attributes:
        directory: The directory, which need not exist if it was given as a path.
        model: Model of a hub that it is a copy of; None for a path.
    """

    directory: Path
    model: HubModel | None = None


@dataclass(frozen=True, slots=True)
class Locator:
    """Finder of checkpoints and base models.

    Attributes:
        hub: Access to the hub.
        on_bytes: Progress callback of downloads.
        on_warning: Callback for a line about what was chosen.
    """

    hub: Hub = field(default_factory=Hub)
    on_bytes: BytesCallback = _ignore_bytes
    on_warning: Callable[[str], None] = _ignore_line

    def locate(self, given: str | Path, revision: str | None = None) -> Located:
        """Return a directory; a model on the hub is downloaded first.

        A path that exists is never looked up on the hub.

        Args:
            given: Path or id, or an id after `hf://`.
            revision: Branch, tag or commit on the hub.

        Raises:
            HubError: The model cannot be had from the hub.
            InputError: A revision is given, and a path is not of a hub.
        """
        name = str(given)
        # A `Path` has one of the two slashes.
        for prefix in (HUB_PREFIX, HUB_PREFIX[:-1]):
            if name.startswith(prefix):
                return self._fetch(name.removeprefix(prefix), revision)
        path = Path(name)
        if os.path.lexists(path) or not _is_id(name):
            if revision is not None:
                raise InputError(
                    f"--revision is {revision!r}, of a model on a hub, and {name} is a path; "
                    f"give an id, after {HUB_PREFIX} if a path of this name exists"
                )
            self._warn_of_a_model_of_that_name(path)
            return Located(path)
        try:
            return self._fetch(name, revision)
        except NoModelError as error:
            raise HubError(f"{name} is no directory here, and {error}") from error

    def _fetch(self, model_id: str, revision: str | None) -> Located:
        if not _is_id(model_id):
            raise HubError(f"{model_id!r} is not the id of a model on a hub; one is owner/name")
        directory = self.hub.fetch(model_id, revision, self.on_bytes, self.on_warning)
        # The cache names the directory of a copy after its commit.
        return Located(directory, HubModel(id=model_id, commit=directory.name))

    def _warn_of_a_model_of_that_name(self, path: Path) -> None:
        name = str(path)
        if path.is_dir() and _is_id(name):
            known = name in _KNOWN or self.hub.find_cached(name, None) is not None
            if known:
                self.on_warning(
                    f"{name} is a directory here, which is exported; {HUB_PREFIX}{name} is the "
                    "model of that id on the hub"
                )


def _is_id(name: str) -> bool:
    """Return whether a hub may have a model of this id."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return _ID.fullmatch(name) is not None


def read_token(path: Path) -> str:
    """Return the access token in a file.

    Raises:
        InputError: The file is unreadable, or does not hold one line of printable ASCII.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII"
        raise InputError(f"--hub-token-file {path} cannot be read: {reason}") from error
    if not token.isprintable() or not token or " " in token:
        raise InputError(f"--hub-token-file {path} does not hold a token: one word on one line")
    return token

"""A directory that appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt2flow.export.errors import OutputError


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Gives a directory to write to; it becomes the target when the block ends well.

    Everything is written beside the target, so that the last step is one rename. A process that
    is killed leaves at most a hidden directory, whose name ends with `.partial`, for the target.

    Args:
        target: Where the directory shall lie; there must be nothing.

    Yields:
        The directory to write to. What lies beside it is removed in the end.

    Raises:
        OutputError: There is something at the target, or nothing can be made beside it.
    """
    if os.path.lexists(target):
        raise OutputError(f"{target} exists already")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        )
    except OSError as error:
        raise OutputError(f"{target} cannot be made: {error.strerror}") from error
    try:
        directory = staging / "whole"
        directory.mkdir()
        yield directory
        _sync(directory)
        _rename(directory, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _rename(directory: Path, target: Path) -> None:
    # A rename would replace an empty directory that has appeared meanwhile.
    if os.path.lexists(target):
        raise OutputError(f"{target} exists already")
    directory.rename(target)
    _sync_one(target.parent)


def _sync(directory: Path) -> None:
    """Brings everything in a directory, and itself, to the disk."""
    for path in directory.rglob("*"):
        _sync_one(path)
    _sync_one(directory)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Directories and files that appear whole or not at all."""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_TRY_LOCK: Final = fcntl.LOCK_EX | fcntl.LOCK_NB

_STAGING_SUFFIX: Final = ".partial"

# Errors of the disk rather than of the chosen target.
_DISK_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
# Errors of a rename whose target has appeared in the meantime.
_TARGET_EXISTS: Final = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


class TargetError(Exception):
    """The target cannot be created; the one-line message names it."""


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Create a directory whose content appears all at once.

    The block writes to a staging directory beside the target. When it ends without an error, one
    rename moves the result to the target.

    A killed process leaves at most a hidden directory with the suffix `.partial`. The next process
    that writes to the same target removes it.

    Args:
        target: Directory to create; it must not exist.

    Yields:
        Directory to write to. Anything the block writes beside it is removed at the end.

    Raises:
        TargetError: The target exists, or its parent does not allow writing.
        OSError: The disk is full, or the content cannot be flushed to it.
    """
    if os.path.lexists(target):
        raise TargetError(f"{target} exists already; remove it or choose another path")
    with _created_parents(target):
        _remove_abandoned(target)
        staging, lock = _make_staging(target)
        try:
            directory = staging / "whole"
            directory.mkdir()
            yield directory
            _sync_tree(directory)
            _publish(directory, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            os.close(lock)


@contextmanager
def _created_parents(target: Path) -> Iterator[None]:
    """Create missing parents of a target; remove those left empty afterwards."""
    missing = [parent for parent in target.parents if not os.path.lexists(parent)]
    try:
        with _target_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        # Innermost first; `rmdir` keeps those that are not empty, as after a success.
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


def _make_staging(target: Path) -> tuple[Path, int]:
    """Create and lock a staging directory beside the target.

    Returns:
        The directory, and the descriptor that keeps it locked until it is closed.
    """
    with _target_errors(target):
        while True:
            made = tempfile.mkdtemp(
                prefix=f".{target.name}.", suffix=_STAGING_SUFFIX, dir=target.parent
            )
            lock = _lock_directory(Path(made))
            if lock is not None:
                return Path(made), lock


def _remove_abandoned(target: Path) -> None:
    """Remove the staging directories that killed processes left beside the target."""
    # Between prefix and suffix, `tempfile` puts eight of these characters.
    abandoned = re.compile(
        rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(_STAGING_SUFFIX)}"
    )
    # A directory may be writable without being listable.
    with suppress(OSError):
        for path in target.parent.iterdir():
            if abandoned.fullmatch(path.name):
                _remove_unless_locked(path)


@contextmanager
def _target_errors(target: Path) -> Iterator[None]:
    """Convert errors other than a full disk to `TargetError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise
        raise TargetError(f"{target} cannot be created: {error.strerror}") from error


def _publish(directory: Path, target: Path) -> None:
    # A rename would replace an empty directory that has appeared in the meantime.
    if os.path.lexists(target):
        raise TargetError(f"{target} exists already; remove it or choose another path")
    try:
        directory.rename(target)
    except OSError as error:
        if error.errno in _TARGET_EXISTS:
            raise TargetError(
                f"{target} exists already; remove it or choose another path"
            ) from error
        raise
    _sync_path(target.parent)


def _sync_tree(directory: Path) -> None:
    """Flush a directory and everything in it to the disk."""
    for path in directory.rglob("*"):
        _sync_path(path)
    _sync_path(directory)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_directory(directory: Path) -> int | None:
    """Lock a directory that this process has just created.

    Returns:
        Descriptor that keeps the directory locked until it is closed. None if another process is
        removing the directory, since it was found unlocked.
    """
    try:
        descriptor = os.open(directory, _OPEN_FLAGS)
    except FileNotFoundError:
        return None
    # A file system without locks is safe too: removal requires a lock first.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), directory.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _remove_unless_locked(directory: Path) -> None:
    """Remove a directory with its content, unless a process has it locked."""
    with suppress(OSError):
        descriptor = os.open(directory, _OPEN_FLAGS)
        try:
            fcntl.flock(descriptor, _TRY_LOCK)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file; readers see the old text or the new."""
    staging = path.with_name(f".{path.name}.draft")
    with staging.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)

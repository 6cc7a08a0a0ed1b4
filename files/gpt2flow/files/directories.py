"""A directory that appears whole or not at all."""

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

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_AT_ONCE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB

_SUFFIX: Final = ".partial"

# The place is good; there is only no room left.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}
# What a rename to a place says where something has appeared meanwhile.
_TAKEN: Final = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


class TargetError(Exception):
    """A directory cannot be made at its target; the message is one line that names it."""


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Give a directory to write to; it becomes the target when the block ends well.

    Everything is written beside the target, so that the last step is one rename. A process that
    is killed leaves at most a hidden directory, whose name ends with `.partial`; the next one
    that writes to the same target removes it.

    Args:
        target: Where the directory shall lie; there must be nothing.

    Yields:
        The directory to write to. What lies beside it is removed in the end.

    Raises:
        TargetError: There is something at the target, or nothing can be made beside it.
        OSError: There is no room, or what was written cannot be brought to the disk.
    """
    if os.path.lexists(target):
        raise TargetError(f"{target} exists already")
    with _parents(target):
        _sweep(target)
        staging, lock = _staging(target)
        try:
            directory = staging / "whole"
            directory.mkdir()
            yield directory
            _sync(directory)
            _rename(directory, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            os.close(lock)


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the directories above a target; those that are empty in the end go again."""
    missing = [parent for parent in target.parents if not os.path.lexists(parent)]
    try:
        with _refused(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        # The nearest first; one that holds something, the target most of all, stays.
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


def _staging(target: Path) -> tuple[Path, int]:
    """Make a directory beside the target; returns it, and what holds it until it is closed."""
    with _refused(target):
        while True:
            made = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_SUFFIX, dir=target.parent)
            lock = hold(Path(made))
            if lock is not None:
                return Path(made), lock


def _sweep(target: Path) -> None:
    """Remove what killed processes have left beside the target."""
    # What `tempfile` puts between the two has eight characters of these.
    left = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(_SUFFIX)}")
    # Nobody has to be able to list a directory in order to write to it.
    with suppress(OSError):
        for path in target.parent.iterdir():
            if left.fullmatch(path.name):
                remove_unless_held(path)


@contextmanager
def _refused(target: Path) -> Iterator[None]:
    """Say of a place where nothing can be made that the target was not well chosen."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        raise TargetError(f"{target} cannot be made: {error.strerror}") from error


def _rename(directory: Path, target: Path) -> None:
    # A rename would replace an empty directory that has appeared meanwhile.
    if os.path.lexists(target):
        raise TargetError(f"{target} exists already")
    try:
        directory.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            raise TargetError(f"{target} exists already") from error
        raise
    _sync_one(target.parent)


def _sync(directory: Path) -> None:
    """Bring everything in a directory, and itself, to the disk."""
    for path in directory.rglob("*"):
        _sync_one(path)
    _sync_one(directory)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(directory: Path) -> int | None:
    """Lock a directory that this process has just made.

    Returns:
        A descriptor; the directory is held until it is closed. None if another process took the
        directory for abandoned and removes it.
    """
    try:
        descriptor = os.open(directory, _OPEN)
    except FileNotFoundError:
        return None
    # Where the file system knows no locks, nobody can remove what is not locked either.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), directory.stat()):
            return descriptor
    os.close(descriptor)
    return None


def remove_unless_held(directory: Path) -> None:
    """Remove a directory with all that is in it, if no living process holds it."""
    with suppress(OSError):
        descriptor = os.open(directory, _OPEN)
        try:
            fcntl.flock(descriptor, _AT_ONCE)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)

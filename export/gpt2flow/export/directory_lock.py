"""A lock on a directory that ends with the process that holds it, however that ends."""

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_AT_ONCE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB


def hold(directory: Path) -> int | None:
    """Locks a directory that this process has just made.

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
    """Removes a directory with all that is in it, if no living process holds it."""
    with suppress(OSError):
        descriptor = os.open(directory, _OPEN)
        try:
            fcntl.flock(descriptor, _AT_ONCE)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)

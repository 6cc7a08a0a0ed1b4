"""Gives memory back to the system that loading took and serving does not need."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_DONT_NEED: Final = 4  # MADV_DONTNEED, the same on every Linux


def release(mapped: Path) -> None:
    """Let go of freed memory, and of the pages of a file that is mapped into memory.

    onnxruntime maps the weights, and packs most of them into memory of its own:
    what it goes on reading comes back page by page from the system's file cache.
    Elsewhere than on Linux with glibc, nothing is done.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, stop in _unwritten_mappings(mapped.resolve()):
        libc.madvise(start, stop - start, _DONT_NEED)
    trim()


def trim() -> None:
    """Let go of freed memory."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _unwritten_mappings(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the addresses at which a file is mapped and nothing was written since."""
    addresses = None
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        key, *rest = line.split(maxsplit=5)
        if not key.endswith(":"):  # The line that begins a mapping.
            addresses = key if rest[-1] == str(path) else None
        elif key == "Anonymous:" and addresses and rest[0] == "0":
            start, stop = addresses.split("-")
            yield int(start, 16), int(stop, 16)

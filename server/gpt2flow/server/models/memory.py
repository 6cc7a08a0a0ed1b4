"""Release of memory that loading took and serving does not need."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_DONT_NEED: Final = 4  # MADV_DONTNEED, the same on every Linux


def release(mapped: Path) -> None:
    """Release freed memory, and the pages of a memory-mapped file.

    onnxruntime maps the weights, and packs those in fp32 into its own memory. Pages that are read
    again come from the system's page cache. This has an effect on Linux with glibc only.

    Args:
        mapped: Path of the mapped file.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, stop in _unwritten_mappings(mapped.resolve()):
        libc.madvise(start, stop - start, _DONT_NEED)
    trim()


def trim() -> None:
    """Return freed memory to the system."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _unwritten_mappings(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the address ranges of a file's mappings without written pages."""
    addresses = None
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        key, *rest = line.split(maxsplit=5)
        if not key.endswith(":"):  # First line of a mapping.
            addresses = key if rest[-1] == str(path) else None
        elif key == "Anonymous:" and addresses and rest[0] == "0":
            start, stop = addresses.split("-")
            yield int(start, 16), int(stop, 16)

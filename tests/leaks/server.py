"""`gpt2flow` that reports what it holds.

Usage: python -m tests.leaks.server FILE serve …

At SIGUSR1 it collects garbage, and writes its `Holding` to the file. It counts gRPC's batches on
the way.
"""

import ctypes
import gc
import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from gpt2flow.cli.main import main
from gpt2flow.files.atomic import write_atomically


@dataclass(frozen=True)
class Holding:
    """Memory and objects of a process.

    Attributes:
        heap: Bytes in use that were allocated by `malloc`.
        blocks: Number of blocks in use that Python's own allocator manages.
        batches: Number of gRPC's batches that were started and not released.
    """

    heap: int
    blocks: int
    batches: int


class _Batches:
    """Count of the batches that grpcio has started and not released."""

    unreleased = 0

    @classmethod
    def count(cls) -> None:
        """Count every batch of this process from now on."""
        original: Any = cygrpc.execute_batch

        async def counted(*arguments: Any) -> None:
            cls.unreleased += 1
            await original(*arguments)
            # grpcio returns once it has released the batch.
            cls.unreleased -= 1

        cygrpc.execute_batch = counted


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def heap_is_measurable() -> bool:
    """Return whether the C library counts the bytes in use."""
    return hasattr(ctypes.CDLL(None), "mallinfo2")


def holding() -> Holding:
    """Collect garbage, and return what this process holds."""
    while gc.collect():  # Objects that one collection ends may free others.
        pass
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Mallinfo
    info: Any = library.mallinfo2()
    heap = info.uordblks + info.hblkhd
    return Holding(heap, sys.getallocatedblocks(), _Batches.unreleased)


def _report(path: Path) -> None:
    write_atomically(path, json.dumps(asdict(holding())))


if __name__ == "__main__":
    _Batches.count()
    _path = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: _report(_path))
    main()

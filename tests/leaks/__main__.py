"""Leaks: cancel and fail calls, and measure what each leaves behind.

Runs as `python -m tests.leaks [--calls N] [--model DIR] [--kind NAME …] [--json FILE]`.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.leaks.growth import Growth, subject
from tests.leaks.kinds import KINDS, RAW_KINDS
from tests.leaks.server import heap_is_measurable
from tests.support.project import SHIPPED_BUNDLE

_HEADER = f"{'kind':<32}" + "   calls    heap  blocks batches  resident  statuses"


def main() -> int:
    """Measure each kind, print a table, and return the exit code.

    It is 1 if a kind leaves more behind than its limit, and 2 if the heap cannot be measured.
    """
    names = [*KINDS, *RAW_KINDS]
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000, help="Calls of all kinds together.")
    parser.add_argument("--model", type=Path, default=SHIPPED_BUNDLE, help="Bundle directory.")
    parser.add_argument("--kind", action="append", choices=names, help="Kind; default: all.")
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    options = parser.parse_args()
    if not heap_is_measurable():
        sys.stderr.write(
            "the C library does not count the bytes in use: glibc 2.33 or newer does\n"
        )
        return 2
    kinds = options.kind or names
    with tempfile.TemporaryDirectory() as name, subject(options.model, Path(name)) as server:
        _, before = server.settle()
        _print(_HEADER)
        growths = []
        for kind in kinds:
            growths.append(server.measure(kind, options.calls // len(kinds)))
            _print(_line(growths[-1]))
        _, after = server.settle()
    _print("heap, resident: bytes per call; blocks: of Python's allocator, per call")
    _print("batches: not released by gRPC, of all calls")
    _print(f"resident: {before.rss / 1e6:.1f} MB before, {after.rss / 1e6:.1f} MB after")
    _print(f"threads: {before.threads} before, {after.threads} after")
    _print(f"descriptors: {before.descriptors} before, {after.descriptors} after")
    faults = [fault for growth in growths for fault in growth.faults]
    for fault in faults:
        _print(fault)
    if options.json is not None:
        figures = {"growths": [asdict(growth) for growth in growths], "faults": faults}
        resident = {"before": asdict(before), "after": asdict(after)}
        options.json.write_text(json.dumps({**figures, **resident}, indent=1) + "\n")
    return 1 if faults else 0


def _line(growth: Growth) -> str:
    statuses = " ".join(f"{name}:{count}" for name, count in sorted(growth.statuses.items()))
    return (
        f"{growth.kind:<32}{growth.calls:>8}{growth.heap:>8.1f}{growth.blocks:>8.3f}"
        f"{growth.batches:>8}{growth.resident:>10.1f}  {statuses}"
    )


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Description of the machine that runs the benchmark."""

import os
import platform
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

# Bytes per thread and round: more than any cache holds.
_BYTES_PER_THREAD = 1 << 28
_ROUNDS = 5


def describe_machine(threads: int) -> dict[str, Any]:
    """Return processor, memory, software, date and memory read bandwidth."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "read_gb_per_second": round(measure_read_bandwidth(threads), 1),
    }


def measure_read_bandwidth(threads: int) -> float:
    """Return the highest memory read bandwidth of `threads` threads, in GB/s."""
    arrays = [np.ones(_BYTES_PER_THREAD // 8, np.int64) for _ in range(threads)]
    best = 0.0
    for _ in range(_ROUNDS):
        readers = [threading.Thread(target=array.max) for array in arrays]
        started = time.perf_counter()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        best = max(best, threads * _BYTES_PER_THREAD / 1e9 / (time.perf_counter() - started))
    return best


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line for line in lines if line.startswith("model name")), "model name: unknown")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    extensions = [flag for flag in ("avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    return f"{name.partition(':')[2].strip()} ({', '.join(extensions) or 'no AVX-512 VNNI'})"

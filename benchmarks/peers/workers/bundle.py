"""The bundle that gpt2flow serves: exported from the checkpoint, or given."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from peers.workers.loop import Setup

import gpt2flow.export


def prepare_bundle(setup: Setup) -> None:
    """Export the checkpoint in the profile that the variant names, unless that was done."""
    bundle = find_bundle(setup)
    if (bundle / "manifest.json").exists():
        return
    bundle.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "gpt2flow.cli", "export", str(setup.checkpoint), str(bundle)]
    done = subprocess.run([*command, "--profile", _profile(setup)], stdout=sys.stderr, check=False)
    if done.returncode:
        raise RuntimeError(f"gpt2flow export failed with {done.returncode}, see the log")


def find_bundle(setup: Setup) -> Path:
    """Where the bundle is, or is to be: one of another exporter would be another graph."""
    if given := setup.options.get("bundles"):
        return Path(given) / _profile(setup)
    return Path(setup.folder) / _exporter() / _profile(setup)


def _exporter() -> str:
    """Return a name for the exporter as it is now."""
    digest = hashlib.sha256()
    for path in sorted(Path(gpt2flow.export.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _profile(setup: Setup) -> str:
    """The first word of the variant."""
    return setup.variant.split()[0]


def weight_bytes(bundle: Path) -> int:
    """Return what a step of one row reads: the weights without their copy for many rows."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in bundle.glob("model.onnx*"))
    return size - int(manifest["recipe"].get("second_copy_bytes", 0))

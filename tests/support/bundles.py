"""Copies of a bundle that tests replace and damage."""

import json
import shutil
from pathlib import Path


def copy_bundle(bundle: Path, place: Path, **training: str) -> Path:
    """Copy a bundle; extra training facts in its manifest change its fingerprint."""
    shutil.copytree(bundle, place)
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["training"] |= training
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


def copy_damaged_bundle(bundle: Path, place: Path) -> Path:
    """Copy a bundle and flip one bit of its weights."""
    shutil.copytree(bundle, place)
    data = bytearray((place / "model.onnx.data").read_bytes())
    data[1000] ^= 1
    (place / "model.onnx.data").write_bytes(data)
    return place


def swap_bundle(bundle: Path, place: Path) -> None:
    """Replace a bundle by renaming, as an operator should.

    The server may have the old files mapped, so that none of them may be written to.
    """
    place.rename(place.with_name(f"{place.name}.old"))
    bundle.rename(place)
    shutil.rmtree(place.with_name(f"{place.name}.old"))

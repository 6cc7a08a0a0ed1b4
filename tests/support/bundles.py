"""Bundles that tests replace and damage."""

import json
import shutil
from pathlib import Path


def copy_of(bundle: Path, place: Path, **training: str) -> Path:
    """Copy a bundle; facts about its training give it another fingerprint."""
    shutil.copytree(bundle, place)
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["training"] |= training
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


def damaged_copy_of(bundle: Path, place: Path) -> Path:
    """Copy a bundle, with one byte of its weights changed."""
    shutil.copytree(bundle, place)
    data = bytearray((place / "model.onnx.data").read_bytes())
    data[1000] ^= 1
    (place / "model.onnx.data").write_bytes(data)
    return place


def put_in_place(bundle: Path, place: Path) -> None:
    """Replace a bundle by another one, as an operator should: no file is written into."""
    place.rename(place.with_name(f"{place.name}.old"))
    bundle.rename(place)
    shutil.rmtree(place.with_name(f"{place.name}.old"))

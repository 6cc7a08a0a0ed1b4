"""Loading of bundles: files must match the manifest."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt2flow.server.bundle.manifest import Manifest, load_bundle
from gpt2flow.server.errors import BundleError


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def edit_manifest(directory: Path, **changes: Any) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_exported_bundle_loads(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.manifest.shape.layers == 2
    assert loaded.manifest.recipe.profile == "fp32"


def test_the_fingerprint_is_the_hash_of_the_manifest(bundle: Path) -> None:
    data = (bundle / "manifest.json").read_bytes()
    assert load_bundle(bundle).fingerprint == hashlib.sha256(data).hexdigest()


def test_reading_and_writing_keeps_the_bytes_of_a_manifest(bundle: Path) -> None:
    data = (bundle / "manifest.json").read_bytes()
    assert Manifest.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json", "config.json"])
def test_a_changed_byte_is_refused_with_the_file_name(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} does not match"):
        load_bundle(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read: No such file"):
        load_bundle(copy)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere is not a directory"):
        load_bundle(tmp_path / "nowhere")


def test_a_directory_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format_version": 1}'])
def test_an_invalid_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_bundle(copy)


def test_another_format_version_is_refused_with_the_command_that_exports_anew(copy: Path) -> None:
    edit_manifest(copy, format_version=1)
    with pytest.raises(BundleError, match=r"format version 1, must be 2; .* gpt2flow export "):
        load_bundle(copy)


def test_a_bad_field_is_named(copy: Path) -> None:
    shape = json.loads((copy / "manifest.json").read_text())["shape"]
    edit_manifest(copy, shape=shape | {"layers": 0})
    with pytest.raises(BundleError, match=r"shape\.layers"):
        load_bundle(copy)


def test_the_single_end_token_of_an_earlier_bundle_is_read(copy: Path) -> None:
    shape = json.loads((copy / "manifest.json").read_text())["shape"]
    del shape["eos_token_ids"]
    edit_manifest(copy, shape=shape | {"eos_token_id": 7})
    assert load_bundle(copy).manifest.shape.eos_token_ids == [7]
    edit_manifest(copy, shape=shape | {"eos_token_id": -1})
    with pytest.raises(BundleError, match=r"shape\.eos_token_ids\.0"):
        load_bundle(copy)
    edit_manifest(copy, shape=shape | {"eos_token_id": 7, "eos_token_ids": [7]})
    assert load_bundle(copy).manifest.shape.eos_token_ids == [7]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "manifest.json", ""])
def test_files_outside_the_bundle_are_refused(copy: Path, name: str) -> None:
    files = json.loads((copy / "manifest.json").read_text())["files"]
    edit_manifest(copy, files=files | {name: "0" * 64})
    with pytest.raises(BundleError, match="not the name of a file of the bundle"):
        load_bundle(copy)


def test_a_manifest_must_list_the_graph(copy: Path) -> None:
    files = json.loads((copy / "manifest.json").read_text())["files"]
    del files["model.onnx"]
    edit_manifest(copy, files=files)
    with pytest.raises(BundleError, match=r"model\.onnx is not listed"):
        load_bundle(copy)

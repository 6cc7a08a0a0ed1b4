"""A bundle can be inspected with the server installed alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2flow.export import Inspection, Profile, export_bundle, inspect_bundle
from gpt2flow.server.errors import BundleError


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inspect") / "bundle"
    export_bundle(checkpoint, out, profile=Profile.INT8)
    return out


def test_an_inspection_reports_sizes_storage_and_operators(bundle: Path) -> None:
    inspection = inspect_bundle(bundle)
    assert isinstance(inspection, Inspection)
    assert inspection.sizes == {
        path.name: path.stat().st_size for path in bundle.iterdir() if path.name != "manifest.json"
    }
    # Two tables, four matrices of each of two layers, and the head.
    assert inspection.storage == {"8 bits in blocks of 16": 9, "8 bits in blocks of 64": 2}
    assert inspection.operators is not None
    products = ("NormMatMul8", "NormGeluMatMul8", "MatMulAdd8", "NormHead8")
    assert [inspection.operators[f"RowQuant{each}"] for each in products] == [2, 2, 4, 1]
    assert inspection.operators["RaggedAttention"] == 2
    assert inspection.operators["GatherBlockQuantized"] == 2
    assert json.loads(json.dumps(inspection.as_json()))["manifest"]["recipe"]["profile"] == "int8"


WITHOUT_EXPORT_EXTRA = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"onnx", "optimum", "safetensors", "torch", "transformers"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import importlib.util
importlib.util.find_spec = lambda name, find=importlib.util.find_spec: (
    None if name == "onnx" else find(name)
)

from pathlib import Path
from gpt2flow.export import inspect_bundle
print(json.dumps(inspect_bundle(Path(sys.argv[1])).as_json()))
"""


@pytest.mark.process
def test_inspection_works_without_the_export_extra(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXPORT_EXTRA, str(bundle)],
        capture_output=True,
        text=True,
        check=True,
    )
    printed = json.loads(done.stdout)
    assert printed == inspect_bundle(bundle).as_json() | {"operators": None}


def test_a_changed_byte_is_detected(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx\.data does not match"):
        inspect_bundle(copy)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import gpt2flow.export

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gpt2flow.export.nothing  # noqa: B018 - looking it up is the test

"""Profile reference, and the older transformers that it takes."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.command_line import gpt2flow
from tests.support.project import PROJECT
from tests.support.waiting import SECONDS
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2flow.export import MissingPackageError, Profile, export_bundle
from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.verification.reference import ReferenceModel
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model.checkpoints import save_model
from gpt2flow.training.model.model import load_model, new_model, sizes_of

pytestmark = pytest.mark.process

PYTHON = PROJECT / "build" / "reference" / "bin" / "python"
# Whatever needs Optimum, and the tests that depend most on the release of transformers.
CHECKS = (
    "tests/export/reference_check.py",
    "tests/export/checkpoint/test_every_vocabulary.py",
    "tests/export/checkpoint/test_special_ids.py",
)
TOKENS = torch.arange(20)[None]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, checkpoint: Path) -> Path:
    """Directory in which both environments have left their checkpoints."""
    directory = tmp_path_factory.mktemp("exchange")
    config = TrainingConfig(
        vocabulary_size=113, context_length=64, layers=2, width=48, heads=3, precision="fp32"
    )
    model = GPT2LMHeadModel.from_pretrained(checkpoint)
    trained = new_model(config, end_id=0)
    trained.load_state_dict(model.state_dict())
    (directory / "new").mkdir()
    save_model(directory / "new", trained, tokenizer)
    for name in ("eval.txt", "calibration.txt"):
        shutil.copyfile(checkpoint / name, directory / "new" / name)
    export_bundle(directory / "new", directory / "bundle", profile=Profile.FP32)
    assert PYTHON.exists(), "the environment of Optimum is missing; run `make reference`"
    left_out = ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHECKS],
        cwd=PROJECT,
        env=environment | {"GPT2FLOW_EXCHANGE": str(directory)},
        capture_output=True,
        text=True,
        timeout=8 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    return directory


def test_a_checkpoint_of_training_loads_in_transformers_4(exchange: Path) -> None:
    with torch.no_grad():
        expected = GPT2LMHeadModel.from_pretrained(exchange / "new").eval()(TOKENS).logits
    np.testing.assert_allclose(np.load(exchange / "logits.npy"), expected.numpy(), atol=1e-4)


def test_a_checkpoint_of_transformers_4_loads_in_training_and_export(exchange: Path) -> None:
    old = exchange / "old"
    sizes = sizes_of(old)
    assert sizes == {
        "vocabulary_size": 113,
        "context_length": 64,
        "layers": 2,
        "width": 48,
        "heads": 3,
    }
    model = load_model(old, TrainingConfig(**sizes, precision="fp32")).eval()
    expected = np.load(exchange / "logits.npy")[0]
    with torch.no_grad():
        np.testing.assert_allclose(model(TOKENS).logits[0].numpy(), expected, atol=1e-4)
    reference = ReferenceModel(read_checkpoint(old))
    np.testing.assert_allclose(reference.logits(TOKENS[0].numpy()), expected, atol=1e-4)
    texts = "<|user|>Where is my parcel?", "<|endoftext|>"
    for text in texts:
        ids = AutoTokenizer.from_pretrained(old)(text).input_ids
        assert read_checkpoint(old).tokenizer.encode(text).ids == ids


def test_without_optimum_the_reference_is_refused_with_what_to_install(
    checkpoint: Path, tmp_path: Path
) -> None:
    message = (
        "profile reference needs the package 'optimum-onnx', which takes transformers before 4.58: "
        "pip install 'gpt2flow[reference]' in an environment of its own"
    )
    with pytest.raises(MissingPackageError) as caught:
        export_bundle(checkpoint, tmp_path / "bundle", profile=Profile.REFERENCE)
    assert str(caught.value).startswith(message)
    command = ["export", str(checkpoint), str(tmp_path / "bundle"), "--profile", "reference"]
    returned, out, err = gpt2flow(*command, cwd=tmp_path)
    assert (returned, out) == (2, "")
    assert err.startswith(f"gpt2flow: error: {message}")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())

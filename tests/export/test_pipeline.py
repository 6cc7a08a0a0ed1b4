"""A bundle is verified, reproducible, and written completely or not at all."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tests.support.command_line import gpt2flow
from transformers import GPT2LMHeadModel

from gpt2flow.export import (
    CheckpointError,
    ExportError,
    InputError,
    OutputError,
    Profile,
    QualityGateError,
    export_bundle,
)
from gpt2flow.export.verification.evaluation_text import DEFAULT_TEXT
from gpt2flow.server.bundle.manifest import Manifest, file_sha256, load_bundle

pytestmark = pytest.mark.process

SERVED = (Profile.FP32, Profile.INT8, Profile.INT4)
SERVING_FILES = {
    "config.json",
    "generation_config.json",
    "model.onnx",
    "model.onnx.data",
    "tokenizer.json",
}


@pytest.fixture(scope="module")
def bundles(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Profile, Path]:
    """Bundles of every profile that is served; tests must not change them."""
    directory = tmp_path_factory.mktemp("bundles")
    for profile in SERVED:
        export_bundle(checkpoint, directory / profile, profile=profile)
    return {profile: directory / profile for profile in SERVED}


@pytest.fixture(scope="module")
def coarse_checkpoint(
    trained: GPT2LMHeadModel,
    save_checkpoint: Callable[[GPT2LMHeadModel, Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The trained model, rescaled so that 8-bit blocks lose most weights."""
    directory = tmp_path_factory.mktemp("coarse") / "checkpoint"
    save_checkpoint(trained, directory)
    model = GPT2LMHeadModel.from_pretrained(directory)
    with torch.no_grad():
        for block in model.transformer.h:
            for norm, linear in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
                norm.weight[::16] /= 1000
                norm.bias[::16] /= 1000
                linear.weight[::16] *= 1000
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("profile", SERVED)
def test_a_bundle_has_its_files_and_a_matching_manifest(
    bundles: dict[Profile, Path], checkpoint: Path, trained: GPT2LMHeadModel, profile: Profile
) -> None:
    bundle = load_bundle(bundles[profile])
    manifest = bundle.manifest
    names = {path.name for path in bundle.directory.iterdir()}
    assert names == SERVING_FILES | {"manifest.json"}
    assert set(manifest.files) == SERVING_FILES
    for name in ("config.json", "tokenizer.json"):
        assert (bundle.directory / name).read_bytes() == (checkpoint / name).read_bytes()
    assert manifest.source.parameters == trained.num_parameters()
    assert manifest.training == {"corpus": "six documents"}
    assert manifest.shape.model_dump() == {
        "layers": 2,
        "heads": 3,
        "head_size": 16,
        "hidden_size": 48,
        "context_length": 64,
        "vocabulary_size": 113,
        "eos_token_ids": [0],
        "bos_token_id": 0,
    }
    recipe = manifest.recipe
    assert recipe.profile == profile
    stored = {operator.bits for operator in recipe.operators.values()}
    if profile is Profile.FP32:
        assert (recipe.kv_cache, recipe.calibration) == ("fp32", None)
        assert stored == {32}
    else:
        assert recipe.kv_cache == "int8"
        digest = file_sha256(checkpoint / "calibration.txt")
        assert recipe.calibration == f"calibration.txt sha256:{digest}"
        assert stored == ({8} if profile is Profile.INT8 else {4, 8})
        assert recipe.operators["lm_head"].block_size == 16
        assert recipe.operators["wte"].bits == 8
    assert manifest.created_by["onnxruntime"] == onnxruntime.__version__


def test_quality_is_measured_on_the_text_of_the_checkpoint(
    bundles: dict[Profile, Path], checkpoint: Path, trained: GPT2LMHeadModel, tokenizer: Any
) -> None:
    """The perplexity of the reference agrees with PyTorch's."""
    nats, tokens = 0.0, 0
    for document in (checkpoint / "eval.txt").read_text().split("<|endoftext|>\n")[:-1]:
        ids = torch.tensor([[*tokenizer.encode(document).ids, 0]])
        with torch.no_grad():
            nats += trained(ids, labels=ids).loss.item() * (ids.numel() - 1)
        tokens += ids.numel() - 1
    digest = file_sha256(checkpoint / "eval.txt")
    for profile, directory in bundles.items():
        quality = load_bundle(directory).manifest.quality
        assert quality is not None
        assert quality.text == f"eval.txt sha256:{digest}"
        assert quality.tokens == tokens
        assert quality.perplexity_fp32 == pytest.approx(np.exp(nats / tokens), rel=1e-4)
        assert not quality.forced
        if profile in {Profile.INT8, Profile.INT4}:
            assert quality.perplexity != quality.perplexity_fp32
            assert 0 < quality.mean_kl < 0.01
            assert 0.95 < quality.argmax_agreement <= 1
            assert quality.gate == (1.01 if profile is Profile.INT8 else 1.03)
            assert quality.perplexity_ratio <= quality.gate
        else:
            assert quality.perplexity_ratio == pytest.approx(1, abs=1e-5)
            assert quality.argmax_agreement == 1


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT4])
def test_exports_are_reproducible_byte_for_byte(
    bundles: dict[Profile, Path], checkpoint: Path, tmp_path: Path, profile: Profile
) -> None:
    elsewhere = shutil.copytree(checkpoint, tmp_path / "elsewhere")
    export_bundle(elsewhere, tmp_path / "again", profile=profile)
    for path in bundles[profile].iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_bundle_that_misses_its_gate_is_refused(coarse_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(QualityGateError) as caught:
        export_bundle(coarse_checkpoint, tmp_path / "bundle", profile=Profile.INT8)
    error = caught.value
    assert error.perplexity > 1.01 * error.perplexity_fp32
    for figure in (error.perplexity, error.perplexity_fp32):
        assert f"{figure:.6g}" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_forced_bundle_is_written_and_marked(coarse_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    manifest = export_bundle(coarse_checkpoint, out, profile=Profile.INT8, force=True)
    assert manifest.quality is not None
    assert manifest.quality.forced
    assert manifest.quality.perplexity_ratio > 1.01
    assert load_bundle(out).manifest == manifest


def test_another_evaluation_text_can_be_given(checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("I want my money back.")
    manifest = export_bundle(
        checkpoint, tmp_path / "bundle", profile=Profile.INT8, eval_text=text, force=True
    )
    assert manifest.quality is not None
    assert manifest.quality.text == f"mine.txt sha256:{file_sha256(text)}"


def test_a_checkpoint_without_texts_is_measured_and_calibrated_on_the_default_text(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    for name in ("eval.txt", "calibration.txt"):
        (source / name).unlink()
    manifest = export_bundle(source, tmp_path / "bundle", profile=Profile.INT8, force=True)
    name = f"default_text.txt sha256:{file_sha256(DEFAULT_TEXT)}"
    assert manifest.quality is not None
    assert (manifest.quality.text, manifest.recipe.calibration) == (name, name)


@pytest.mark.parametrize("kind", ["directory", "empty directory", "file", "dangling link"])
def test_an_existing_target_is_refused_and_left_alone(
    checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "bundle"
    if kind == "file":
        out.write_text("mine")
    elif kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if kind == "directory":
            (out / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        OutputError, match=r"bundle exists already; remove it or choose another path$"
    ):
        export_bundle(checkpoint, out, profile=Profile.INT8)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_uncreatable_target_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/bundle cannot be created: "):
        export_bundle(checkpoint, tmp_path / "file" / "bundle", profile=Profile.INT8)


def test_a_bad_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        export_bundle(tmp_path / "nowhere", tmp_path / "bundle", profile=Profile.INT8)
    assert list(tmp_path.iterdir()) == []


def test_missing_parents_are_created(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "some" / "where" / "bundle"
    export_bundle(checkpoint, out, profile=Profile.FP32)
    assert load_bundle(out).directory == out
    assert list(out.parent.iterdir()) == [out]


def test_progress_is_reported_and_nothing_is_printed(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reports: list[tuple[str, int, int]] = []
    whole_at_the_end = []

    def record(stage: str, done: int, total: int) -> None:
        reports.append((stage, done, total))
        if stage == "write" and done == total:
            whole_at_the_end.append((tmp_path / "bundle" / "manifest.json").exists())

    export_bundle(
        checkpoint,
        tmp_path / "bundle",
        profile=Profile.INT4,
        mixed_precision_budget=0.0,
        progress=record,
    )
    assert list(dict.fromkeys(stage for stage, _, _ in reports)) == [
        "read",
        "reference",
        "calibrate",
        "quantize",
        "graph",
        "verify",
        "write",
    ]
    last = {stage: (done, total) for stage, done, total in reports}
    assert all(done == total > 0 for done, total in last.values())
    assert whole_at_the_end == [True]
    assert capfd.readouterr() == ("", "")


def test_the_command_prints_stages_and_warnings(checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    fields = json.loads((source / "config.json").read_text())
    del fields["model_type"]
    (source / "config.json").write_text(json.dumps(fields))
    command = ["export", str(source), str(tmp_path / "bundle"), "--profile", "fp32"]
    returned, out, err = gpt2flow(*command, cwd=tmp_path)
    assert returned == 0
    assert "perplexity 1.0000" in out
    warning = "config.json: model_type is missing; its other fields are of 'gpt2'"
    lines = [re.sub(r"^ *\d+ s  ", "", line) for line in err.splitlines()]
    assert lines == [
        "Reading the checkpoint",
        f"gpt2flow: warning: {warning}",
        "Loading the reference model",
        "Writing the graph",
        "Verifying against the reference",
        "Writing the manifest",
    ]
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.warnings == [warning]
    assert json.loads((tmp_path / "bundle" / "config.json").read_text())["model_type"] == "gpt2"


EXPORT_THAT_WAITS = """
import json, sys, time
from pathlib import Path
from gpt2flow.export import Profile, export_bundle

def progress(stage, done, total):
    if stage == sys.argv[3]:
        print(stage, flush=True)
        time.sleep(600)

export_bundle(Path(sys.argv[1]), Path(sys.argv[2]), profile=Profile.INT8, progress=progress)
"""


@pytest.mark.parametrize("stage", ["graph", "write"])
def test_a_killed_export_leaves_nothing_at_its_target(
    checkpoint: Path, tmp_path: Path, stage: str
) -> None:
    out = tmp_path / "bundle"
    command = [sys.executable, "-c", EXPORT_THAT_WAITS, str(checkpoint), str(out), stage]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{stage}\n"
        process.send_signal(signal.SIGKILL)
        # A fresh process prints nothing while it imports the libraries.
        assert process.communicate() == ("", "")
    assert process.returncode == -signal.SIGKILL
    # It was killed while writing, so its staging directory is left beside the target.
    assert list(tmp_path.rglob("model.onnx.data"))
    assert not out.exists()
    export_bundle(checkpoint, out, profile=Profile.INT8)
    assert load_bundle(out).directory == out
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_size_limit_is_one_error_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    """The limit makes the libraries' own writing fail, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ExportError, match="File too large") as caught:
            export_bundle(checkpoint, tmp_path / "bundle", profile=Profile.INT8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_error_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ExportError, match=r"bundle cannot be written: No space left on device$"):
        export_bundle(checkpoint, tmp_path / "bundle", profile=Profile.INT8)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_reads_back_as_it_was_written(bundles: dict[Profile, Path]) -> None:
    for directory in bundles.values():
        data = (directory / "manifest.json").read_bytes()
        assert Manifest.from_bytes(data).to_bytes() == data

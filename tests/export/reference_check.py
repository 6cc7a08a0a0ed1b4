"""Optimum's graph and transformers 4, in the environment that `make reference` makes.

`test_reference.py` runs this there. Checkpoints are exchanged through a directory, which the
variable `GPT2FLOW_EXCHANGE` names.
"""

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optimum.onnxruntime import ORTModelForCausalLM
from tests.support.command_line import gpt2flow
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2flow.export import CheckpointError, InputError, Profile, export_bundle, restore_checkpoint
from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.quantization.calibration import find_texts
from gpt2flow.export.verification.optimum_graph import OptimumGraph
from gpt2flow.export.verification.quality import measure
from gpt2flow.server.bundle.manifest import load_bundle
from gpt2flow.server.bundle.model_runner import ModelRunner, RunnerError


@pytest.fixture(scope="module")
def exchange() -> Path:
    """Directory of checkpoints; `new` is one of the other environment."""
    return Path(os.environ["GPT2FLOW_EXCHANGE"])


@pytest.fixture(scope="module")
def reference(exchange: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of the profile reference; tests must not change it."""
    out = tmp_path_factory.mktemp("reference") / "bundle"
    export_bundle(exchange / "new", out, profile=Profile.REFERENCE)
    return out


def test_the_environment_has_the_transformers_of_optimum() -> None:
    assert version("transformers").startswith("4.57.")


def test_the_reference_loads_in_optimum_and_generates_as_transformers(
    make_model: Any, save_checkpoint: Any, tmp_path: Path
) -> None:
    """Inverse layer scaling is exported, though transformers' default attention lacks it."""
    model = make_model(n_layer=3, scale_attn_by_inverse_layer_idx=True)
    source = save_checkpoint(model, tmp_path / "checkpoint")
    (source / "eval.txt").unlink()
    manifest = export_bundle(source, tmp_path / "bundle", profile=Profile.REFERENCE)
    assert manifest.quality is None
    assert load_bundle(tmp_path / "bundle").manifest == manifest
    loaded = ORTModelForCausalLM.from_pretrained(tmp_path / "bundle")
    prompt = torch.tensor([[5, 9, 40, 7]])
    options: dict[str, Any] = {
        "attention_mask": torch.ones_like(prompt),
        "max_new_tokens": 20,
        "do_sample": False,
        "pad_token_id": 0,
    }
    expected = model.generate(prompt, **options)
    assert torch.equal(loaded.generate(prompt, **options), expected)
    with torch.no_grad():
        np.testing.assert_allclose(
            loaded(prompt, attention_mask=torch.ones_like(prompt)).logits.numpy(),
            model(prompt).logits.numpy(),
            atol=1e-4,
        )


def test_the_quality_of_the_reference_is_that_of_its_graph(reference: Path) -> None:
    manifest = load_bundle(reference).manifest
    assert manifest.created_by["optimum-onnx"] == version("optimum-onnx")
    quality = manifest.quality
    assert quality is not None
    # The graph and PyTorch round differently.
    assert 0 <= quality.mean_kl < 1e-6
    assert quality.perplexity_ratio == pytest.approx(1, abs=1e-5)
    assert quality.argmax_agreement == 1


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT8, Profile.INT4])
def test_a_bundle_predicts_as_the_graph_of_optimum(
    exchange: Path, reference: Path, profile: Profile, tmp_path: Path
) -> None:
    """The oracle is a graph that nothing of this project wrote."""
    export_bundle(exchange / "new", tmp_path / "bundle", profile=profile)
    source = read_checkpoint(exchange / "new")
    text = find_texts(source, None, None, measured=True, calibrated=False).evaluation
    assert text is not None
    graph = OptimumGraph(reference, source.architecture)
    model = tmp_path / "bundle" / "model.onnx"
    quality = measure(text, graph, model, on_tokens=lambda _done, _total: None).whole
    assert quality.tokens == text.predictions
    if profile is Profile.FP32:
        assert quality.mean_kl < 1e-6
        assert quality.argmax_agreement == 1
    else:
        assert 0 < quality.mean_kl < 0.01
        assert quality.perplexity_ratio < 1.03
        assert quality.argmax_agreement > 0.95


def test_the_fp32_bundle_is_that_of_the_other_environment(exchange: Path, tmp_path: Path) -> None:
    export_bundle(exchange / "new", tmp_path / "bundle", profile=Profile.FP32)
    for name in ("config.json", "model.onnx", "model.onnx.data", "tokenizer.json"):
        ours = (tmp_path / "bundle" / name).read_bytes()
        assert ours == (exchange / "bundle" / name).read_bytes(), name


def test_the_reference_is_neither_served_nor_restored(reference: Path, tmp_path: Path) -> None:
    returned, _, err = gpt2flow("serve", "--model", str(reference), cwd=tmp_path)
    assert returned == 2
    assert err == (
        f"gpt2flow: error: {reference} has the profile reference, which cannot be served; export "
        "the checkpoint with --profile fp32, int8 or int4\n"
    )
    with pytest.raises(RunnerError, match=r"model\.onnx is not a serving graph; gpt2flow export "):
        ModelRunner(reference / "model.onnx", slots=1, capacity=8, threads=1)
    with pytest.raises(InputError, match="profile reference; a checkpoint is restored from"):
        restore_checkpoint(reference, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_reports_stages_and_quality(exchange: Path, tmp_path: Path) -> None:
    command = ["export", str(exchange / "new"), str(tmp_path / "bundle"), "--profile", "reference"]
    returned, out, err = gpt2flow(*command, cwd=tmp_path)
    assert returned == 0, err
    assert "perplexity 1.0000" in out
    assert "Writing the graph" in err


def test_code_that_a_configuration_names_is_not_loaded(exchange: Path, tmp_path: Path) -> None:
    """transformers 4 would ask the hub for it."""
    source = shutil.copytree(exchange / "new", tmp_path / "checkpoint")
    fields = json.loads((source / "config.json").read_text())
    code = dict.fromkeys(["_attn_implementation", "_attn_implementation_internal"], "some/kernel")
    (source / "config.json").write_text(json.dumps(fields | code))
    manifest = export_bundle(source, tmp_path / "bundle", profile=Profile.REFERENCE)
    assert manifest.quality is not None
    assert manifest.quality.argmax_agreement == 1


@pytest.mark.parametrize("templates", [[{"name": "../../out", "template": "x"}], {"a/b": "x"}])
def test_a_chat_template_named_like_a_path_is_refused(
    exchange: Path, templates: object, tmp_path: Path
) -> None:
    """transformers 4 would write it to a file of that name."""
    source = shutil.copytree(exchange / "new", tmp_path / "checkpoint")
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(
        json.dumps(settings | {"chat_template": templates})
    )
    with pytest.raises(CheckpointError, match=r"_config\.json: chat_template has the name"):
        export_bundle(source, tmp_path / "bundle", profile=Profile.REFERENCE)
    assert list(tmp_path.iterdir()) == [source]


def test_checkpoints_are_exchanged(tokenizer: Any, exchange: Path) -> None:
    """The other environment compares what it finds in `old` and `logits.npy`."""
    tokens = torch.arange(20)[None]
    model = GPT2LMHeadModel.from_pretrained(exchange / "new").eval()
    with torch.no_grad():
        np.save(exchange / "logits.npy", model(tokens).logits.numpy())
    loaded = AutoTokenizer.from_pretrained(exchange / "new")
    text = "<|user|>Where is my parcel?<|endoftext|>"
    assert loaded(text).input_ids == tokenizer.encode(text).ids
    model.save_pretrained(exchange / "old")
    loaded.save_pretrained(exchange / "old")

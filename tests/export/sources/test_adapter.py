"""A merged LoRA adapter computes what PEFT computes without merging it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.export.conftest import MakeModel
from transformers import GPT2LMHeadModel

from gpt2flow.export import AdapterError, InputError, Profile, export_bundle
from gpt2flow.export.sources.prepare import Origin
from gpt2flow.server.bundle.manifest import load_bundle

MATRICES = ["c_attn", "c_proj", "c_fc"]
# Settings of adapters that can be merged.
MERGED: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["c_attn"], "r": 4, "lora_alpha": 12},
    "all matrices": {"target_modules": MATRICES, "fan_in_fan_out": True},
    "rank-stabilized": {"target_modules": MATRICES, "use_rslora": True, "lora_alpha": 3},
    "ranks by pattern": {
        "target_modules": MATRICES,
        "rank_pattern": {"h.1.attn.c_attn": 2, "c_fc": 5},
        "alpha_pattern": {"attn.c_proj": 20, "^transformer.h.0.mlp.c_proj": 3},
    },
    "some layers": {"target_modules": ["c_fc"], "layers_to_transform": [1]},
    "bias of the adapted": {"target_modules": ["c_attn"], "bias": "lora_only"},
    "every bias": {"target_modules": ["c_fc"], "bias": "all"},
    "bias of the update": {"target_modules": ["c_attn", "c_fc"], "lora_bias": True},
    "another head": {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]},
    "other embeddings": {"target_modules": ["c_attn"], "modules_to_save": ["wte", "wpe"]},
    "other norms": {"target_modules": ["c_attn"], "modules_to_save": ["ln_f", "ln_1"]},
    "embeddings and head": {"target_modules": ["wte", "wpe", "lm_head"]},
}


def with_adapter(model: GPT2LMHeadModel, **settings: Any) -> Any:
    """Return PEFT's model with an adapter whose parameters are all random."""
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 3, **settings})
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return adapted.eval()


@pytest.fixture
def base(
    make_model: MakeModel, save_checkpoint: Callable[[GPT2LMHeadModel, Path], Path], tmp_path: Path
) -> Path:
    return save_checkpoint(make_model(), tmp_path / "base")


def save_adapter(base: Path, directory: Path, **settings: Any) -> Path:
    model = GPT2LMHeadModel.from_pretrained(base)
    model.config._name_or_path = str(base)
    with_adapter(model, **settings).save_pretrained(directory)
    return directory


def prepare(given: Path, tmp_path: Path, base: Path | None = None) -> Path:
    """Return the checkpoint that an export of an adapter reads."""
    origin = Origin(given, base=base)
    prepared = origin.prepare(tmp_path / "merged", lambda *_: None, lambda _: None)
    assert prepared.models == ()
    return prepared.directory


def refusal(given: Path, tmp_path: Path, base: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        prepare(given, tmp_path, base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def logits(model: Any) -> np.ndarray[Any, Any]:
    ids = torch.arange(40)[None] % 113
    with torch.no_grad():
        array: np.ndarray[Any, Any] = model.double()(ids).logits.numpy()
    return array


@pytest.mark.parametrize("name", MERGED)
def test_a_merged_adapter_computes_what_peft_computes(
    base: Path, tmp_path: Path, name: str
) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", **MERGED[name])
    expected = logits(
        peft.PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), adapter).eval()
    )
    merged = logits(GPT2LMHeadModel.from_pretrained(prepare(adapter, tmp_path)))
    assert np.abs(expected - logits(GPT2LMHeadModel.from_pretrained(base))).max() > 0.1
    np.testing.assert_allclose(merged, expected, atol=2e-5)


def test_a_vocabulary_that_grew_with_the_adapter_is_taken(base: Path, tmp_path: Path) -> None:
    model = GPT2LMHeadModel.from_pretrained(base)
    model.resize_token_embeddings(120)
    model.config._name_or_path = str(base)
    adapted = with_adapter(model, target_modules=["c_attn"])
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    expected = logits(adapted)
    merged = prepare(tmp_path / "adapter", tmp_path)
    assert json.loads((merged / "config.json").read_text())["vocab_size"] == 120
    np.testing.assert_allclose(logits(GPT2LMHeadModel.from_pretrained(merged)), expected, atol=2e-5)


def test_pickled_weights_of_an_adapter_are_read(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", **MERGED["all matrices"])
    whole = prepare(adapter, tmp_path) / "model.safetensors"
    content = whole.read_bytes()
    shutil.rmtree(whole.parent)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    prepare(adapter, tmp_path)
    assert whole.read_bytes() == content


def test_an_adapter_becomes_a_verified_bundle(base: Path, tmp_path: Path) -> None:
    """The adapter's own text comes before that of its base."""
    adapter = save_adapter(base, tmp_path / "adapter", **MERGED["all matrices"])
    (adapter / "eval.txt").write_text("A parcel of the adapter")
    stages: dict[str, int] = {}
    manifest = export_bundle(
        adapter,
        tmp_path / "bundle",
        profile=Profile.FP32,
        progress=lambda stage, done, _: stages.update({stage: done}),
    )
    assert stages["merge"] == 8
    assert manifest.quality is not None
    assert manifest.quality.text.startswith("eval.txt ")
    assert manifest.quality.tokens < 60
    assert manifest.quality.perplexity_ratio == pytest.approx(1, abs=1e-5)
    assert load_bundle(tmp_path / "bundle").manifest == manifest
    assert {path.name for path in tmp_path.iterdir()} == {"base", "adapter", "bundle"}


def test_the_base_model_is_the_given_one(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", **MERGED["attention"])
    base.rename(tmp_path / "moved")
    assert refusal(adapter, tmp_path) == (
        f"{base}, the base model of {adapter}, is no directory; give it with --base"
    )
    assert (prepare(adapter, tmp_path, tmp_path / "moved") / "model.safetensors").is_file()
    assert "is no adapter: it has no adapter_config.json" in refusal(
        tmp_path / "moved", tmp_path, tmp_path / "moved"
    )
    shutil.rmtree(tmp_path / "merged")
    assert "is no checkpoint: it has no config.json" in refusal(adapter, tmp_path, adapter)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("peft_type", "IA3", "peft_type is 'IA3'; only 'LORA' can be merged"),
        ("peft_type", None, "peft_type is None; only 'LORA' can be merged"),
        ("use_dora", True, "use_dora is True; it cannot be merged exactly"),
        ("alora_invocation_tokens", [3], "alora_invocation_tokens is [3]; it cannot be merged"),
        ("trainable_token_indices", [3], "trainable_token_indices is [3]; it cannot be merged"),
        ("layer_replication", [[0, 2]], "layer_replication is [[0, 2]]; it cannot be merged"),
        ("of_a_later_peft", 1, "of_a_later_peft is 1; it cannot be merged exactly"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'; it changes the base model"),
        ("r", 0, "r is 0; it must be a number above 0"),
        ("r", 4, "the matrices of h.0.attn.c_attn have the shapes (3, 48) and (144, 3)"),
        ("lora_alpha", "8", "lora_alpha is '8'; it must be a number above 0"),
        ("rank_pattern", {"(": 2}, "rank_pattern is '('; it is no regular expression"),
        ("alpha_pattern", [1], "alpha_pattern is [1]; it must be an object of numbers"),
        ("base_model_name_or_path", None, "names no base model; give it with --base"),
        ("base_model_name_or_path", 3, "base_model_name_or_path is 3; it must be a text"),
    ],
)
def test_an_adapter_that_cannot_be_merged_exactly_is_refused(
    base: Path, tmp_path: Path, field: str, value: Any, message: str
) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=["c_attn"])
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert message in refusal(adapter, tmp_path)


NAME = "base_model.model.transformer.h.0.attn.c_attn"
OTHER = f"{NAME.replace('c_attn', 'c_proj')}.lora_A.weight"


def nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{NAME}.lora_A.weight"][0, 0] = torch.nan


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda t: t.clear(), "holds no weights"),
        (lambda t: t.pop(f"{NAME}.lora_A.weight"), "holds only one of the two matrices of h.0"),
        (lambda t: t.update({OTHER: torch.ones(3, 48)}), "holds only one of the two matrices of"),
        (
            lambda t: t.update({f"{NAME}.lora_magnitude_vector": torch.ones(144)}),
            "lora_magnitude_vector, which cannot be merged exactly",
        ),
        (
            lambda t: t.update({"base_model.model.score.weight": torch.ones(2, 48)}),
            "the adapter holds score.weight, which its base model does not have",
        ),
        (
            lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(120, 48)}),
            "the merged model has 113 embeddings, and a head of 120 rows",
        ),
        (
            lambda t: t.update({"base_model.model.transformer.ln_f.weight": torch.ones(2)}),
            "ln_f.weight has the shape (2,) in the adapter, and (48,) in its base model",
        ),
        (nan, "lora_A.weight holds a value that is NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    base: Path, tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=["c_attn"])
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    assert message in refusal(adapter, tmp_path)


def test_an_adapter_without_or_with_damaged_weights_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=["c_attn"])
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "adapter_model.safetensors cannot be read as weights" in refusal(adapter, tmp_path)
    weights.unlink()
    shutil.rmtree(tmp_path / "merged")
    assert "is an adapter without weights" in refusal(adapter, tmp_path)
    with pytest.raises(AdapterError):
        export_bundle(adapter, tmp_path / "bundle", profile=Profile.FP32)
    assert not (tmp_path / "bundle").exists()

"""A bundle is restored to the checkpoint that the server computes with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.support.vocabularies import SENTENCES
from tests.support.vocabulary_models import make_model
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2flow.export import (
    Method,
    OutputError,
    Profile,
    export_bundle,
    restore_checkpoint,
)
from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.server.errors import BundleError

pytestmark = pytest.mark.process


def _weights(directory: Path) -> dict[str, Any]:
    return load_file(directory / "model.safetensors")


def test_fp32_weights_are_those_of_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    export_bundle(checkpoint, tmp_path / "bundle", profile=Profile.FP32)
    parameters = restore_checkpoint(tmp_path / "bundle", tmp_path / "restored")
    trained = GPT2LMHeadModel.from_pretrained(checkpoint)
    restored = GPT2LMHeadModel.from_pretrained(tmp_path / "restored")
    assert parameters == trained.num_parameters()
    for name, weight in trained.state_dict().items():
        assert torch.equal(restored.state_dict()[name], weight), name
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "restored" / name).read_bytes() == (checkpoint / name).read_bytes()


@pytest.mark.parametrize("kind", ["prefixed byte-level BPE", "Unigram"])
def test_a_restored_tokenizer_is_that_of_the_bundle(kind: str, tmp_path: Path) -> None:
    made = make_model(kind, tmp_path)
    restore_checkpoint(made.bundle, tmp_path / "restored")
    restored = AutoTokenizer.from_pretrained(tmp_path / "restored")
    text = " ".join((*SENTENCES, *made.tokenizer.all_special_tokens, "<|endoftext|>"))
    assert restored(text).input_ids == made.ids(text)
    again = read_checkpoint(tmp_path / "restored").tokenizer_json
    assert again == (made.bundle / "tokenizer.json").read_bytes()


def test_restored_8_bit_weights_round_to_the_same_codes(checkpoint: Path, tmp_path: Path) -> None:
    export_bundle(checkpoint, tmp_path / "first", profile=Profile.INT8)
    restore_checkpoint(tmp_path / "first", tmp_path / "restored")
    restored = tmp_path / "restored"
    for name in ("eval.txt", "calibration.txt"):
        (restored / name).write_bytes((checkpoint / name).read_bytes())
    export_bundle(restored, tmp_path / "again", profile=Profile.INT8)
    restore_checkpoint(tmp_path / "again", tmp_path / "twice")
    once, twice = _weights(restored), _weights(tmp_path / "twice")
    for name, weight in once.items():
        np.testing.assert_allclose(twice[name], weight, rtol=1e-6, atol=1e-7, err_msg=name)
    assert any((once[name] != weight).any() for name, weight in _weights(checkpoint).items())


@pytest.mark.parametrize("method", Method)
def test_restored_4_bit_weights_have_16_values_a_block(
    checkpoint: Path, tmp_path: Path, method: Method
) -> None:
    bundle, restored = tmp_path / "bundle", tmp_path / "restored"
    export_bundle(
        checkpoint,
        bundle,
        profile=Profile.INT4,
        method=method,
        mixed_precision_budget=0.0,
        force=True,
    )
    restore_checkpoint(bundle, restored)
    name = "transformer.h.0.mlp.c_fc.weight"
    weight, trained = _weights(restored)[name], _weights(checkpoint)[name]
    blocks = weight.T.reshape(-1, 16)
    assert max(len(np.unique(block)) for block in blocks) <= 16
    assert np.abs(weight - trained).max() < np.abs(trained).max() / 4
    assert np.corrcoef(weight.ravel(), trained.ravel())[0, 1] > 0.99


def test_padding_of_heads_and_an_untied_head_are_undone(
    make_model: Callable[..., GPT2LMHeadModel],
    save_checkpoint: Callable[[GPT2LMHeadModel, Path], Path],
    tmp_path: Path,
) -> None:
    model = make_model(n_embd=40, n_head=5, tie_word_embeddings=False)
    checkpoint = save_checkpoint(model, tmp_path / "checkpoint")
    for profile in (Profile.FP32, Profile.INT8):
        bundle, restored = tmp_path / profile, tmp_path / f"restored-{profile}"
        export_bundle(checkpoint, bundle, profile=profile, force=True)
        restore_checkpoint(bundle, restored)
        found = _weights(restored)
        for name, weight in _weights(checkpoint).items():
            assert found[name].shape == weight.shape, name
            bound = 0.0 if profile is Profile.FP32 else np.abs(weight).max() / 100
            assert np.abs(found[name] - weight).max() <= bound, name


def test_an_existing_directory_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    export_bundle(checkpoint, tmp_path / "bundle", profile=Profile.FP32)
    with pytest.raises(OutputError, match="exists already"):
        restore_checkpoint(tmp_path / "bundle", tmp_path)


def test_a_damaged_bundle_is_named(checkpoint: Path, tmp_path: Path) -> None:
    export_bundle(checkpoint, tmp_path / "bundle", profile=Profile.FP32)
    (tmp_path / "bundle" / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json does not match"):
        restore_checkpoint(tmp_path / "bundle", tmp_path / "out")
    with pytest.raises(BundleError, match="is not a directory"):
        restore_checkpoint(tmp_path / "nothing", tmp_path / "out")

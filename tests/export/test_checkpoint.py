"""Checkpoints of every format read the same; what cannot be exported is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2flow.export.checkpoint import read_checkpoint
from gpt2flow.export.errors import CheckpointError

SAFETENSORS = "model.safetensors"
BIN = "pytorch_model.bin"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_weights(directory: Path, write: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / SAFETENSORS).items()}
    (directory / SAFETENSORS).unlink()
    write(tensors)


def shard(directory: Path, suffix: str, write: Callable[[Any, Path], None]) -> None:
    """Splits the weights into two shards with an index."""

    def write_shards(tensors: dict[str, torch.Tensor]) -> None:
        names = sorted(tensors)
        weight_map: dict[str, str] = {}
        for number, part in enumerate((names[::2], names[1::2]), start=1):
            file = f"part-{number}{suffix}"
            write({name: tensors[name] for name in part}, directory / file)
            weight_map |= dict.fromkeys(part, file)
        single = SAFETENSORS if suffix == ".safetensors" else BIN
        (directory / f"{single}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    replace_weights(directory, write_shards)


def _as_bin(directory: Path) -> None:
    replace_weights(directory, lambda tensors: torch.save(tensors, directory / BIN))


def _as_old_bin(directory: Path) -> None:
    replace_weights(
        directory,
        lambda tensors: torch.save(tensors, directory / BIN, _use_new_zipfile_serialization=False),
    )


def _with_buffers_and_no_prefix(directory: Path) -> None:
    """As the checkpoints that OpenAI's weights were first converted to."""

    def write(tensors: dict[str, torch.Tensor]) -> None:
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        bare["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        bare["h.0.attn.masked_bias"] = torch.tensor(-1e4)
        bare["lm_head.weight"] = bare["wte.weight"].clone()
        torch.save(bare, directory / BIN)

    replace_weights(directory, write)


FORMATS: dict[str, Callable[[Path], None]] = {
    "sharded safetensors": lambda directory: shard(directory, ".safetensors", save_file),
    "sharded bin": lambda directory: shard(directory, ".bin", torch.save),
    "bin": _as_bin,
    "bin before zip": _as_old_bin,
    "no prefix, with buffers": _with_buffers_and_no_prefix,
}


@pytest.mark.parametrize("rewrite", FORMATS.values(), ids=FORMATS.keys())
def test_every_format_holds_the_same_weights(
    checkpoint: Path, copy: Path, rewrite: Callable[[Path], None]
) -> None:
    rewrite(copy)
    expected, actual = read_checkpoint(checkpoint), read_checkpoint(copy)
    for name in expected.architecture.weight_shapes():
        np.testing.assert_array_equal(actual.weights[name], expected.weights[name])
    assert actual.parameters == expected.parameters


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(copy: Path, dtype: torch.dtype) -> None:
    replace_weights(
        copy,
        lambda tensors: save_file({n: t.to(dtype) for n, t in tensors.items()}, copy / SAFETENSORS),
    )
    weights = read_checkpoint(copy).weights
    original = load_file(copy / SAFETENSORS)["transformer.wte.weight"]
    assert weights["wte.weight"].dtype == np.float32
    np.testing.assert_array_equal(weights["wte.weight"], original.float().numpy())


def test_parameters_of_a_tied_head_count_once(copy: Path, trained: Any) -> None:
    assert read_checkpoint(copy).parameters == trained.num_parameters()


def test_facts_are_read(copy: Path) -> None:
    source = read_checkpoint(copy)
    assert source.training == {"corpus": "six documents"}
    assert source.generation_config["eos_token_id"] == 0
    (copy / "training.json").unlink()
    (copy / "generation_config.json").unlink()
    source = read_checkpoint(copy)
    assert source.training == {}
    assert source.generation_config == {"bos_token_id": 0, "eos_token_id": 0}


def test_the_hash_is_that_of_what_was_read(copy: Path) -> None:
    before = read_checkpoint(copy).sha256
    (copy / "training.json").unlink()
    assert read_checkpoint(copy).sha256 == before
    tensors = load_file(copy / SAFETENSORS)
    tensors["transformer.ln_f.bias"][0] += 1
    save_file(tensors, copy / SAFETENSORS)
    assert read_checkpoint(copy).sha256 != before


def _set_weight(name: str, position: int, value: float) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        tensors = load_file(directory / SAFETENSORS)
        tensors[name].view(-1)[position] = value
        save_file(tensors, directory / SAFETENSORS)

    return write


def _edit_weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        tensors = load_file(directory / SAFETENSORS)
        edit(tensors)
        save_file(tensors, directory / SAFETENSORS)

    return write


def _truncate(name: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: len(data) // 2])

    return write


def _corrupt_bin(directory: Path) -> None:
    _as_bin(directory)
    _truncate(BIN)(directory)


def _lose_shard(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    (directory / "part-2.safetensors").unlink()


def _corrupt_shard(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    _truncate("part-2.safetensors")(directory)


def _corrupt_index(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    (directory / f"{SAFETENSORS}.index.json").write_text('{"weight_map": 3}')


def _openai(directory: Path) -> None:
    (directory / "config.json").rename(directory / "hparams.json")


def _no_json(directory: Path) -> None:
    (directory / "config.json").write_text("{")


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), r"config\.json is missing$"),
    "OpenAI's format": (_openai, r"config\.json is missing; hparams\.json is of OpenAI's own"),
    "config no JSON": (_no_json, r"config\.json cannot be read as JSON: Expecting"),
    "another model": (
        lambda d: change_config(d, model_type="llama"),
        r"config\.json: model_type is 'llama'; only 'gpt2' can be exported",
    ),
    "no kind of model": (
        lambda d: (d / "config.json").write_text("[]"),
        r"config\.json: model_type is None; only 'gpt2'",
    ),
    "bad field": (
        lambda d: change_config(d, n_layer="two"),
        r"config\.json: n_layer is 'two': Input should be a valid integer",
    ),
    "cross attention": (
        lambda d: change_config(d, add_cross_attention=True),
        r"config\.json: add_cross_attention is True: ",
    ),
    "heads do not divide": (
        lambda d: change_config(d, n_head=5),
        r"config\.json: n_embd 48 is not divisible by n_head 5$",
    ),
    "end outside of the vocabulary": (
        lambda d: change_config(d, eos_token_id=50256),
        r"config\.json: eos_token_id 50256 is outside of the vocabulary of 113 entries$",
    ),
    "activation": (
        lambda d: change_config(d, activation_function="mish"),
        r"config\.json: activation_function is 'mish'; supported are gelu, ",
    ),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), r"tokenizer\.json is missing$"),
    "corrupt tokenizer": (_truncate("tokenizer.json"), r"tokenizer\.json cannot be read: "),
    "tokenizer of another model": (
        lambda d: change_config(d, vocab_size=100),
        r"tokenizer\.json has a token of id 112; the model knows 100$",
    ),
    "no weights": (
        lambda d: (d / SAFETENSORS).unlink(),
        r"checkpoint has no weights: no model\.safetensors, no pytorch_model\.bin",
    ),
    "truncated safetensors": (
        _truncate(SAFETENSORS),
        r"model\.safetensors cannot be read as weights: ",
    ),
    "truncated bin": (_corrupt_bin, r"pytorch_model\.bin cannot be read as weights: "),
    "lost shard": (
        _lose_shard,
        r"part-2\.safetensors is missing; model\.safetensors\.index\.json names it$",
    ),
    "truncated shard": (_corrupt_shard, r"part-2\.safetensors cannot be read as weights: "),
    "corrupt index": (_corrupt_index, r"index\.json is not an index of shards: "),
    "NaN": (
        _set_weight("transformer.h.1.mlp.c_fc.weight", 77, float("nan")),
        r"weight h\.1\.mlp\.c_fc\.weight holds a number that is NaN or infinite$",
    ),
    "infinite": (
        _set_weight("transformer.wpe.weight", 0, float("inf")),
        r"weight wpe\.weight holds a number that is NaN or infinite$",
    ),
    "missing weight": (
        _edit_weights(lambda tensors: tensors.pop("transformer.h.1.ln_1.bias")),
        r"the weights lack h\.1\.ln_1\.bias, which config\.json asks for$",
    ),
    "missing head": (
        lambda d: change_config(d, tie_word_embeddings=False),
        r"the weights lack lm_head\.weight, which",
    ),
    "missing layer": (
        lambda d: change_config(d, n_layer=3),
        r"the weights lack h\.2\.attn\.c_attn\.weight and 11 more, which",
    ),
    "layer too many": (
        lambda d: change_config(d, n_layer=1),
        r"the weights hold h\.1\..*, which config\.json does not ask for$",
    ),
    "another shape": (
        lambda d: change_config(d, n_positions=32),
        r"weight wpe\.weight has shape \(64, 48\); config\.json asks for \(32, 48\)$",
    ),
}


@pytest.mark.parametrize("damage, message", ERRORS.values(), ids=ERRORS.keys())
def test_what_is_wrong_is_named_in_one_line(
    copy: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_what_is_no_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere is not a directory$"):
        read_checkpoint(tmp_path / "nowhere")

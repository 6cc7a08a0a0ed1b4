"""Checkpoints that cannot be exported are refused in one line."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.checkpoint_files import (
    BIN,
    FORMATS,
    HEAD,
    SAFETENSORS,
    WTE,
    change_config,
    edit_weights,
    replace_weights,
    save_as_bin,
    save_as_legacy_bin,
    set_weight,
    truncate,
)

from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.errors import CheckpointError


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def _corrupt_bin(directory: Path) -> None:
    save_as_bin(directory)
    truncate(BIN)(directory)


def _lose_shard(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    (directory / "part-2.safetensors").unlink()


def _corrupt_shard(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    truncate("part-2.safetensors")(directory)


def _corrupt_index(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    (directory / f"{SAFETENSORS}.index.json").write_text('{"weight_map": 3}')


def _index(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Shard the weights and edit the map of their index."""

    def write(directory: Path) -> None:
        FORMATS["sharded safetensors"](directory)
        path = directory / f"{SAFETENSORS}.index.json"
        content = json.loads(path.read_text())
        edit(content["weight_map"])
        path.write_text(json.dumps(content))

    return write


def _escape(directory: Path) -> None:
    """Make an index refer to a file outside the checkpoint."""
    _index(lambda weight_map: weight_map.update({WTE: "../part-3.safetensors"}))(directory)
    shutil.copy(directory / "part-1.safetensors", directory.parent / "part-3.safetensors")


def _lose_tensor_of_shard(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    shard = directory / "part-1.safetensors"
    tensors = load_file(shard)
    del tensors["transformer.h.0.attn.c_attn.bias"]
    save_file(tensors, shard)


def _repeat_tensor_in_shard(directory: Path) -> None:
    FORMATS["sharded safetensors"](directory)
    tensors = load_file(directory / "part-1.safetensors")
    tensors["wpe.weight"] = torch.zeros(64, 48)
    save_file(tensors, directory / "part-1.safetensors")


class _RunsCode:
    """Object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was_run",)


def _save_instead(content: object) -> Callable[[Path], None]:
    """Write a `.bin` with other content."""
    return lambda directory: replace_weights(
        directory, lambda _tensors: torch.save(content, directory / BIN)
    )


def _only_weights_of_tensorflow(directory: Path) -> None:
    (directory / SAFETENSORS).rename(directory / "tf_model.h5")


def _nest_deeply(directory: Path) -> None:
    (directory / "config.json").write_text("[" * 100_000)


def _openai(directory: Path) -> None:
    (directory / "config.json").rename(directory / "hparams.json")


def _no_json(directory: Path) -> None:
    (directory / "config.json").write_text("{")


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), r"config\.json is missing$"),
    "OpenAI's format": (
        _openai,
        r"config\.json is missing; hparams\.json is in OpenAI's own format; convert it first$",
    ),
    "config no JSON": (_no_json, r"config\.json cannot be read as JSON: Expecting"),
    "another model": (
        lambda d: change_config(d, model_type="llama"),
        r"config\.json: model_type is 'llama'; only 'gpt2' can be exported",
    ),
    "config nested deeply": (_nest_deeply, r"config\.json cannot be read as JSON: nested too"),
    "activation": (
        lambda d: change_config(d, activation_function="mish"),
        r"config\.json: activation_function is 'mish'; supported are gelu, ",
    ),
    "no tokenizer": (
        lambda d: (d / "tokenizer.json").unlink(),
        r"tokenizer\.json is missing, and ",
    ),
    "corrupt tokenizer": (truncate("tokenizer.json"), r"tokenizer\.json cannot be read: "),
    "tokenizer of another model": (
        lambda d: change_config(d, vocab_size=100),
        r"tokenizer\.json has a token '.+' of id 112; the model has 100 entries$",
    ),
    "no weights": (
        lambda d: (d / SAFETENSORS).unlink(),
        r"checkpoint has no weights: no model\.safetensors, no pytorch_model\.bin",
    ),
    "truncated safetensors": (
        truncate(SAFETENSORS),
        r"model\.safetensors cannot be read as weights: ",
    ),
    "truncated bin": (_corrupt_bin, r"pytorch_model\.bin cannot be read as weights: "),
    "lost shard": (
        _lose_shard,
        r"part-2\.safetensors is missing; model\.safetensors\.index\.json names it$",
    ),
    "truncated shard": (_corrupt_shard, r"part-2\.safetensors cannot be read as weights: "),
    "corrupt index": (_corrupt_index, r"index\.json is not an index of shards: "),
    "weights of TensorFlow": (
        _only_weights_of_tensorflow,
        r"no shards of either; convert tf_model\.h5 first$",
    ),
    "shard elsewhere": (
        _escape,
        r"index\.json: transformer\.wte\.weight is in '\.\./part-3\.safetensors', which is not ",
    ),
    "shard name that is no string": (
        _index(lambda weight_map: weight_map.update({WTE: 7})),
        r"index\.json: transformer\.wte\.weight is in 7, which is not the name of a file beside",
    ),
    "empty index": (
        _index(lambda weight_map: weight_map.clear()),
        r"index\.json is not an index of shards: it has no weight_map$",
    ),
    "tensor that its shard lacks": (
        _lose_tensor_of_shard,
        r"lack h\.0\.attn\.c_attn\.bias, which .*; the index maps it to part-1\.safetensors$",
    ),
    "tensor in two shards": (
        _repeat_tensor_in_shard,
        r"the weights hold wpe\.weight twice, the second time in .*part-[12]\.safetensors$",
    ),
    "bin that runs code": (
        _save_instead({"wte.weight": _RunsCode()}),
        r"pytorch_model\.bin cannot be read as weights: .* other objects than tensors, which may ",
    ),
    "bin of a list": (
        _save_instead([torch.zeros(3)]),
        r"bin cannot be read as weights: it holds a list instead of tensors by name$",
    ),
    "bin of a training state": (
        _save_instead({"model": {"wte.weight": torch.zeros(3)}}),
        r"'model' is a dict instead of a tensor; it is a training state: save the model alone, ",
    ),
    "integer weights": (
        edit_weights(lambda tensors: tensors.update({WTE: tensors[WTE].to(torch.int8)})),
        r"weight wte\.weight cannot be read: its dtype is torch\.int8, not floating-point$",
    ),
    "tied head that differs": (
        edit_weights(lambda tensors: tensors.update({HEAD: tensors[WTE] + 1})),
        r"weight lm_head\.weight differs from wte\.weight, .* set tie_word_embeddings to false ",
    ),
    "head with a bias": (
        edit_weights(lambda tensors: tensors.update({"lm_head.bias": torch.zeros(113)})),
        r"the weights hold lm_head\.bias, which config\.json does not define$",
    ),
    "cross attention in the weights": (
        edit_weights(
            lambda tensors: tensors.update(
                {"transformer.h.0.crossattention.c_attn.weight": torch.zeros(48, 96)}
            )
        ),
        r"the weights hold h\.0\.crossattention\.c_attn\.weight, which config\.json does not ",
    ),
    "NaN": (
        set_weight("transformer.h.1.mlp.c_fc.weight", 77, float("nan")),
        r"weight h\.1\.mlp\.c_fc\.weight holds a value that is NaN or infinite$",
    ),
    "infinite": (
        set_weight("transformer.wpe.weight", 0, float("inf")),
        r"weight wpe\.weight holds a value that is NaN or infinite$",
    ),
    "missing weight": (
        edit_weights(lambda tensors: tensors.pop("transformer.h.1.ln_1.bias")),
        r"the weights lack h\.1\.ln_1\.bias, which config\.json requires$",
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
        r"the weights hold h\.1\..*, which config\.json does not define$",
    ),
    "another shape": (
        lambda d: change_config(d, n_positions=32),
        r"weight wpe\.weight has shape \(64, 48\); config\.json requires \(32, 48\)$",
    ),
}


@pytest.mark.parametrize("damage, message", ERRORS.values(), ids=ERRORS.keys())
def test_a_bad_checkpoint_is_refused_in_one_line(
    copy: Path, damage: Callable[[Path], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(copy)
    assert "\n" not in str(caught.value)
    assert not (copy / "was_run").exists()


@pytest.mark.parametrize(
    "rewrite", [save_as_bin, save_as_legacy_bin], ids=["bin", "bin before zip"]
)
def test_any_damage_of_a_pickle_is_a_checkpoint_error(
    copy: Path, rewrite: Callable[[Path], None]
) -> None:
    rewrite(copy)
    sound = (copy / BIN).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = np.frombuffer(sound, np.uint8).copy()
        damaged[random.integers(0, 2000, 3)] = random.integers(0, 256, 3)
        (copy / BIN).write_bytes(damaged[: random.integers(2000, len(sound))].tobytes())
        with pytest.raises(CheckpointError):
            read_checkpoint(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", SAFETENSORS])
def test_a_file_that_cannot_be_read_is_named(
    copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch raises the error, since permissions do not stop root."""

    def is_file(path: Path, **_options: object) -> bool:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return path.exists()

    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read: Permission denied$"):
        read_checkpoint(copy)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere is not a directory$"):
        read_checkpoint(tmp_path / "nowhere")

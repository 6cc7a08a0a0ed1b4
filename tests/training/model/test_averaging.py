"""Averaging of checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2flow.training.errors import ConfigError, OutputError
from gpt2flow.training.model.averaging import average_checkpoints


def checkpoint(path: Path, value: float, *, width: int = 2, vocabulary: str = "{}") -> Path:
    path.mkdir()
    weights = {"wte.weight": torch.full((3, width), value), "ln.bias": torch.full((2,), -value)}
    save_file(weights, path / "model.safetensors")
    (path / "tokenizer.json").write_text(vocabulary)
    (path / "config.json").write_text(f'{{"from": "{path.name}"}}')
    (path / "training.json").write_text('{"steps": 7}')
    return path


def test_the_weights_are_the_mean_and_the_rest_is_the_last_one_s(tmp_path: Path) -> None:
    every = [checkpoint(tmp_path / name, value) for name, value in (("a", 1), ("b", 2), ("c", 6))]
    assert average_checkpoints(every, tmp_path / "out") == 8
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(weights["wte.weight"], torch.full((3, 2), 3.0))
    assert torch.equal(weights["ln.bias"], torch.full((2,), -3.0))
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"from": "c"}
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert facts["steps"] == 7
    assert len(set(facts["averaged_sha256"])) == 3


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    good = checkpoint(tmp_path / "good", 1)
    wide = checkpoint(tmp_path / "wide", 1, width=4)
    other = checkpoint(tmp_path / "other", 1, vocabulary='{"x": 1}')
    empty = tmp_path / "empty"
    empty.mkdir()
    for given, error in (
        ([good], "1 checkpoints, and a mean needs at least two"),
        ([wide, good], "wide has other sizes than .*good"),
        ([other, good], "other has another vocabulary than .*good"),
        ([empty, good], r"empty: no readable model\.safetensors"),
        ([tmp_path / "none", good], r"none: no readable model\.safetensors"),
    ):
        with pytest.raises(ConfigError, match=error):
            average_checkpoints(given, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_an_existing_directory_is_kept(tmp_path: Path) -> None:
    pair = [checkpoint(tmp_path / name, 1) for name in "ab"]
    with pytest.raises(OutputError, match="exists already"):
        average_checkpoints(pair, pair[0])
    assert (pair[0] / "model.safetensors").is_file()

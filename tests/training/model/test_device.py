"""Device of a training run."""

import pytest
import torch
from tests.support.command_line import gpt2flow

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import ConfigError
from gpt2flow.training.model.model import find_device, use_bf16


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize("count,expected", [(0, "cpu"), (1, "cuda"), (2, "cuda")])
def test_auto_is_the_first_gpu_or_else_the_processor(
    monkeypatch: pytest.MonkeyPatch, count: int, expected: str
) -> None:
    pretend_gpus(monkeypatch, count)
    assert find_device() == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1"])
def test_a_device_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend_gpus(monkeypatch, 2)
    assert find_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda:2", "gpu", "", "cuda:-1"])
def test_an_absent_device_is_named_with_those_there(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(ConfigError, match=f"device {name}: this machine has cpu, cuda, cuda:0"):
        find_device(name)


def test_precision_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    config = TrainingConfig()
    assert use_bf16(config, torch.device("cuda"))
    assert not use_bf16(config, torch.device("cpu"))
    assert not use_bf16(config.changed(precision="fp32"), torch.device("cuda"))


@pytest.mark.process
def test_the_command_refuses_an_absent_device(tmp_path: object) -> None:
    code, _, err = gpt2flow("train", "--device", "tpu", "--out", f"{tmp_path}/out")
    assert code == 2
    assert "device tpu: this machine has cpu" in err

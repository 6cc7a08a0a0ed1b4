"""Fixtures of the training tests: flows, generated documents, small settings."""

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.corpus.corpus import load_turn_generator
from gpt2flow.training.corpus.turns import TurnGenerator


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Use one thread, on which tiny models are faster and steps reproducible."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def book() -> FlowBook:
    return load_flows()


@pytest.fixture(scope="session")
def turn_generator() -> TurnGenerator:
    return load_turn_generator()


@pytest.fixture(scope="session")
def documents(turn_generator: TurnGenerator) -> list[str]:
    """Documents generated from the shipped flows."""
    return list(islice(turn_generator.documents(random.Random(1)), 6000))


@pytest.fixture
def tiny() -> TrainingConfig:
    """Settings with which a step takes milliseconds."""
    return TrainingConfig(
        vocabulary_size=300,
        context_length=32,
        layers=1,
        width=32,
        heads=2,
        batch_tokens=256,
        save_every=10,
        precision="fp32",
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Function that writes a text file and returns its path."""

    def _write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write

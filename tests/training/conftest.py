"""The flows as they ship, and turns read back from documents."""

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.corpus.corpus import load_turn_maker
from gpt2flow.training.corpus.turns import TurnMaker


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models are slower on several threads, and steps stay reproducible."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def book() -> FlowBook:
    return load_flows()


@pytest.fixture(scope="session")
def turns() -> TurnMaker:
    return load_turn_maker()


@pytest.fixture(scope="session")
def documents(turns: TurnMaker) -> list[str]:
    """A corpus of the shipped flows."""
    return list(islice(turns.documents(random.Random(1)), 6000))


@pytest.fixture
def tiny() -> TrainingConfig:
    """Settings under which a step takes milliseconds."""
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
    """Write a text file."""

    def _write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write

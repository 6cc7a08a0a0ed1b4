"""Tiny GPT-2s: random ones of any shape, and a briefly trained one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.documents import CALIBRATION, DOCUMENTS
from tests.support.served_graph import ServedGraph, weights_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.serving_graph import write_serving_graph
from gpt2flow.export.recipe import RECIPES, Profile
from gpt2flow.server.bundle.model_runner import ModelRunner

SPECIAL_TOKENS = ("<|endoftext|>", "<|user|>", "<|act|>")

MakeModel = Callable[..., GPT2LMHeadModel]
MakeServed = Callable[..., ServedGraph]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A vocabulary of 113 entries: bytes of English, some merges, special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=113, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(DOCUMENTS, trainer)
    assert tokenizer.get_vocab_size() == 113
    return tokenizer


def _config(**changes: Any) -> GPT2Config:
    defaults: dict[str, Any] = {
        "n_layer": 2,
        "n_head": 3,
        "n_embd": 48,
        "n_positions": 64,
        "vocab_size": 113,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    # Only eager attention implements the scaling variants.
    return GPT2Config(**defaults | changes, attn_implementation="eager")


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Return a function that makes random GPT-2s whose weights all matter."""

    def make(**changes: Any) -> GPT2LMHeadModel:
        torch.manual_seed(0)
        model = GPT2LMHeadModel(_config(**changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
        return model

    return make


@pytest.fixture
def serve(tmp_path: Path) -> MakeServed:
    """Return a function that exports a model and opens its serving graph."""

    def open_served(
        model: GPT2LMHeadModel, profile: Profile = Profile.FP32, slots: int = 1
    ) -> ServedGraph:
        architecture = Architecture.from_config(model.config.to_dict())
        path = tmp_path / "model.onnx"
        write_serving_graph(path, architecture, weights_of(model), RECIPES[profile])
        return ServedGraph(path, architecture, slots)

    return open_served


@pytest.fixture
def make_runner(serve: MakeServed, tmp_path: Path) -> Callable[..., ModelRunner]:
    """Return a function that exports a model and opens the server's runner."""

    def open_runner(model: GPT2LMHeadModel, profile: Profile) -> ModelRunner:
        serve(model, profile)
        return ModelRunner(
            tmp_path / "model.onnx", slots=1, capacity=model.config.n_positions, threads=1
        )

    return open_runner


@pytest.fixture(scope="session")
def trained(tokenizer: Tokenizer) -> GPT2LMHeadModel:
    """A GPT-2 trained on the documents, so that quantization can degrade it."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(_config())
    ids = [torch.tensor([*tokenizer.encode(document).ids, 0]) for document in DOCUMENTS]
    batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        loss = model(batch.clamp(min=0), labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def save_checkpoint(tokenizer: Tokenizer) -> Callable[[GPT2LMHeadModel, Path], Path]:
    """Return a function that writes a complete checkpoint, texts included."""

    def save(model: GPT2LMHeadModel, directory: Path) -> Path:
        model.save_pretrained(directory)
        tokenizer.save(str(directory / "tokenizer.json"))
        (directory / "eval.txt").write_text("".join(f"{d}<|endoftext|>\n" for d in DOCUMENTS))
        (directory / "calibration.txt").write_text("<|endoftext|>\n".join(CALIBRATION))
        (directory / "training.json").write_text(json.dumps({"corpus": "six documents"}))
        return directory

    return save


@pytest.fixture(scope="session")
def checkpoint(
    trained: GPT2LMHeadModel,
    save_checkpoint: Callable[[GPT2LMHeadModel, Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The trained model as a checkpoint; tests must not change it."""
    return save_checkpoint(trained, tmp_path_factory.mktemp("trained") / "checkpoint")

"""GPT-2s of any shape, run both by transformers and by the server."""

import copy
import itertools
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hypothesis import Phase
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import _ACTIVATIONS
from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.graph.serving_graph import write_serving_graph
from gpt2flow.export.recipe import RECIPES, Profile
from gpt2flow.server.bundle.manifest import MODEL_NAME, TOKENIZER_NAME
from gpt2flow.server.bundle.model_runner import ModelRunner

# Large enough for a clear most likely token, small enough for beams that differ.
LOGITS_DEVIATION = 2.5

# Without the explain phase, which takes longer than a test's timeout.
PHASES = (Phase.generate, Phase.shrink)
# Largest difference allowed between logits.
TOLERANCE = 1e-4

seeds = st.integers(0, 2**32 - 1)


@st.composite
def configurations(draw: st.DrawFn) -> GPT2Config:
    """Draw small configurations that cover the fields of `config.json`."""
    heads, head_size = draw(st.integers(1, 6)), draw(st.sampled_from((3, 5, 7, 8, 12, 16, 20, 24)))
    odd = st.integers(0, 60).map(lambda half: 2 * half + 1)
    return GPT2Config(
        n_layer=draw(st.integers(1, 4)),
        n_head=heads,
        n_embd=heads * head_size,
        n_inner=draw(st.none() | odd),
        n_positions=draw(st.integers(16, 96)),
        # Odd, so that no block size of a quantized or tiled matrix divides it.
        vocab_size=draw(st.integers(5, 150)) * 2 + 1,
        tie_word_embeddings=draw(st.booleans()),
        activation_function=draw(st.sampled_from(sorted(_ACTIVATIONS))),
        layer_norm_epsilon=draw(st.sampled_from((1e-5, 1e-3, 0.1))),
        scale_attn_weights=draw(st.booleans()),
        scale_attn_by_inverse_layer_idx=draw(st.booleans()),
        reorder_and_upcast_attn=draw(st.booleans()),
        bos_token_id=0,
        eos_token_id=0,
    )


@dataclass(frozen=True)
class RandomModel:
    """A model, both as transformers and as the server runs it.

    Attributes:
        config: Configuration of the model.
        oracle: Model that transformers loads from the checkpoint.
        runner: Runner of the exported model.
        tokenizer_json: Vocabulary of the model.
    """

    config: GPT2Config
    oracle: GPT2LMHeadModel
    runner: ModelRunner
    tokenizer_json: str

    def logits(self, tokens: Sequence[int]) -> FloatArray:
        """Return PyTorch's logits, computed from scratch, [tokens, vocabulary]."""
        with torch.no_grad():
            logits: FloatArray = self.oracle(torch.tensor([tokens])).logits[0].numpy()
        return logits

    def rounding_error(self, rows: Sequence[Sequence[int]]) -> float:
        """Return the largest difference of PyTorch's logits in float32 and float64."""
        precise = copy.deepcopy(self.oracle).double()
        for block in precise.transformer.h:
            block.attn.reorder_and_upcast_attn = False  # It casts to float32.
        with torch.no_grad():
            exact = [precise(torch.tensor([row])).logits[0].numpy() for row in rows]
        pairs = zip(rows, exact, strict=True)
        return max(float(np.abs(self.logits(row) - logits).max()) for row, logits in pairs)


@contextmanager
def random_model(config: GPT2Config, seed: int, slots: int) -> Iterator[RandomModel]:
    """Save a model with random weights, then load and export it."""
    with TemporaryDirectory() as directory:
        checkpoint = Path(directory)
        _random_weights(config, seed).save_pretrained(checkpoint)
        _tokenizer(config.vocab_size).save(str(checkpoint / TOKENIZER_NAME))
        oracle = GPT2LMHeadModel.from_pretrained(
            checkpoint,
            # The other implementations ignore the scaling by layer.
            attn_implementation="eager",
            dtype=torch.float32,
        ).eval()
        runner = _export(checkpoint, slots, config.n_positions)
        yield RandomModel(
            config, oracle, runner, (checkpoint / TOKENIZER_NAME).read_text(encoding="utf-8")
        )


def _export(checkpoint: Path, slots: int, capacity: int) -> ModelRunner:
    """Return the runner of a checkpoint's fp32 serving graph."""
    source = read_checkpoint(checkpoint)
    path = checkpoint / MODEL_NAME
    write_serving_graph(path, source.architecture, source.weights, RECIPES[Profile.FP32])
    return ModelRunner(path, slots=slots, capacity=capacity, threads=1)


def _random_weights(config: GPT2Config, seed: int) -> GPT2LMHeadModel:
    """Return a model whose weights all matter, without extreme logits."""
    rng = np.random.default_rng(seed)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            deviation, mean = 0.2, 0.0
            if "ln_" in name:
                mean = float(name.endswith("weight"))
            elif name.endswith(("wte.weight", "wpe.weight", "lm_head.weight")):
                deviation = LOGITS_DEVIATION / config.n_embd**0.5
            elif name.endswith("weight"):
                deviation = parameter.shape[0] ** -0.5
            values = rng.normal(mean, deviation, parameter.shape)
            parameter.copy_(torch.from_numpy(values))
    return model


def _tokenizer(size: int) -> Tokenizer:
    """Return a byte-level vocabulary of arbitrary tokens; only their ids matter here."""
    tokens = map("".join, itertools.product(string.ascii_letters, repeat=2))
    tokenizer = Tokenizer(models.BPE({next(tokens): at for at in range(size)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def random_tokens(config: GPT2Config, count: int, seed: int) -> list[int]:
    """Return random tokens of a model's vocabulary."""
    tokens: list[int] = np.random.default_rng(seed).integers(0, config.vocab_size, count).tolist()
    return tokens


def split_at(tokens: Sequence[int], cuts: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Cut a sequence, and yield each piece with its start."""
    places = sorted({0, len(tokens), *(cut for cut in cuts if cut < len(tokens))})
    for start, stop in itertools.pairwise(places):
        yield start, tokens[start:stop]

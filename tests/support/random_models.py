"""GPT-2s of any shape, each as transformers runs it and as the server does."""

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

# Far enough apart that the likeliest token is clear, close enough that beams do not all agree.
LOGITS_DEVIATION = 2.5


# To explain a failure takes Hypothesis longer than a test may last.
PHASES = (Phase.generate, Phase.shrink)
# How far logits may be off.
TOLERANCE = 1e-4

seeds = st.integers(0, 2**32 - 1)


@st.composite
def configurations(draw: st.DrawFn) -> GPT2Config:
    """Draw what a checkpoint's `config.json` may say, in small."""
    heads, head_size = draw(st.integers(1, 6)), draw(st.sampled_from((3, 5, 7, 8, 12, 16, 20, 24)))
    odd = st.integers(0, 60).map(lambda half: 2 * half + 1)
    return GPT2Config(
        n_layer=draw(st.integers(1, 4)),
        n_head=heads,
        n_embd=heads * head_size,
        n_inner=draw(st.none() | odd),
        n_positions=draw(st.integers(16, 96)),
        # Odd, so that no block of a quantized or a tiled matrix divides it.
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
    """One model twice.

    Attributes:
        config: Its shape.
        oracle: As transformers reads the checkpoint.
        runner: As the server runs the exported one.
        tokenizer_json: Its vocabulary.
    """

    config: GPT2Config
    oracle: GPT2LMHeadModel
    runner: ModelRunner
    tokenizer_json: str

    def logits(self, tokens: Sequence[int]) -> FloatArray:
        """Return what PyTorch computes from scratch, [tokens, vocabulary]."""
        with torch.no_grad():
            logits: FloatArray = self.oracle(torch.tensor([tokens])).logits[0].numpy()
        return logits

    def rounding(self, rows: Sequence[Sequence[int]]) -> float:
        """Return how far PyTorch's own logits are from those that it computes in float64."""
        precise = copy.deepcopy(self.oracle).double()
        for block in precise.transformer.h:
            block.attn.reorder_and_upcast_attn = False  # It would compute in float32.
        with torch.no_grad():
            exact = [precise(torch.tensor([row])).logits[0].numpy() for row in rows]
        pairs = zip(rows, exact, strict=True)
        return max(float(np.abs(self.logits(row) - logits).max()) for row, logits in pairs)


@contextmanager
def random_model(config: GPT2Config, seed: int, slots: int) -> Iterator[RandomModel]:
    """Save a model with random weights as training does, and opens it twice."""
    with TemporaryDirectory() as directory:
        checkpoint = Path(directory)
        _random_weights(config, seed).save_pretrained(checkpoint)
        _tokenizer(config.vocab_size).save(str(checkpoint / TOKENIZER_NAME))
        oracle = GPT2LMHeadModel.from_pretrained(
            checkpoint,
            # The other implementations leave out the scaling by layer.
            attn_implementation="eager",
            dtype=torch.float32,
        ).eval()
        runner = _export(checkpoint, slots, config.n_positions)
        yield RandomModel(
            config, oracle, runner, (checkpoint / TOKENIZER_NAME).read_text(encoding="utf-8")
        )


def _export(checkpoint: Path, slots: int, capacity: int) -> ModelRunner:
    """Make of a checkpoint what the server runs."""
    source = read_checkpoint(checkpoint)
    path = checkpoint / MODEL_NAME
    write_serving_graph(path, source.architecture, source.weights, RECIPES[Profile.FP32])
    return ModelRunner(path, slots=slots, capacity=capacity, threads=1)


def _random_weights(config: GPT2Config, seed: int) -> GPT2LMHeadModel:
    """Return a model in which every weight matters, and of whose logits none is extreme."""
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
    """Return a byte-level vocabulary of any tokens; only their ids matter here."""
    tokens = map("".join, itertools.product(string.ascii_letters, repeat=2))
    tokenizer = Tokenizer(models.BPE({next(tokens): at for at in range(size)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def some_tokens(config: GPT2Config, count: int, seed: int) -> list[int]:
    """Return random tokens of a model's vocabulary."""
    tokens: list[int] = np.random.default_rng(seed).integers(0, config.vocab_size, count).tolist()
    return tokens


def pieces(tokens: Sequence[int], cuts: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the pieces of a sequence that is cut at some places, each with where it starts."""
    places = sorted({0, len(tokens), *(cut for cut in cuts if cut < len(tokens))})
    for start, stop in itertools.pairwise(places):
        yield start, tokens[start:stop]

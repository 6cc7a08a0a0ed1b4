"""Tokenizer kinds, checkpoint kinds and profiles, in pairs: exported, loaded, and generating."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.support.checkpoint_files import change_config, replace_weights, save_as_bin, shard
from tests.support.vocabularies import KINDS, SENTENCES
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from gpt2flow.export import Profile, export_bundle
from gpt2flow.server import EngineConfig
from gpt2flow.server.bundle.manifest import load_bundle
from gpt2flow.server.engine.results import CandidateResult, GenerationResult
from gpt2flow.server.generation.factory import Arrival
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.models.loading import load_model
from gpt2flow.server.models.model import Model
from gpt2flow.server.params import GenerationParams, SamplingParams, StoppingParams

pytestmark = pytest.mark.process

TOKENIZERS = ("byte-level BPE", "WordPiece", "Unigram", "Metaspace BPE")
PROFILES = (Profile.FP32, Profile.INT8, Profile.INT4)
NEW_TOKENS = 8
TEXT = "我们 cup"
EXTRA = "[EXTRA]"


@dataclass(frozen=True)
class Checkpoint:
    """Kind of checkpoint.

    Attributes:
        edit: Function that changes the files of a usual checkpoint.
        config: Fields of its configuration.
        more_rows: Rows of the head without a token.
        warned: Whether the export warns.
    """

    edit: Callable[[Path], None] = lambda _directory: None
    config: dict[str, Any] = field(default_factory=dict)
    more_rows: int = 0
    warned: bool = False


def add_token(directory: Path) -> None:
    """Add a token to the tokenizer, without an embedding."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_special_tokens({"additional_special_tokens": [EXTRA]})
    tokenizer.save_pretrained(directory)


def without_model_type(directory: Path) -> None:
    path = directory / "config.json"
    fields = json.loads(path.read_text())
    del fields["model_type"]
    path.write_text(json.dumps(fields))


def wrap(directory: Path) -> None:
    """Name the weights as `torch.compile` does."""

    def write(tensors: dict[str, torch.Tensor]) -> None:
        named = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
        save_file(named, directory / "model.safetensors")

    replace_weights(directory, write)


def several_ends(directory: Path) -> None:
    (directory / "generation_config.json").write_text('{"eos_token_id": [3, 30, 31, 32]}')
    change_config(directory, eos_token_id=5)


def no_end(directory: Path) -> None:
    (directory / "generation_config.json").unlink()
    change_config(directory, eos_token_id=None)


CHECKPOINTS = {
    "safetensors": Checkpoint(),
    "bin": Checkpoint(save_as_bin),
    "shards": Checkpoint(lambda directory: shard(directory, ".safetensors", save_file)),
    "padded head": Checkpoint(more_rows=47, warned=True),
    "token without an embedding": Checkpoint(add_token, warned=True),
    "untied head": Checkpoint(config={"tie_word_embeddings": False}),
    "several ends": Checkpoint(several_ends),
    "no end": Checkpoint(no_end, warned=True),
    "no model type": Checkpoint(without_model_type, warned=True),
    "wrapped, short context": Checkpoint(wrap, {"n_positions": 24}, warned=True),
}
# Each pair of a tokenizer and a checkpoint, and of either and a profile.
ROWS = [
    (tokenizer, checkpoint, PROFILES[(row + column) % len(PROFILES)])
    for (row, tokenizer), (column, checkpoint) in itertools.product(
        enumerate(TOKENIZERS), enumerate(CHECKPOINTS)
    )
]


def save(directory: Path, tokenizer: str, checkpoint: Checkpoint) -> int:
    """Save a random model, and return the number of its tokens."""
    directory.mkdir()
    vocabulary = KINDS[tokenizer].save(directory)
    size: int = vocabulary.get_vocab_size()
    fields = {
        "n_positions": 64,
        "eos_token_id": vocabulary.token_to_id(KINDS[tokenizer].eos),
        "bos_token_id": vocabulary.token_to_id(KINDS[tokenizer].bos),
    }
    torch.manual_seed(5)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size + checkpoint.more_rows,
            n_embd=32,
            n_layer=1,
            n_head=2,
            initializer_range=0.4,
            **fields | checkpoint.config,
        )
    )
    with torch.no_grad():
        model.lm_head.weight[size:] *= 5
    model.save_pretrained(directory)
    (directory / "eval.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    return size


def generate(model: Model, text: str) -> tuple[list[int], CandidateResult]:
    """Return the tokens of a prompt, and what greedy decoding appends."""
    params = GenerationParams(
        decoding=SamplingParams(temperature=0),
        stopping=StoppingParams(max_new_tokens=NEW_TOKENS),
    )
    [prompt] = model.tasks.resolve([Prompt("prompt", text)], params)
    [task] = model.tasks.generations([prompt], params, Arrival(0.0))
    engine = model.engine.engine
    engine.add(task)
    result: object = None
    while engine.busy:
        for event in engine.step():
            result = event.content
    assert isinstance(result, GenerationResult)
    return prompt.ids, result.candidates[0]


@pytest.mark.parametrize(
    "tokenizer, checkpoint, profile", ROWS, ids=[" - ".join(each) for each in ROWS]
)
def test_a_checkpoint_is_exported_and_generates(
    tmp_path: Path, tokenizer: str, checkpoint: str, profile: Profile
) -> None:
    """Without quantization the tokens are those of transformers."""
    kind, source, warnings = CHECKPOINTS[checkpoint], tmp_path / "checkpoint", list[str]()
    size = save(source, tokenizer, kind)
    torch_model = GPT2LMHeadModel.from_pretrained(source).eval()
    kind.edit(source)
    manifest = export_bundle(
        source, tmp_path / "bundle", profile=profile, force=True, on_warning=warnings.append
    )
    assert bool(warnings) == kind.warned
    assert manifest.warnings == warnings
    config = EngineConfig(threads=1, max_sequences=2)
    model = load_model("model", load_bundle(tmp_path / "bundle"), config)
    ids, candidate = generate(model, TEXT)
    assert ids == AutoTokenizer.from_pretrained(source)(TEXT).input_ids
    assert max(candidate.token_ids) < size
    if profile is not Profile.FP32:
        return
    ends = manifest.shape.eos_token_ids
    with torch.no_grad():
        rows = torch_model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=ends or None,
            pad_token_id=0,
            suppress_tokens=list(range(size, size + kind.more_rows)) or None,
        )
    assert list(candidate.token_ids) == rows[0, len(ids) :].tolist()


def test_all_pairs_are_covered() -> None:
    axes = (TOKENIZERS, CHECKPOINTS, PROFILES)
    for one, other in itertools.combinations(range(3), 2):
        pairs = {(row[one], row[other]) for row in ROWS}
        assert len(pairs) == len(axes[one]) * len(axes[other])

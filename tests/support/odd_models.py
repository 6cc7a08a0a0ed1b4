"""Tiny GPT-2s with unusual heads, tokenizers or end tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tests.support.engine_bench import TEXT
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2flow.export import Profile, export_bundle

# Ids of the tokenizer: those before the gap, and those after it.
TOKENS = 320
GAP = range(100, 107)
# A head is padded to a multiple of this.
MULTIPLE = 128
CONTEXT = 96


@dataclass(frozen=True)
class OddModel:
    """Model in transformers and as a bundle.

    Attributes:
        checkpoint: Its checkpoint.
        bundle: Its bundle, exported as fp32.
        model: Model that transformers loads.
        tokens: Number of ids up to the last one that has a token.
        missing: Ids that have no token.
    """

    checkpoint: Path
    bundle: Path
    model: GPT2LMHeadModel
    tokens: int
    missing: list[int]

    def generate(self, prompt: Sequence[int], **options: Any) -> Any:
        """Return what transformers generates without the missing tokens."""
        ids = torch.tensor([list(prompt)])
        if self.missing:
            options["suppress_tokens"] = self.missing
        with torch.no_grad():
            return self.model.generate(
                ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options
            )

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the tokens that greedy decoding appends."""
        rows = self.generate(prompt, do_sample=False, max_new_tokens=count)
        return rows[0, len(prompt) :].tolist()  # type: ignore[no-any-return]

    def logprobs(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return log-probabilities over all rows of the head, [tokens, rows]."""
        with torch.no_grad():
            return self.model(torch.tensor([list(tokens)])).logits[0].log_softmax(-1)


def byte_level_tokenizer(*, gap: bool = False) -> HfTokenizer:
    """Return a byte-level vocabulary of `TOKENS` tokens.

    Args:
        gap: Whether no token has an id in `GAP`.
    """
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=["<|endoftext|>", "<|user|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    assert tokenizer.get_vocab_size() == TOKENS
    if not gap:
        return tokenizer
    fields = json.loads(tokenizer.to_str())
    vocabulary = fields["model"]["vocab"]
    for token, token_id in vocabulary.items():
        vocabulary[token] = token_id + (len(GAP) if token_id >= GAP.start else 0)
    return HfTokenizer.from_str(json.dumps(fields))


def make_checkpoint(
    directory: Path, tokenizer: HfTokenizer, rows: int, *, tied: bool = True, **config: Any
) -> list[int]:
    """Save a random GPT-2 that prefers rows without a token.

    Args:
        directory: Directory of the checkpoint.
        tokenizer: Its tokenizer.
        rows: Number of rows of its head.
        tied: Whether the head is that of the embeddings.
        config: Further fields of `config.json`.

    Returns:
        The ids without a token.
    """
    missing = sorted(set(range(rows)) - set(tokenizer.get_vocab().values()))
    torch.manual_seed(11)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=rows,
            n_positions=CONTEXT,
            n_embd=32,
            n_layer=2,
            n_head=2,
            initializer_range=0.3,
            tie_word_embeddings=tied,
            **{"bos_token_id": 0, "eos_token_id": 0} | config,
        )
    )
    with torch.no_grad():
        model.lm_head.weight[missing] *= 5
    model.save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "eval.txt").write_text("\n".join(TEXT), encoding="utf-8")
    return missing


def make_odd_model(
    directory: Path, *, gap: bool = False, padded: bool = True, tied: bool = True, **config: Any
) -> OddModel:
    """Save a model and export it.

    Args:
        directory: Directory of its files.
        gap: Whether ids between others have no token.
        padded: Whether the head has more rows than the tokenizer has tokens.
        tied: Whether the head is that of the embeddings.
        config: Further fields of `config.json`.
    """
    tokenizer = byte_level_tokenizer(gap=gap)
    tokens = TOKENS + len(GAP) if gap else TOKENS
    rows = -(-tokens // MULTIPLE) * MULTIPLE if padded else tokens
    missing = make_checkpoint(directory / "checkpoint", tokenizer, rows, tied=tied, **config)
    export_bundle(directory / "checkpoint", directory / "bundle", profile=Profile.FP32)
    model = GPT2LMHeadModel.from_pretrained(directory / "checkpoint").eval()
    return OddModel(directory / "checkpoint", directory / "bundle", model, tokens, missing)

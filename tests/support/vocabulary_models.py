"""Random GPT-2s with tokenizers of each kind, as checkpoints and bundles."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tests.support.vocabularies import KINDS, SENTENCES
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from gpt2flow.export import Profile, export_bundle


@dataclass(frozen=True)
class VocabularyModel:
    """Model with a tokenizer of one kind.

    Attributes:
        kind: Name of the kind.
        checkpoint: Its checkpoint.
        bundle: Its bundle, exported as fp32.
        tokenizer: Tokenizer that transformers loads.
        model: Model that transformers loads.
    """

    kind: str
    checkpoint: Path
    bundle: Path
    tokenizer: Any
    model: GPT2LMHeadModel

    def ids(self, text: str, **options: Any) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self.tokenizer(text, **options).input_ids
        return ids

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of ids, as the tokenizer writes it."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def generate(self, ids: list[int], **options: Any) -> list[int]:
        """Return the tokens that follow a prompt, without sampling."""
        prompt = torch.tensor([ids])
        output = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            pad_token_id=0,
            **options,
        )
        return output[0, len(ids) :].tolist()  # type: ignore[no-any-return]

    def logprobs(self, ids: list[int]) -> list[float]:
        """Return the log-probability of each token but the first."""
        with torch.no_grad():
            rows = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return [float(rows[at, token_id]) for at, token_id in enumerate(ids[1:])]


def make_model(kind: str, directory: Path) -> VocabularyModel:
    """Save a random GPT-2 with a tokenizer, and export it."""
    checkpoint = directory / "checkpoint"
    checkpoint.mkdir()
    vocabulary = KINDS[kind].save(checkpoint)
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=vocabulary.get_vocab_size(),
        n_positions=96,
        n_embd=32,
        n_layer=1,
        n_head=2,
        initializer_range=0.4,
        bos_token_id=vocabulary.token_to_id(KINDS[kind].bos),
        eos_token_id=vocabulary.token_to_id(KINDS[kind].eos),
    )
    GPT2LMHeadModel(config).save_pretrained(checkpoint)
    (checkpoint / "eval.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    export_bundle(checkpoint, directory / "bundle", profile=Profile.FP32)
    return VocabularyModel(
        kind,
        checkpoint,
        directory / "bundle",
        AutoTokenizer.from_pretrained(checkpoint),
        GPT2LMHeadModel.from_pretrained(checkpoint).eval(),
    )

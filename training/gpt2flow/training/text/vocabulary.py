"""Byte-level BPE vocabulary: trained on a corpus, saved for transformers."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from gpt2flow.agent.flows.prompt import END, SPECIAL_TOKENS
from gpt2flow.training.errors import ConfigError, CorpusError

# Pre-tokens, which no token crosses. Digits and Chinese characters are tokens of their own, and
# words exclude the preceding space. A slot's value thus has the same tokens in the message and
# in the action, so that copying it is easy to learn. A key of compact JSON includes its
# punctuation, which is always the same.
_PRETOKENS = r'"?[{,]"\w+":"?|[\p{Han}\d]|(?:[^\P{L}\p{Han}]|_)+| |[^\S ]+|[^\s\p{L}\d_]+'
# All 256 bytes, so that any text can be encoded.
_ALPHABET = pre_tokenizers.ByteLevel.alphabet()
MIN_VOCABULARY_SIZE = len(_ALPHABET) + len(SPECIAL_TOKENS)


def train_vocabulary(documents: Iterable[str], size: int) -> Tokenizer:
    """Train a byte-level BPE vocabulary.

    Args:
        documents: Cleaned documents. BPE merges special tokens in them like ordinary text.
        size: Number of entries, special tokens and the 256 bytes included. `<|endoftext|>` has
            id 0.

    Raises:
        ConfigError: `size` is below the number of bytes and special tokens.
        CorpusError: The corpus yields fewer than `size` entries.
    """
    if size < MIN_VOCABULARY_SIZE:
        raise ConfigError(f"vocabulary_size {size} is below the minimum {MIN_VOCABULARY_SIZE}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PRETOKENS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=_ALPHABET,
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != size:
        raise CorpusError(
            f"the corpus is too small for vocabulary_size {size}: "
            f"it yields {tokenizer.get_vocab_size()} entries"
        )
    return tokenizer


def save_vocabulary(tokenizer: Tokenizer, directory: Path, context_length: int) -> None:
    """Write the tokenizer files that transformers loads.

    Args:
        tokenizer: Tokenizer of `train_vocabulary`.
        directory: Existing directory to write to.
        context_length: Longest sequence of the model, in tokens.
    """
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"bos_token": END, "eos_token": END, "unk_token": END}
    config = {
        **names,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
        "tokenizer_class": "GPT2TokenizerFast",
    }
    _write_json(directory / "tokenizer_config.json", config)
    _write_json(directory / "special_tokens_map.json", names)


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

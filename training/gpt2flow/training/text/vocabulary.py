"""The byte-level BPE vocabulary: learned from a corpus, saved for transformers."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from gpt2flow.agent.flows.prompt import END, SPECIAL_TOKENS
from gpt2flow.training.errors import ConfigError, CorpusError

# What may become one token. Digits and Chinese characters stand alone, and a
# word does not take the blank before it along: a slot's value then has the same
# tokens in the message and in the action, and copying it is easy to learn. A key
# of compact JSON takes its punctuation along, since no other may follow.
_PIECES = r'"?[{,]"\w+":"?|[\p{Han}\d]|(?:[^\P{L}\p{Han}]|_)+| |[^\S ]+|[^\s\p{L}\d_]+'
# All bytes, so that any text has a spelling.
_ALPHABET = pre_tokenizers.ByteLevel.alphabet()
SMALLEST_VOCABULARY = len(_ALPHABET) + len(SPECIAL_TOKENS)


def train_vocabulary(documents: Iterable[str], size: int) -> Tokenizer:
    """Learn a byte-level BPE vocabulary.

    Args:
        documents: the corpus; special tokens in it are not learned from.
        size: the number of entries, special tokens and the 256 bytes included.
            `<|endoftext|>` has id 0.

    Raises:
        ConfigError: `size` has no room for the bytes and special tokens.
        CorpusError: the corpus does not hold `size` entries.
    """
    if size < SMALLEST_VOCABULARY:
        raise ConfigError(f"vocabulary_size {size}: at least {SMALLEST_VOCABULARY} are needed")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
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
            f"it holds {tokenizer.get_vocab_size()} entries"
        )
    return tokenizer


def save_vocabulary(tokenizer: Tokenizer, directory: Path, context_length: int) -> None:
    """Write the files from which transformers loads the tokenizer.

    Args:
        tokenizer: of `train_vocabulary`.
        directory: exists already.
        context_length: tokens that the model reads at most.
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

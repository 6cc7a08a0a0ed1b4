"""Small tokenizers of every kind, made as their projects make them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SENTENCES = (
    "我们是学生,在学校里学习中文。他是老师,教我们写字。",
    "春眠不觉晓,处处闻啼鸟。夜来风雨声,花落知多少。",
    "私たちは学生です。学校で日本語を勉強しています。",
    "東京は今日も雨が降っています。明日は晴れるでしょう。",
    "우리는 학생입니다. 학교에서 한국어를 공부합니다.",
    "오늘은 서울에 비가 옵니다. 내일은 맑을 것입니다.",
    "The parcel arrived at noon, and the student read 12 letters.",
    'She said: {"name": "cup", "amount": 34} is the order.',
)
# Characters that none of the sentences has.
UNKNOWN = "€ naïve ☃ Žluťoučký 한글"
SPECIAL = "<unk>", "<s>", "</s>", "<pad>"


@dataclass(frozen=True)
class Kind:
    """Kind of tokenizer.

    Attributes:
        make: Function that trains a tokenizer.
        config: Content of its `tokenizer_config.json`.
        bos: Token that begins a text.
        eos: Token that ends a text.
        legacy: Whether its files are older than `tokenizer.json`.
    """

    make: Callable[[], Tokenizer]
    config: dict[str, Any] = field(default_factory=dict)
    bos: str = "<s>"
    eos: str = "</s>"
    legacy: bool = False

    def save(self, directory: Path) -> Tokenizer:
        """Write the files of a trained tokenizer, and return it."""
        tokenizer = self.make()
        if self.legacy:
            tokenizer.model.save(str(directory))
        else:
            tokenizer.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(json.dumps(self.config))
        return tokenizer


def word_piece() -> Tokenizer:
    """Return a vocabulary as BERT's projects make it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a token
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    _train(tokenizer, trainers.WordPieceTrainer, special, 300)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def unigram() -> Tokenizer:
    """Return a vocabulary as converted from a SentencePiece model of T5."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    _train(tokenizer, trainers.UnigramTrainer, list(SPECIAL), 300, unk_token="<unk>")  # noqa: S106
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A $B", [("</s>", 2)])
    return tokenizer


def metaspace_bpe() -> Tokenizer:
    """Return a vocabulary as trained by `SentencePieceBPETokenizer`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))  # noqa: S106 - a token
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    _train(tokenizer, trainers.BpeTrainer, list(SPECIAL), 300)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Return a vocabulary as converted from a SentencePiece model of Llama."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))  # noqa: S106
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    _train(tokenizer, trainers.BpeTrainer, [*SPECIAL, *tokens], 500)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "$A $B", [("<s>", 1)])
    # The trainer makes them special; in a converted vocabulary they are not.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [each for each in state["added_tokens"] if each["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(state))


def byte_level(*, lowercase: bool = False) -> Tokenizer:
    """Return a vocabulary like GPT-2's.

    Args:
        lowercase: Whether upper-case letters are changed.
    """
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, trainers.BpeTrainer, ["<|endoftext|>"], 400, initial_alphabet=alphabet)
    return tokenizer


def char_bpe() -> Tokenizer:
    """Return a vocabulary as trained by `CharBPETokenizer`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    _train(tokenizer, trainers.BpeTrainer, list(SPECIAL), 300, end_of_word_suffix="</w>")
    return tokenizer


def word_level() -> Tokenizer:
    """Return a vocabulary of whole words, without a decoder."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))  # noqa: S106 - a token
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    _train(tokenizer, trainers.WordLevelTrainer, list(SPECIAL), 300)
    return tokenizer


def _train(
    tokenizer: Tokenizer, trainer: type, special: list[Any], size: int, **options: Any
) -> None:
    made = trainer(vocab_size=size, special_tokens=special, show_progress=False, **options)
    tokenizer.train_from_iterator(SENTENCES * 2, made)


_FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
_ENDS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_GPT2 = "<|endoftext|>"
_GPT2_CLASS = {"tokenizer_class": "GPT2Tokenizer"}
_GPT2_ENDS = {"bos_token": _GPT2, "eos_token": _GPT2}

KINDS = {
    "WordPiece": Kind(
        word_piece, {"tokenizer_class": "BertTokenizer"}, "[CLS]", "[SEP]", legacy=True
    ),
    "Unigram": Kind(unigram, _FAST | _ENDS),
    "Metaspace BPE": Kind(metaspace_bpe, _FAST | _ENDS),
    "BPE with byte fallback": Kind(byte_fallback, _FAST | _ENDS),
    "byte-level BPE": Kind(
        byte_level, _GPT2_CLASS | {"add_bos_token": True}, _GPT2, _GPT2, legacy=True
    ),
    "prefixed byte-level BPE": Kind(
        byte_level, _GPT2_CLASS | {"add_prefix_space": True}, _GPT2, _GPT2
    ),
    "lower-casing byte-level BPE": Kind(
        lambda: byte_level(lowercase=True), _FAST | _GPT2_ENDS, _GPT2, _GPT2
    ),
    "BPE": Kind(char_bpe, _FAST | _ENDS),
    "WordLevel": Kind(word_level, _FAST | _ENDS),
}
# Kinds whose decoder writes spaces that belong to no token.
SPACING = {"WordPiece", "BPE", "WordLevel"}

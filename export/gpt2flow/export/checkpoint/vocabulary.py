"""Vocabulary of a checkpoint: `tokenizer.json`, or the older files it replaces."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.errors import CheckpointError, first_line, shorten
from gpt2flow.files.documents import read_object
from gpt2flow.server.bundle.manifest import TOKENIZER_NAME

_VOCABULARY_NAME: Final = "vocab.json"
_MERGES_NAME: Final = "merges.txt"
_TOKENIZER_CONFIG_NAME: Final = "tokenizer_config.json"
_SPECIAL_TOKENS_NAME: Final = "special_tokens_map.json"
_ADDED_TOKENS_NAME: Final = "added_tokens.json"

# GPT-2's only special token.
END_OF_TEXT: Final = "<|endoftext|>"
_ADDITIONAL_SPECIAL_TOKENS: Final = "additional_special_tokens"
# In the order in which transformers assigns ids to new tokens.
_ROLES: Final = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    _ADDITIONAL_SPECIAL_TOKENS,
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Vocabulary that a model was trained with.

    Attributes:
        tokenizer: Tokenizer of the vocabulary.
        json: Bytes of its `tokenizer.json`, to be written to a bundle.
        files: Files it was read from.
    """

    tokenizer: Tokenizer
    json: bytes
    files: tuple[Path, ...]


def read_vocabulary(directory: Path, architecture: Architecture) -> Vocabulary:
    """Read the vocabulary of a checkpoint.

    Checkpoints older than `tokenizer.json` have `vocab.json` and `merges.txt`, and special tokens
    in up to three further files. From these, the same tokenizer is built as by transformers.

    Raises:
        CheckpointError: The vocabulary is missing, unreadable, not byte-level, or has more
            entries than the model; the message names the file.
    """
    path = directory / TOKENIZER_NAME
    if path.is_file():
        vocabulary = _read(path)
    else:
        vocabulary = _build_from_legacy_files(directory, architecture)
        path = directory / _VOCABULARY_NAME
    # The server maps tokens to bytes, which requires a byte-level vocabulary.
    decoder = vocabulary.tokenizer.decoder
    if not isinstance(decoder, decoders.ByteLevel):
        kind = type(decoder).__name__ if decoder else "none"
        raise CheckpointError(f"{path} has the decoder {kind}; GPT-2's vocabulary is ByteLevel")
    largest = max(vocabulary.tokenizer.get_vocab().values(), default=0)
    if largest >= architecture.vocabulary_size:
        token = vocabulary.tokenizer.id_to_token(largest)
        raise CheckpointError(
            f"{path} has a token {token!r} of id {largest}; the model has "
            f"{architecture.vocabulary_size} entries"
        )
    return vocabulary


def _read(path: Path) -> Vocabulary:
    try:
        content = path.read_bytes()
        return Vocabulary(Tokenizer.from_str(content.decode()), content, (path,))
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


def _build_from_legacy_files(directory: Path, architecture: Architecture) -> Vocabulary:
    """Build the tokenizer that `GPT2TokenizerFast` builds from the older files."""
    parts = [directory / name for name in (_VOCABULARY_NAME, _MERGES_NAME)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{directory / TOKENIZER_NAME} is missing, and so is {' and '.join(missing)} "
            "to build it from"
        )
    try:
        model = models.BPE.from_file(
            *map(str, parts), continuing_subword_prefix="", end_of_word_suffix=""
        )
    except Exception as error:  # The library raises bare exceptions.
        names = " and ".join(map(str, parts))
        raise CheckpointError(f"{names} are not a vocabulary: {first_line(error)}") from error
    tokenizer = Tokenizer(model)
    optional = [
        directory / name
        for name in (_TOKENIZER_CONFIG_NAME, _SPECIAL_TOKENS_NAME, _ADDED_TOKENS_NAME)
    ]
    settings, special, added = (read_object(path, CheckpointError) for path in optional)
    prefix_space = settings.get("add_prefix_space") is True
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    _add_tokens_with_ids(tokenizer, directory, settings, added)
    tokenizer.add_special_tokens(
        [
            *_implicit_special_tokens(tokenizer, architecture),
            *_special_tokens_by_role(tokenizer, directory, settings, special),
        ]
    )
    files = (*parts, *(path for path in optional if path.is_file()))
    return Vocabulary(tokenizer, tokenizer.to_str(pretty=True).encode(), files)


def _add_tokens_with_ids(
    tokenizer: Tokenizer, directory: Path, settings: dict[str, Any], added: dict[str, Any]
) -> None:
    """Add the tokens listed with ids, and check their ids."""
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        path = directory / _TOKENIZER_CONFIG_NAME
        numbered = [
            (_parse_id(path, key), _parse_token(path, value)) for key, value in listed.items()
        ]
    else:
        path = directory / _ADDED_TOKENS_NAME
        numbered = [
            (_parse_id(path, value), AddedToken(content, normalized=True))
            for content, value in added.items()
        ]
    for token_id, token in sorted(numbered, key=lambda item: item[0]):
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        actual = tokenizer.token_to_id(token.content)
        if actual != token_id:
            raise CheckpointError(
                f"{path}: {token.content!r} has the id {token_id}; after {_VOCABULARY_NAME} "
                f"it is {actual}"
            )


def _implicit_special_tokens(
    tokenizer: Tokenizer, architecture: Architecture
) -> Iterator[AddedToken]:
    """Yield the special tokens that no file lists as such."""
    ids = {
        tokenizer.token_to_id(END_OF_TEXT),
        architecture.bos_token_id,
        architecture.eos_token_id,
    }
    for token_id in sorted(ids - {None} - set(tokenizer.get_added_tokens_decoder())):
        content = tokenizer.id_to_token(token_id)
        if content is not None:
            yield AddedToken(content, special=True, normalized=False)


def _special_tokens_by_role(
    tokenizer: Tokenizer, directory: Path, settings: dict[str, Any], special: dict[str, Any]
) -> Iterator[AddedToken]:
    """Yield the tokens to which a file assigns a role.

    `special_tokens_map.json` takes precedence over `tokenizer_config.json`.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    listed = {token.content: token for token in added}
    for role in _ROLES:
        path = directory / (_SPECIAL_TOKENS_NAME if special.get(role) else _TOKENIZER_CONFIG_NAME)
        named = special.get(role) or settings.get(role) or []
        if role == _ADDITIONAL_SPECIAL_TOKENS and not isinstance(named, list):
            raise CheckpointError(f"{path}: {role} is {shorten(named)}; it must be a list")
        for value in named if isinstance(named, list) else [named]:
            token = _parse_token(path, value)
            if isinstance(value, str):
                # The flags were listed together with the id, not with the role.
                token = listed.get(value, token)
            token.special = True
            yield token


def _parse_token(path: Path, value: Any) -> AddedToken:
    """Return a token from its entry in a file.

    The entry is the token's text, or an object with its text and flags.
    """
    if isinstance(value, str) and value:
        return AddedToken(value, normalized=False)
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not content:
        raise CheckpointError(
            f"{path}: {shorten(value)} is not a token; it must be a text, or an object with content"
        )
    flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return AddedToken(content, **{flag: value.get(flag) is True for flag in flags})


def _parse_id(path: Path, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {shorten(value)} is not a token id") from error

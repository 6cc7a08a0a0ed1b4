"""The vocabulary of a checkpoint: `tokenizer.json`, or the older files that it can be made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.errors import CheckpointError, one_line, shortened
from gpt2flow.files.documents import read_object
from gpt2flow.server.bundle.manifest import TOKENIZER_NAME

_VOCABULARY_NAME: Final = "vocab.json"
_MERGES_NAME: Final = "merges.txt"
_SETTINGS_NAME: Final = "tokenizer_config.json"
_SPECIAL_NAME: Final = "special_tokens_map.json"
_ADDED_NAME: Final = "added_tokens.json"

# The one special token that GPT-2 itself has.
_DOCUMENT_END: Final = "<|endoftext|>"
_MORE_SPECIAL: Final = "additional_special_tokens"
# In the order in which transformers numbers those that are new.
_ROLES: Final = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    _MORE_SPECIAL,
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What turns text into the ids that a model was trained on.

    Attributes:
        tokenizer: The vocabulary, ready for use.
        json: The bytes of its `tokenizer.json`, to be written to a bundle.
        files: What it was read from.
    """

    tokenizer: Tokenizer
    json: bytes
    files: tuple[Path, ...]


def read_vocabulary(directory: Path, architecture: Architecture) -> Vocabulary:
    """Read the vocabulary of a checkpoint.

    Checkpoints from before `tokenizer.json` have `vocab.json` and `merges.txt`, and special
    tokens in up to three files more; of these the same tokenizer is made as by transformers.

    Raises:
        CheckpointError: There is none, it cannot be read, is not byte-level, or has more entries
            than the model; the message names the file.
    """
    path = directory / TOKENIZER_NAME
    if path.is_file():
        vocabulary = _read(path)
    else:
        vocabulary = _make(directory, architecture)
        path = directory / _VOCABULARY_NAME
    # The server maps tokens to bytes, which other kinds of vocabulary cannot.
    decoder = vocabulary.tokenizer.decoder
    if not isinstance(decoder, decoders.ByteLevel):
        kind = type(decoder).__name__ if decoder else "none"
        raise CheckpointError(f"{path} has the decoder {kind}; GPT-2's vocabulary is ByteLevel")
    largest = max(vocabulary.tokenizer.get_vocab().values(), default=0)
    if largest >= architecture.vocabulary_size:
        token = vocabulary.tokenizer.id_to_token(largest)
        raise CheckpointError(
            f"{path} has a token {token!r} of id {largest}; the model knows "
            f"{architecture.vocabulary_size}"
        )
    return vocabulary


def _read(path: Path) -> Vocabulary:
    try:
        content = path.read_bytes()
        return Vocabulary(Tokenizer.from_str(content.decode()), content, (path,))
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"{path} cannot be read: {one_line(error)}") from error


def _make(directory: Path, architecture: Architecture) -> Vocabulary:
    """Make the tokenizer as `GPT2TokenizerFast` does of the files that came before it."""
    parts = [directory / name for name in (_VOCABULARY_NAME, _MERGES_NAME)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{directory / TOKENIZER_NAME} is missing, and so is {' and '.join(missing)} "
            "to make it of"
        )
    try:
        model = models.BPE.from_file(
            *map(str, parts), continuing_subword_prefix="", end_of_word_suffix=""
        )
    except Exception as error:  # The library raises bare exceptions.
        names = " and ".join(map(str, parts))
        raise CheckpointError(f"{names} are no vocabulary: {one_line(error)}") from error
    tokenizer = Tokenizer(model)
    more = [directory / name for name in (_SETTINGS_NAME, _SPECIAL_NAME, _ADDED_NAME)]
    settings, special, added = (read_object(path, CheckpointError) for path in more)
    spaced = settings.get("add_prefix_space") is True
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    _add_numbered(tokenizer, directory, settings, added)
    tokenizer.add_special_tokens(
        [
            *_own_special(tokenizer, architecture),
            *_named_special(tokenizer, directory, settings, special),
        ]
    )
    files = (*parts, *(path for path in more if path.is_file()))
    return Vocabulary(tokenizer, tokenizer.to_str(pretty=True).encode(), files)


def _add_numbered(
    tokenizer: Tokenizer, directory: Path, settings: dict[str, Any], added: dict[str, Any]
) -> None:
    """Add the tokens that are listed with their ids, and checks that they get these ids."""
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        path = directory / _SETTINGS_NAME
        numbered = [(_id(path, number), _token(path, value)) for number, value in listed.items()]
    else:
        path = directory / _ADDED_NAME
        numbered = [
            (_id(path, number), AddedToken(content, normalized=True))
            for content, number in added.items()
        ]
    for number, token in sorted(numbered, key=lambda item: item[0]):
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        actual = tokenizer.token_to_id(token.content)
        if actual != number:
            raise CheckpointError(
                f"{path}: {token.content!r} has the id {number}; after {_VOCABULARY_NAME} "
                f"it is {actual}"
            )


def _own_special(tokenizer: Tokenizer, architecture: Architecture) -> Iterator[AddedToken]:
    """Yield what is special without being listed, as far as the vocabulary has it."""
    ids = {
        tokenizer.token_to_id(_DOCUMENT_END),
        architecture.bos_token_id,
        architecture.eos_token_id,
    }
    for number in sorted(ids - {None} - set(tokenizer.get_added_tokens_decoder())):
        content = tokenizer.id_to_token(number)
        if content is not None:
            yield AddedToken(content, special=True, normalized=False)


def _named_special(
    tokenizer: Tokenizer, directory: Path, settings: dict[str, Any], special: dict[str, Any]
) -> Iterator[AddedToken]:
    """Yield the tokens that have a role in one of two files; the second overrules the first."""
    added = tokenizer.get_added_tokens_decoder().values()
    known = {token.content: token for token in added}
    for role in _ROLES:
        path = directory / (_SPECIAL_NAME if special.get(role) else _SETTINGS_NAME)
        named = special.get(role) or settings.get(role) or []
        if role == _MORE_SPECIAL and not isinstance(named, list):
            raise CheckpointError(f"{path}: {role} is {shortened(named)}; it has to be a list")
        for value in named if isinstance(named, list) else [named]:
            token = _token(path, value)
            if isinstance(value, str):
                # A name alone says nothing of the flags that were listed with the id.
                token = known.get(value, token)
            token.special = True
            yield token


def _token(path: Path, value: Any) -> AddedToken:
    """Return a token that stands in a file as its text, or as an object with flags."""
    if isinstance(value, str) and value:
        return AddedToken(value, normalized=False)
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, str) or not content:
        raise CheckpointError(
            f"{path}: {shortened(value)} is no token: a text, or an object with content"
        )
    flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return AddedToken(content, **{flag: value.get(flag) is True for flag in flags})


def _id(path: Path, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {shortened(value)} is no id of a token") from error

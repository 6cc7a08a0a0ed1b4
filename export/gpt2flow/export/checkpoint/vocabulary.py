"""Vocabulary of a checkpoint, as transformers' `AutoTokenizer` loads it."""

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenizers import Tokenizer, models, pre_tokenizers

from gpt2flow.export.checkpoint.architecture import CONFIG_NAME, Architecture
from gpt2flow.export.checkpoint.pruning import leave_out_tokens
from gpt2flow.export.errors import CheckpointError, first_line, shorten
from gpt2flow.files.documents import read_object
from gpt2flow.server.bundle.decoder import read_decoder
from gpt2flow.server.bundle.manifest import TOKENIZER_NAME

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# GPT-2's only special token.
END_OF_TEXT: Final = "<|endoftext|>"

_BPE_NAMES: Final = ("vocab.json", "merges.txt")
_WORD_PIECE_NAME: Final = "vocab.txt"
_SENTENCE_PIECE_SUFFIX: Final = ".model"
# Later versions need a newer protobuf than the others here.
_SENTENCE_PIECE: Final = "sentencepiece==0.2.1"
# Files that may stand beside the vocabulary: its settings, and tokens that were added.
SETTINGS_NAME: Final = "tokenizer_config.json"
_SPECIAL_NAME: Final = "special_tokens_map.json"
_ADDED_NAME: Final = "added_tokens.json"
_BESIDE: Final = (SETTINGS_NAME, _SPECIAL_NAME, _ADDED_NAME)
_CLASS: Final = "tokenizer_class"
_WORD_PIECE_CLASS: Final = "BertTokenizer"
# GPT-2's classes; a checkpoint that names none has the first.
_GPT2_CLASSES: Final = ("GPT2Tokenizer", "GPT2TokenizerFast")
# Classes that only read a `tokenizer.json`; transformers 5 has a new name for the first.
_PLAIN_CLASSES: Final = ("PreTrainedTokenizerFast", "TokenizersBackend")
_ROLES: Final = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
_MORE_SPECIAL: Final = "additional_special_tokens"
# Roles in which GPT-2's class has its only special token.
_GPT2_ROLES: Final = ("bos_token", "eos_token", "unk_token")
# Settings by which a class adds tokens around a text.
_ENDS: Final = ("add_bos_token", "add_eos_token")

# Texts that a `tokenizer.json` must encode as transformers does, whatever its languages are.
_PROBES: Final = ("", " A parcel, 12 ", "我是学生。", "今日は雨です", "학생입니다", "naïve\n\n 🙂")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Vocabulary that a model was trained with.

    Attributes:
        tokenizer: Tokenizer of the vocabulary.
        json: Bytes of its `tokenizer.json`, to be written to a bundle.
        files: Files it was read from.
        left_out: Tokens of the files that the model lacks.
        bos_token_id: Token that the tokenizer has for the beginning of a text; None without.
    """

    tokenizer: Tokenizer
    json: bytes
    files: tuple[Path, ...]
    left_out: tuple[str, ...] = ()
    bos_token_id: int | None = None


def read_vocabulary(directory: Path, architecture: Architecture) -> Vocabulary:
    """Read the vocabulary of a checkpoint.

    Its tokenizer encodes and decodes as the one that `AutoTokenizer` loads, from whatever files.
    A `tokenizer.json` is kept as it is, unless other files change what it means.

    Raises:
        CheckpointError: The vocabulary is missing or unreadable, of an unsupported kind, or writes
            ordinary text with tokens that the model lacks; the message names the file.
    """
    sources = _find_sources(directory)
    beside = [path for name in _BESIDE if (path := directory / name).is_file()]
    files = (*sources, *beside)
    loaded = _load(directory, sources)
    tokenizer = _plain(loaded.backend_tokenizer)
    path = sources[0]
    _check(loaded, tokenizer, path)
    content, lacking = leave_out_tokens(tokenizer, path, architecture.vocabulary_size)
    tokenizer = Tokenizer.from_buffer(content) if lacking else tokenizer
    own = path.read_bytes() if path.name == TOKENIZER_NAME else b""
    if own and _plain(Tokenizer.from_buffer(own)).to_str() == tokenizer.to_str():
        content = own
    begin = loaded.cls_token_id if loaded.bos_token_id is None else loaded.bos_token_id
    return Vocabulary(
        tokenizer,
        content or tokenizer.to_str(pretty=True).encode(),
        files,
        tuple(_named_in(files, lacking)),
        None if begin is None or tokenizer.id_to_token(begin) is None else begin,
    )


def _find_sources(directory: Path) -> tuple[Path, ...]:
    """Return the files of the vocabulary, checked to be readable.

    Raises:
        CheckpointError: There are none, or one is damaged; the message names it.
    """
    if (path := directory / TOKENIZER_NAME).is_file():
        _parse(path)
        return (path,)
    bpe = [directory / name for name in _BPE_NAMES]
    missing = [path.name for path in bpe if not path.is_file()]
    if not missing:
        _parse_bpe(bpe)
        return tuple(bpe)
    if (path := directory / _WORD_PIECE_NAME).is_file():
        return (path,)
    if sentence_pieces := sorted(directory.glob(f"*{_SENTENCE_PIECE_SUFFIX}")):
        _require_sentence_piece(sentence_pieces[0])
        return tuple(sentence_pieces)
    others = "" if len(missing) < len(bpe) else f", {_WORD_PIECE_NAME} or spiece.model"
    names = " and ".join(missing) if not others else _BPE_NAMES[0]
    raise CheckpointError(
        f"{directory / TOKENIZER_NAME} is missing, and so is {names}{others} to build it from"
    )


def _parse(path: Path) -> None:
    try:
        Tokenizer.from_buffer(path.read_bytes())
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


def _parse_bpe(paths: list[Path]) -> None:
    try:
        models.BPE.from_file(*map(str, paths))
    except Exception as error:  # The library raises bare exceptions.
        names = " and ".join(map(str, paths))
        raise CheckpointError(f"{names} are not a vocabulary: {first_line(error)}") from error


def _require_sentence_piece(path: Path) -> None:
    if importlib.util.find_spec("sentencepiece") is None:
        raise CheckpointError(
            f"{path} takes the package sentencepiece to read: pip install {_SENTENCE_PIECE}; or "
            f"write {TOKENIZER_NAME} where it is installed, by AutoTokenizer's save_pretrained"
        )


def _read_settings(directory: Path) -> dict[str, Any]:
    """Return the settings beside the vocabulary, checked with the other files.

    Raises:
        CheckpointError: One is damaged; the message names the file and the field.
    """
    settings, special, added = (read_object(directory / name, CheckpointError) for name in _BESIDE)
    for name, fields in ((SETTINGS_NAME, settings), (_SPECIAL_NAME, special)):
        for role in _ROLES:
            _check_token(directory / name, role, fields.get(role))
        more = fields.get(_MORE_SPECIAL) or []
        if not isinstance(more, list):
            raise CheckpointError(
                f"{directory / name}: {_MORE_SPECIAL} is {shorten(more)}; it must be a list"
            )
        for value in more:
            _check_token(directory / name, _MORE_SPECIAL, value)
    for token, token_id in added.items():
        if not isinstance(token_id, int):
            raise CheckpointError(
                f"{directory / _ADDED_NAME}: {token!r} has the id {shorten(token_id)}; it must be "
                "a number"
            )
    return settings


def _check_token(path: Path, role: str, value: Any) -> None:
    content = value.get("content") if isinstance(value, dict) else value
    if value is not None and not isinstance(content, str):
        raise CheckpointError(
            f"{path}: {role} is {shorten(value)}; it must be a text, or an object with content"
        )


def _load(directory: Path, sources: tuple[Path, ...]) -> "PreTrainedTokenizerFast":
    """Return the tokenizer that transformers loads.

    Raises:
        CheckpointError: It cannot, or the tokenizer exists in Python only.
    """
    settings = _read_settings(directory)
    config = read_object(directory / CONFIG_NAME, CheckpointError)
    # An export needs no network, whatever the libraries try to look up on the hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Importing transformers takes seconds, so all cheaper checks come first.
    from transformers import AutoTokenizer, GPT2Config  # noqa: PLC0415 - as above

    from gpt2flow.export.checkpoint.torch_model import quiet_libraries  # noqa: PLC0415 - as above

    # Alone, these files do not tell their class, and that of GPT-2 cannot read them.
    if sources[0].name == _WORD_PIECE_NAME and not settings.get(_CLASS):
        config = {_CLASS: _WORD_PIECE_CLASS} | {k: v for k, v in config.items() if v is not None}
    name = settings.get(_CLASS) or config.get(_CLASS) or _GPT2_CLASSES[0]
    _require_known_class(directory, name)
    with quiet_libraries():
        try:
            if sources[0].name == TOKENIZER_NAME and name in (*_GPT2_CLASSES, *_PLAIN_CLASSES):
                loaded = _load_as_it_is(directory, settings, like_gpt2=name in _GPT2_CLASSES)
            else:
                # Given the configuration, it does without a `model_type`, which old ones lack.
                loaded = AutoTokenizer.from_pretrained(
                    directory, config=GPT2Config.from_dict(config), trust_remote_code=False
                )
        except Exception as error:  # Whatever a file makes it raise.
            raise CheckpointError(
                f"{sources[0]}: transformers cannot load the tokenizer: {first_line(error)}"
            ) from error
    if not loaded.is_fast:
        raise CheckpointError(
            f"{sources[0]}: {type(loaded).__name__} exists in Python only, and has no "
            f"{TOKENIZER_NAME} that a server could read"
        )
    tokenizer: PreTrainedTokenizerFast = loaded
    return tokenizer


def _require_known_class(directory: Path, name: Any) -> None:
    """Check that transformers has a class of tokenizers.

    Raises:
        CheckpointError: It has none of this name, which may do anything in Python.
    """
    from transformers.models.auto.tokenization_auto import (  # noqa: PLC0415 - as above
        tokenizer_class_from_name,
    )

    names = (name, f"{name}Fast", str(name).removesuffix("Fast"))
    if name not in _PLAIN_CLASSES and not any(map(tokenizer_class_from_name, names)):
        raise CheckpointError(
            f"{directory / SETTINGS_NAME}: {_CLASS} is {shorten(name)}, which transformers lacks; "
            f"name {_PLAIN_CLASSES[0]} if {TOKENIZER_NAME} holds all of the tokenizer"
        )


def _load_as_it_is(
    directory: Path, settings: dict[str, Any], *, like_gpt2: bool
) -> "PreTrainedTokenizerFast":
    """Return the tokenizer of a `tokenizer.json`, whatever its kind is.

    GPT-2's class in transformers 5 takes the vocabulary alone from the file.

    Args:
        directory: Directory of the checkpoint.
        settings: Content of its `tokenizer_config.json`.
        like_gpt2: Whether to do what GPT-2's class adds: its special token, and its prefix.
    """
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - as above

    stated = settings | read_object(directory / _SPECIAL_NAME, CheckpointError)
    roles = {role: END_OF_TEXT for role in _GPT2_ROLES if like_gpt2 and role not in stated}
    loaded = PreTrainedTokenizerFast.from_pretrained(directory, **roles)
    backend = loaded.backend_tokenizer
    if like_gpt2:
        _set_prefix_space(backend, wanted=bool(settings.get("add_prefix_space")))
    if not any(map(settings.get, _ENDS)) and _own_post_processor(directory) is None:
        # transformers 5 writes one that adds nothing.
        backend.post_processor = None
    return loaded


def _own_post_processor(directory: Path) -> Any:
    return Tokenizer.from_file(str(directory / TOKENIZER_NAME)).post_processor


def _set_prefix_space(tokenizer: Tokenizer, *, wanted: bool) -> None:
    """Set whether a byte-level tokenizer puts a space before a text."""
    state = json.loads(tokenizer.to_str())["pre_tokenizer"] or {}
    if state.get("type") == "ByteLevel" and state["add_prefix_space"] != wanted:
        options = {name: state[name] for name in ("trim_offsets", "use_regex") if name in state}
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=wanted, **options)


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that neither pads nor truncates."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _check(loaded: "PreTrainedTokenizerFast", tokenizer: Tokenizer, path: Path) -> None:
    """Check that a `tokenizer.json` holds all of a tokenizer.

    Raises:
        CheckpointError: The class of the tokenizer does more, or its decoder is not supported.
    """
    name = type(loaded).__name__
    try:
        read_decoder(tokenizer)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if loaded.split_special_tokens:
        raise CheckpointError(
            f"{path.with_name(SETTINGS_NAME)}: split_special_tokens is not supported; a request "
            "can ask for literal text instead"
        )
    for probe in _PROBES:
        ids = loaded(probe).input_ids
        same = tokenizer.encode(probe).ids == ids
        text = loaded.decode(ids, clean_up_tokenization_spaces=False)
        if not same or tokenizer.decode(ids, skip_special_tokens=False) != text:
            raise CheckpointError(
                f"{path}: {name} does more in Python than a {TOKENIZER_NAME} can hold"
            )


def _named_in(files: tuple[Path, ...], tokens: list[str]) -> Iterator[str]:
    """Yield the tokens that a file names, not the tokenizer's class alone."""
    texts: list[Any] = [path.read_bytes() for path in files]
    for token in tokens:
        # As text, or escaped in JSON.
        forms = {token.encode(), json.dumps(token)[1:-1].encode()}
        if any(form in text for form in forms for text in texts):
            yield token

"""Tokenizers that have more tokens than their model.

Such a tokenizer got tokens after the training, for example one for padding, without new embeddings
for them in the model.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gpt2flow.export.errors import CheckpointError, first_line


def leave_out_tokens(tokenizer: Tokenizer, path: Path, size: int) -> tuple[bytes, list[str]]:
    """Return a `tokenizer.json` without the tokens that its model lacks.

    A text that spells one of them out is then encoded as any other text.

    Args:
        tokenizer: Tokenizer of the vocabulary.
        path: Path of the file that it was read from, for errors.
        size: Number of the model's tokens.

    Returns:
        The content of the file, and the tokens that it lacks; the content is empty without such
        tokens.

    Raises:
        CheckpointError: Ordinary text needs one of the tokens.
    """
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    lacking = {token: token_id for token, token_id in ids.items() if token_id >= size}
    if not lacking:
        return b"", []
    fields = json.loads(tokenizer.to_str())
    _refuse_needed(tokenizer, path, fields, lacking, size)
    fields["added_tokens"] = [
        each for each in fields["added_tokens"] if each["content"] not in lacking
    ]
    fields["padding"] = None
    _cut(fields["model"], lacking.keys(), size)
    content = json.dumps(fields, ensure_ascii=False).encode()
    try:
        Tokenizer.from_buffer(content)
    except Exception as error:  # The library raises bare exceptions.
        raise CheckpointError(
            f"{path} cannot do without the tokens that the model lacks: {first_line(error)}"
        ) from error
    return content, sorted(lacking, key=lacking.__getitem__)


def _refuse_needed(
    tokenizer: Tokenizer, path: Path, fields: dict[str, Any], lacking: dict[str, int], size: int
) -> None:
    """Refuse a tokenizer whose ordinary tokens the model lacks."""
    added = {each["content"] for each in fields["added_tokens"]}
    around: list[int] = tokenizer.encode("", add_special_tokens=True).ids
    unknown = _unknown_token(fields["model"])
    for token, token_id in sorted(lacking.items(), key=lambda item: -item[1]):
        ordinary = token not in added and _is_reachable(fields["model"], token)
        if ordinary or token == unknown or token_id in around:
            raise CheckpointError(
                f"{path} has a token {token!r} of id {token_id}; the model has {size} entries"
            )


def _unknown_token(model: dict[str, Any]) -> str | None:
    """Return the token of characters that have no other."""
    if (index := model.get("unk_id")) is not None:
        return str(model["vocab"][index][0])
    token: str | None = model.get("unk_token")
    return token


def _is_reachable(model: dict[str, Any], token: str) -> bool:
    """Return whether an ordinary text can have a token."""
    if model["type"] != "BPE" or len(token) == 1 or model["continuing_subword_prefix"]:
        return True
    return any("".join(pair) == token for pair in _merges(model))


def _cut(model: dict[str, Any], lacking: Any, size: int) -> None:
    """Remove tokens from the model of a tokenizer."""
    if isinstance(model["vocab"], list):
        model["vocab"] = model["vocab"][:size]
        return
    model["vocab"] = {token: each for token, each in model["vocab"].items() if token not in lacking}
    if "merges" in model:
        model["merges"] = [pair for pair in _merges(model) if not lacking & {*pair, "".join(pair)}]


def _merges(model: dict[str, Any]) -> list[list[str]]:
    """Return the pairs of tokens that BPE merges."""
    return [each.split(" ") if isinstance(each, str) else each for each in model["merges"]]

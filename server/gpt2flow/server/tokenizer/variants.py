"""Variants of a tokenizer, which share its vocabulary and encode texts differently."""

import json
from typing import Any

from tokenizers import Tokenizer as HfTokenizer

from gpt2flow.server.bundle.decoder import component


def make_variant(tokenizer: HfTokenizer, *, literal: bool, continuing: bool) -> HfTokenizer:
    """Return a variant of a tokenizer.

    Args:
        tokenizer: The tokenizer; its vocabulary is not copied.
        literal: Whether special tokens written out in a text are ordinary text.
        continuing: Whether a text continues another one, so that nothing is put around it.
    """
    variant = HfTokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer"):
        value = getattr(tokenizer, part)
        if continuing and value is not None:
            value = _continuing(part, value)
        if value is not None:
            setattr(variant, part, value)
    if not continuing and tokenizer.post_processor is not None:
        variant.post_processor = tokenizer.post_processor
    # Added in the order of their ids, tokens get these ids again.
    for _, token in sorted(tokenizer.get_added_tokens_decoder().items()):
        (variant.add_special_tokens if token.special else variant.add_tokens)([token])
    variant.encode_special_tokens = literal
    return variant


def _continuing(part: str, value: Any) -> Any:
    """Return a normalizer or pre-tokenizer that puts nothing before a text."""
    state = json.loads(value.__getstate__())
    changed = _without_prefix(state)
    if changed == state:
        return value
    return None if changed is None else component(part, changed)


def _without_prefix(state: dict[str, Any]) -> dict[str, Any] | None:
    match state:
        case {"type": "Prepend"}:
            return None
        case {"type": "Sequence"}:
            [name] = state.keys() - {"type"}
            parts = map(_without_prefix, state[name])
            return state | {name: [part for part in parts if part is not None]}
    # Other parts have no such field.
    fields = {"strip_left": False, "prepend_scheme": "never", "add_prefix_space": False}
    return state | {name: value for name, value in fields.items() if name in state}

"""Prompts and continuations as requested, and their tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpt2flow.server.errors import FieldViolation, InvalidRequestError
from gpt2flow.server.limits import Limits
from gpt2flow.server.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt or continuation as requested.

    Attributes:
        field: Path of the field in the request.
        input: Text, token ids, or None if the request has neither.
        literal: Whether special tokens written out in the text are ordinary text.
        add_special_tokens: Whether to add those that the tokenizer puts around a text; None for
            the default, which is True for a prompt and False for a continuation.
    """

    field: str
    input: str | Sequence[int] | None
    literal: bool = False
    add_special_tokens: bool | None = None


class PromptEncoder:
    """Encoder of the prompts of one model."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits, bos_token_id: int | None) -> None:
        """Take the parts of the model.

        Args:
            tokenizer: Tokenizer of the model.
            limits: Limits of its requests.
            bos_token_id: Token that an empty prompt becomes; None refuses it.
        """
        self._tokenizer = tokenizer
        self._limits = limits
        self._bos_token_id = bos_token_id

    def least_tokens(self, prompt: Prompt, *, continuing: bool = False) -> int:
        """Return a lower bound of a prompt's tokens, without encoding it.

        Args:
            prompt: The prompt.
            continuing: As in `encode`.
        """
        given = prompt.input or ()
        if not isinstance(given, str):
            return len(given)
        add = _adds_special_tokens(prompt, continuing=continuing)
        return self._tokenizer.least_tokens(given, add_special_tokens=add)

    def encode(self, prompt: Prompt, *, continuing: bool = False) -> list[int]:
        """Return the token ids of a prompt.

        Args:
            prompt: The prompt.
            continuing: Whether it is a continuation, in front of which the tokenizer puts nothing.

        Raises:
            InvalidRequestError: It is empty, or one of its fields is bad.
        """
        if violations := list(_bad_fields(prompt, continuing=continuing)):
            raise InvalidRequestError(violations)
        given = prompt.input or ()
        if isinstance(given, str):
            if not self._tokenizer.bounds_tokens:
                self.check_size(prompt, "encoded")
            ids = self._tokenizer.encode(
                given,
                literal=prompt.literal,
                add_special_tokens=_adds_special_tokens(prompt, continuing=continuing),
                continuing=continuing,
            )
        else:
            ids = list(given)
        if (
            not ids
            and prompt.input is not None
            and not continuing
            and self._bos_token_id is not None
        ):
            ids = [self._bos_token_id]
        if not ids:
            raise InvalidRequestError.of(prompt.field, "must have text or token ids, not none")
        missing = self._limits.missing_ids
        if max(ids) >= self._limits.vocabulary_size or (missing and not missing.isdisjoint(ids)):
            raise InvalidRequestError.of(f"{prompt.field}.tokens.ids", self._limits.token_id_rule)
        return ids

    def truncate(self, prompt: Prompt, ids: list[int], room: int) -> list[int]:
        """Return the last `room` tokens of a prompt.

        Special tokens that the tokenizer put around a text stay.

        Args:
            prompt: The prompt.
            ids: Its tokens, more than `room`.
            room: Number of tokens to keep.

        Raises:
            InvalidRequestError: There is no room for a token of the text.
        """
        before, after = self._around(prompt)
        if room <= before + after:
            raise InvalidRequestError.of(
                "options.stopping.max_new_tokens",
                f"leaves room for {room} tokens of the prompt, must leave at least "
                f"{before + after + 1} of the model's context of {self._limits.context_length}",
            )
        return [*ids[:before], *ids[len(ids) - room + before :]]

    def check_size(self, prompt: Prompt, purpose: str = "truncated") -> None:
        """Check that a text is short enough to be encoded.

        Args:
            prompt: The prompt.
            purpose: What happens to the text, for the error.

        Raises:
            InvalidRequestError: It has too many bytes.
        """
        if isinstance(prompt.input, str):
            limit, size = self._limits.requests.tokenize_bytes, len(prompt.input.encode())
            if size > limit:
                raise InvalidRequestError.of(
                    prompt.field, f"has {size} bytes, must have at most {limit} to be {purpose}"
                )

    def truncated_text(self, prompt: Prompt, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of a truncated prompt.

        Args:
            prompt: The prompt as requested.
            ids: The tokens that were kept.
            skip_special_tokens: As in `text`.
        """
        before, after = self._around(prompt)
        return self._tokenizer.decode(
            ids[before : len(ids) - after],
            skip_special_tokens=skip_special_tokens and not isinstance(prompt.input, str),
        )

    def _around(self, prompt: Prompt) -> tuple[int, int]:
        """Return the numbers of special tokens around the text of a prompt."""
        if isinstance(prompt.input, str) and _adds_special_tokens(prompt, continuing=False):
            return self._tokenizer.around
        return 0, 0

    def text(self, prompt: Prompt, *, skip_special_tokens: bool) -> str:
        """Return the text of a prompt: as given, or decoded.

        Args:
            prompt: The prompt.
            skip_special_tokens: Whether special tokens among given ids write nothing.
        """
        if isinstance(prompt.input, str):
            return prompt.input
        return self._tokenizer.decode(prompt.input or (), skip_special_tokens=skip_special_tokens)


def _adds_special_tokens(prompt: Prompt, *, continuing: bool) -> bool:
    return not continuing and prompt.add_special_tokens is not False


def _bad_fields(prompt: Prompt, *, continuing: bool) -> Iterator[FieldViolation]:
    """Yield violations of the fields beside the input."""
    given = prompt.input is not None and not isinstance(prompt.input, str)
    if given and prompt.literal:
        yield FieldViolation(f"{prompt.field}.literal", "is for text, not for token ids")
    if given and prompt.add_special_tokens is not None:
        yield FieldViolation(f"{prompt.field}.add_special_tokens", "is for text, not for token ids")
    elif continuing and prompt.add_special_tokens:
        yield FieldViolation(
            f"{prompt.field}.add_special_tokens",
            "must be false: a continuation has no special tokens around it",
        )

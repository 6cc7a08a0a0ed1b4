"""Tokens that begin and end a text, as transformers' `generate` finds them.

`generation_config.json` takes precedence over `config.json`: if it exists, what it lacks is none.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gpt2flow.export.errors import CheckpointError, shorten

GENERATION_CONFIG_NAME: Final = "generation_config.json"


def _as_tuple(value: Any) -> Any:
    """Return one id, several or none as a tuple."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(not isinstance(each, int) or isinstance(each, bool) for each in ids):
        raise ValueError("Input should be a token id, a list of token ids, or null")
    return tuple(ids)


EosTokenIds = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
"""Ids of a field `eos_token_id`, which holds one, a list, or null."""


class _GenerationConfig(BaseModel):
    """Fields of a `generation_config.json` that are served."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    eos_token_ids: EosTokenIds = Field((), validation_alias="eos_token_id")
    bos_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Tokens that begin and end a text.

    Attributes:
        bos: Token that an empty prompt becomes; None if there is none.
        eos: Tokens that end a text; often one.
        warnings: Lines about ids that were left out.
    """

    bos: int | None
    eos: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def find_special_ids(
    file: str,
    eos_token_ids: tuple[int, ...],
    bos_token_id: int | None,
    has_token: Callable[[int], bool],
    stated: Collection[str],
) -> SpecialIds:
    """Return the ids that have a token, and warnings about the others.

    Args:
        file: Name of the file that the ids are from.
        eos_token_ids: Tokens that end a text.
        bos_token_id: Token that begins one.
        has_token: Whether both the model and the tokenizer have a token.
        stated: Names of the fields that the file states; others are at their defaults.
    """
    bos = bos_token_id if bos_token_id is not None and has_token(bos_token_id) else None
    eos = tuple(dict.fromkeys(filter(has_token, eos_token_ids)))

    def warnings() -> Iterator[str]:
        if bos is None and bos_token_id is not None and "bos_token_id" in stated:
            yield f"{file}: bos_token_id {bos_token_id} is the id of no token; it is left out"
        for token_id in eos_token_ids:
            if not has_token(token_id) and "eos_token_id" in stated:
                yield f"{file}: eos_token_id {token_id} is the id of no token; it is left out"
        if not eos:
            yield f"{file}: no token ends a text, for want of a valid eos_token_id"

    return SpecialIds(bos, eos, tuple(warnings()))


def parse_generation_config(config: dict[str, Any]) -> tuple[tuple[int, ...], int | None]:
    """Return the ids of the eos tokens, and of the bos token.

    Raises:
        CheckpointError: An id is no integer; the message names the field and its value.
    """
    try:
        fields = _GenerationConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(
            f"{GENERATION_CONFIG_NAME}: {field} is {shorten(first['input'])}: {message}"
        ) from error
    return fields.eos_token_ids, fields.bos_token_id

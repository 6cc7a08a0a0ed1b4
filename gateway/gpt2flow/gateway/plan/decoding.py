"""Sampling or beam search of a request."""

from collections.abc import Mapping
from typing import Any, Final

from gpt2flow.client import BeamSearch, Sampling
from gpt2flow.gateway.errors import invalid_field
from gpt2flow.gateway.fields.generation import GenerationFields

# Values that change nothing in a beam search, by the fields that only sampling has.
_NEUTRAL: Final[Mapping[str, tuple[float, ...]]] = {
    # Both mean "no opinion": the default of OpenAI, and the choice of the likeliest.
    "temperature": (0, 1),
    "top_p": (1,),
    "top_k": (0,),
    "min_p": (0,),
    "typical_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
_BEAMS_ONLY: Final = ("length_penalty", "early_stopping")
_UINT64: Final = 2**64


def plan_decoding(fields: GenerationFields, best_of: int | None = None) -> Sampling | BeamSearch:
    """Return the decoding of a request.

    It is a beam search if `num_beams` is given, or if `best_of` is above `n`.

    Args:
        fields: Fields of the request.
        best_of: Number of candidates of which the `n` likeliest are returned.

    Raises:
        ApiError: Fields contradict each other.
    """
    n = fields.n or 1
    beams = fields.num_beams
    if best_of is not None and best_of < n:
        raise invalid_field("best_of", f"is {best_of}, must be at least n, which is {n}")
    if best_of is not None and best_of > n:
        if beams not in {None, best_of}:
            raise invalid_field("best_of", f"is {best_of}, and num_beams is {beams}: give one")
        beams = best_of
    return _sampling(fields) if beams is None else _beam_search(fields, beams, n)


def _sampling(fields: GenerationFields) -> Sampling:
    for name in _BEAMS_ONLY:
        if getattr(fields, name) is not None:
            raise invalid_field(name, "needs num_beams")
    return Sampling(
        temperature=fields.temperature,
        top_k=fields.top_k or 0,
        top_p=fields.top_p,
        min_p=fields.min_p or 0.0,
        typical_p=fields.typical_p,
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        seed=None if fields.seed is None else fields.seed % _UINT64,
        n=fields.n,
        **_both(fields),
    )


def _beam_search(fields: GenerationFields, beams: int, n: int) -> BeamSearch:
    for name, neutral in _NEUTRAL.items():
        value = getattr(fields, name)
        if value is not None and value not in neutral:
            raise invalid_field(
                name,
                f"is {value}, and a beam search of {beams} beams draws nothing: leave it out, or"
                " ask for no beams",
            )
    return BeamSearch(
        num_beams=beams,
        length_penalty=fields.length_penalty,
        early_stopping=fields.early_stopping or False,
        num_return_sequences=n,
        **_both(fields),
    )


def _both(fields: GenerationFields) -> dict[str, Any]:
    """Return the parameters that sampling and beam search share."""
    return {
        "repetition_penalty": fields.repetition_penalty,
        "no_repeat_ngram_size": fields.no_repeat_ngram_size or 0,
        "logit_bias": tuple(
            (int(token_id), bias) for token_id, bias in (fields.logit_bias or {}).items()
        ),
        "bad_words": tuple(fields.bad_words or ()),
    }

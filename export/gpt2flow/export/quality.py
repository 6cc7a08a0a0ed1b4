"""Measures a bundle that is being made, and holds it to the gate of its profile."""

from collections.abc import Callable
from pathlib import Path

from gpt2flow.export.architecture import Architecture
from gpt2flow.export.errors import QualityGateError
from gpt2flow.export.evaluation_text import EvaluationText
from gpt2flow.export.recipe import RECIPES, Profile
from gpt2flow.export.reference_model import ReferenceModel
from gpt2flow.export.served_model import ServedModel
from gpt2flow.export.verify import Comparison, compare, slots_for
from gpt2flow.server.manifest import Quality

# More digits would be noise of the machine, and bundles of the same input are to be the same.
_DIGITS = 6


def measure(
    text: EvaluationText,
    reference: ReferenceModel,
    model: Path | None,
    architecture: Architecture,
    on_tokens: Callable[[int, int], None],
) -> Comparison:
    """Compares a serving graph with the reference on a text.

    Args:
        text: What to predict.
        reference: What to compare with.
        model: The serving graph; none compares the reference with itself.
        architecture: The shape of both.
        on_tokens: Told how many predictions are done, and how many there are.
    """
    total = text.predictions
    on_tokens(0, total)
    if model is None:
        return _reference_alone(text, reference, on_tokens)
    slots = slots_for(architecture.context_length, architecture.vocabulary_size)
    served = ServedModel(model, architecture, slots)
    return compare(text.windows, reference, served, slots, lambda done: on_tokens(done, total))


def hold_to_gate(
    comparison: Comparison, text: EvaluationText, profile: Profile, *, force: bool
) -> Quality:
    """Returns the figures for the manifest.

    Raises:
        QualityGateError: They miss the gate of the profile, and `force` is not given.
    """
    gate = RECIPES[profile].gate
    ratio = comparison.perplexity / comparison.perplexity_fp32
    # Not the other way round: a ratio that is no number misses the gate too.
    missed = not ratio <= gate
    if missed and not force:
        raise QualityGateError(
            profile,
            perplexity_fp32=comparison.perplexity_fp32,
            perplexity=comparison.perplexity,
            gate=gate,
        )
    return Quality(
        text=text.name,
        tokens=comparison.tokens,
        perplexity_fp32=round(comparison.perplexity_fp32, _DIGITS),
        perplexity=round(comparison.perplexity, _DIGITS),
        perplexity_ratio=round(ratio, _DIGITS),
        argmax_agreement=round(comparison.argmax_agreement, _DIGITS),
        mean_kl=round(comparison.mean_kl, _DIGITS),
        gate=gate,
        forced=missed,
    )


def _reference_alone(
    text: EvaluationText, reference: ReferenceModel, on_tokens: Callable[[int, int], None]
) -> Comparison:
    comparison = Comparison()
    for window in text.windows:
        logits = reference.logits(window[:-1])
        comparison.add(logits, logits, window[1:])
        on_tokens(comparison.tokens, text.predictions)
    return comparison

"""Measures a bundle that is being made, and holds it to the gate of its profile."""

from collections.abc import Callable
from pathlib import Path

from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.errors import QualityGateError
from gpt2flow.export.recipe import RECIPES, Profile
from gpt2flow.export.verification.evaluation_text import EvaluationText
from gpt2flow.export.verification.reference import ReferenceModel
from gpt2flow.export.verification.served_model import ServedModel
from gpt2flow.export.verification.verify import SLOTS, Comparison, Part, PartedComparison, compare
from gpt2flow.server.bundle.manifest import PartQuality, Quality

# More digits would be noise of the machine, and bundles of the same input are to be the same.
_DIGITS = 6
# The ratio of fewer tokens would be chance.
_LEAST_TOKENS = 200


def measure(
    text: EvaluationText,
    reference: ReferenceModel,
    model: Path,
    architecture: Architecture,
    narrow_rows: int | None,
    *,
    on_tokens: Callable[[int, int], None],
) -> PartedComparison:
    """Compare a serving graph with the reference on a text.

    Args:
        text: What to predict.
        reference: What to compare with.
        model: The serving graph.
        architecture: The shape of both.
        narrow_rows: Up to how many rows the graph takes the operators for few; None: it has no
            others.
        on_tokens: Told how many predictions are done, and how many there are.
    """
    total = text.predictions
    on_tokens(0, total)
    # No more than the text needs: a cache of whole contexts may be larger than the model.
    capacity = max(map(len, text.windows))
    served = ServedModel(model, architecture, SLOTS, capacity)
    return compare(
        text.windows,
        reference,
        served,
        narrow_rows or SLOTS,
        lambda done: on_tokens(done, total),
    )


def measure_alone(
    text: EvaluationText, reference: ReferenceModel, on_tokens: Callable[[int, int], None]
) -> PartedComparison:
    """Return the figures of the reference, which agrees with itself.

    Args:
        text: What to predict.
        reference: What predicts it.
        on_tokens: Told how many predictions are done, and how many there are.
    """
    comparison = PartedComparison(SLOTS)
    sums = comparison.parts[Part.PREFILL]
    for window in text.windows:
        logits = reference.logits(window[:-1])
        sums.add(logits, logits, window[1:])
        on_tokens(sums.tokens, text.predictions)
    return comparison


def hold_to_gate(
    comparison: PartedComparison, text: EvaluationText, profile: Profile, *, force: bool
) -> Quality:
    """Return the figures for the manifest.

    Raises:
        QualityGateError: The whole or a part of them misses the gate of the profile, and `force`
            is not given.
    """
    gate = RECIPES[profile].gate
    whole = comparison.whole
    named = {"": whole} | {str(name): part for name, part in comparison.parts.items()}
    missing = [
        (name, part)
        for name, part in named.items()
        # Not the other way round: a ratio that is no number misses the gate too.
        if (part is whole or part.tokens >= _LEAST_TOKENS) and not part.perplexity_ratio <= gate
    ]
    if missing and not force:
        name, part = missing[0]
        raise QualityGateError(
            profile,
            part=name,
            perplexity_fp32=part.perplexity_fp32,
            perplexity=part.perplexity,
            gate=gate,
        )
    return Quality(
        text=text.name,
        tokens=whole.tokens,
        perplexity_fp32=round(whole.perplexity_fp32, _DIGITS),
        perplexity=round(whole.perplexity, _DIGITS),
        **_figures(whole),
        parts={
            name: PartQuality(tokens=part.tokens, **_figures(part))
            for name, part in named.items()
            if name and part.tokens
        },
        gate=gate,
        forced=bool(missing),
    )


def _figures(comparison: Comparison) -> dict[str, float]:
    return {
        "perplexity_ratio": round(comparison.perplexity_ratio, _DIGITS),
        "argmax_agreement": round(comparison.argmax_agreement, _DIGITS),
        "mean_kl": round(comparison.mean_kl, _DIGITS),
    }

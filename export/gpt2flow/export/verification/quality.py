"""Quality of a bundle, and the gate of its profile."""

import os
from collections.abc import Callable
from pathlib import Path

from gpt2flow.export.errors import QualityGateError
from gpt2flow.export.recipe import RECIPES, Profile
from gpt2flow.export.verification.evaluation_text import EvaluationText
from gpt2flow.export.verification.verify import (
    SLOTS,
    Comparison,
    Phase,
    PhaseComparison,
    SupportsLogits,
    compare,
)
from gpt2flow.server.bundle.manifest import PartQuality, Quality
from gpt2flow.server.bundle.model_runner import ModelRunner

# Further decimals are noise of the machine; bundles of the same input must be identical.
_DECIMALS = 6
# The ratio of perplexities on fewer tokens is a matter of chance.
_MIN_GATED_TOKENS = 200


def measure(
    text: EvaluationText,
    reference: SupportsLogits,
    model: Path,
    *,
    on_tokens: Callable[[int, int], None],
) -> PhaseComparison:
    """Compare a serving graph with the reference on a text.

    Args:
        text: Text to predict.
        reference: Reference model.
        model: Path of the serving graph.
        on_tokens: Progress callback, called with the predictions done and in total.
    """
    total = text.predictions
    on_tokens(0, total)
    # A cache of whole contexts may be larger than the model.
    capacity = max(map(len, text.windows))
    served = ModelRunner(model, slots=SLOTS, capacity=capacity, threads=os.cpu_count() or 1)
    return compare(text.windows, reference, served, lambda done: on_tokens(done, total))


def measure_graph(
    text: EvaluationText,
    reference: SupportsLogits,
    graph: SupportsLogits,
    on_tokens: Callable[[int, int], None],
) -> PhaseComparison:
    """Compare a graph of whole windows with the reference on a text.

    Args:
        text: Text to predict.
        reference: Reference model.
        graph: Model to compare, which prefills every window.
        on_tokens: Progress callback, called with the predictions done and in total.
    """
    comparison = PhaseComparison()
    sums = comparison.by_phase[Phase.PREFILL]
    for window in text.windows:
        sums.add(reference.logits(window[:-1]), graph.logits(window[:-1]), window[1:])
        on_tokens(sums.tokens, text.predictions)
    return comparison


def enforce_quality_gate(
    comparison: PhaseComparison, text: EvaluationText, profile: Profile, *, force: bool
) -> Quality:
    """Return the quality for the manifest, if it passes the gate.

    The gate applies to all predictions together, and to each phase that has enough of them.

    Raises:
        QualityGateError: A ratio of perplexities misses the profile's gate, and `force` is not
            set.
    """
    gate = RECIPES[profile].gate
    whole = comparison.whole
    named = {"": whole} | {str(name): sums for name, sums in comparison.by_phase.items()}
    missing = [
        (name, sums)
        for name, sums in named.items()
        # Negated, so that NaN misses the gate too.
        if (sums is whole or sums.tokens >= _MIN_GATED_TOKENS) and not sums.perplexity_ratio <= gate
    ]
    if missing and not force:
        name, sums = missing[0]
        raise QualityGateError(
            profile,
            phase=name,
            perplexity_fp32=sums.perplexity_fp32,
            perplexity=sums.perplexity,
            gate=gate,
        )
    return Quality(
        text=text.name,
        tokens=whole.tokens,
        perplexity_fp32=round(whole.perplexity_fp32, _DECIMALS),
        perplexity=round(whole.perplexity, _DECIMALS),
        **_metrics(whole),
        parts={
            name: PartQuality(tokens=sums.tokens, **_metrics(sums))
            for name, sums in named.items()
            if name and sums.tokens
        },
        gate=gate,
        forced=bool(missing),
    )


def _metrics(comparison: Comparison) -> dict[str, float]:
    return {
        "perplexity_ratio": round(comparison.perplexity_ratio, _DECIMALS),
        "argmax_agreement": round(comparison.argmax_agreement, _DECIMALS),
        "mean_kl": round(comparison.mean_kl, _DECIMALS),
    }

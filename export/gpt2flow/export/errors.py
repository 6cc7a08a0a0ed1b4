"""The errors of the export: one base class, and a kind for everything bad that was given."""

from typing import Final

_LONGEST: Final = 100


class ExportError(Exception):
    """Base of every error that the export raises on purpose; the message is one line."""


class InputError(ExportError):
    """What was given cannot be used; doing the same again ends the same."""


class CheckpointError(InputError):
    """The checkpoint is missing, damaged, or no GPT-2 that can be exported."""


class EvaluationTextError(InputError):
    """There is no evaluation text, or it is too short to measure anything."""


class OutputError(InputError):
    """The output directory exists already, or cannot be made where it should be."""


class QualityGateError(ExportError):
    """The bundle is worse than its profile allows.

    Attributes:
        part: The part of the predictions that it is about; empty: all of them.
        perplexity_fp32: Perplexity of the fp32 reference.
        perplexity: Perplexity of the bundle that was refused.
        gate: The largest ratio of the two that the profile allows.
    """

    def __init__(
        self, profile: str, part: str, perplexity_fp32: float, perplexity: float, gate: float
    ) -> None:
        self.part = part
        self.perplexity_fp32 = perplexity_fp32
        self.perplexity = perplexity
        self.gate = gate
        where = f" ({part})" if part else ""
        super().__init__(
            f"profile {profile} misses its quality gate{where}: perplexity {perplexity:.6g} "
            f"against {perplexity_fp32:.6g} in fp32 is a ratio of "
            f"{perplexity / perplexity_fp32:.5g}, allowed is {gate:g}; "
            "--force writes the bundle all the same"
        )


def one_line(error: BaseException) -> str:
    """Return the first line of what a library said, or the kind of error if it said nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def shortened(value: object) -> str:
    """Return how Python writes a value, cut where it would fill the line."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

"""Errors of the export, with one subclass per kind of bad input."""

from typing import Final

_MAX_REPR_LENGTH: Final = 100


class ExportError(Exception):
    """Base class of deliberate errors of the export; messages are one line."""


class InputError(ExportError):
    """Unusable input.

    Retrying with the same input fails again.
    """


class CheckpointError(InputError):
    """The checkpoint is missing, damaged or not an exportable GPT-2."""


class HubError(InputError):
    """The model cannot be had from its Hugging Face hub."""


class NoModelError(HubError):
    """The hub has no such model, or does not answer.

    The name may be a mistyped path.
    """


class AdapterError(InputError):
    """The adapter, or its base model, cannot be merged."""


class EvaluationTextError(InputError):
    """The evaluation text is missing, or too short to measure anything."""


class OutputError(InputError):
    """The output directory exists already or cannot be created."""


class MissingPackageError(InputError):
    """The profile needs a package that is not installed."""


class QualityGateError(ExportError):
    """The bundle misses the quality gate of its profile.

    Attributes:
        phase: Phase of inference that misses the gate; empty for all predictions together.
        perplexity_fp32: Perplexity of the fp32 reference.
        perplexity: Perplexity of the refused bundle.
        gate: Largest ratio of the two that the profile allows.
    """

    def __init__(
        self, profile: str, phase: str, perplexity_fp32: float, perplexity: float, gate: float
    ) -> None:
        self.phase = phase
        self.perplexity_fp32 = perplexity_fp32
        self.perplexity = perplexity
        self.gate = gate
        where = f" ({phase})" if phase else ""
        super().__init__(
            f"profile {profile} misses its quality gate{where}: perplexity {perplexity:.6g} "
            f"against {perplexity_fp32:.6g} in fp32, ratio "
            f"{perplexity / perplexity_fp32:.5g}, limit {gate:g}; "
            "--force writes the bundle anyway"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message.

    An error without a message is represented by the name of its class.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def shorten(value: object) -> str:
    """Return the `repr` of a value, truncated to fit on a line."""
    text = repr(value)
    return text if len(text) <= _MAX_REPR_LENGTH else f"{text[:_MAX_REPR_LENGTH]}…"

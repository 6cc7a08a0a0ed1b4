"""Calibration: the texts of an export, and the scales that they give an int8 KV cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.errors import EvaluationTextError
from gpt2flow.export.graph.cache import LARGEST_INT8, CacheScales
from gpt2flow.export.verification.evaluation_text import (
    TOKEN_BUDGET,
    EvaluationText,
    TokenizedText,
    read_text,
)
from gpt2flow.export.verification.reference import ReferenceModel

# Several windows of one text say more than one long one, there are enough of them to decode many
# together and few, and their logits fit into memory.
WINDOW: Final = 256
# One window, and those to calibrate with, are as long as contexts are in use.
LONG_WINDOW: Final = 1024
# Of as many tokens, the inputs of a matrix of GPT-2 124M (up to 3,072) span all their directions.
CALIBRATION_TOKENS: Final = 8192

_EVALUATION_NAME: Final = "eval.txt"
_CALIBRATION_NAME: Final = "calibration.txt"


@dataclass(frozen=True, slots=True)
class Texts:
    """What to measure on, and what to calibrate with; None where the export has no need of it."""

    evaluation: EvaluationText | None
    calibration: EvaluationText | None


def find_texts(
    source: Checkpoint,
    evaluation: Path | None,
    calibration: Path | None,
    *,
    measured: bool,
    calibrated: bool,
) -> Texts:
    """Find the texts that an export needs, in the checkpoint where no path is given.

    Without a text to calibrate with, every other window of the evaluation text is kept for that,
    and quality is measured on the rest.

    Raises:
        EvaluationTextError: There is none, it cannot be read, or both are the same.
    """
    in_checkpoint = source.directory / _EVALUATION_NAME
    path = evaluation or in_checkpoint
    if not measured and not path.is_file():
        return Texts(None, None)
    if not evaluation and not in_checkpoint.is_file():
        raise EvaluationTextError(
            f"{source.directory} has no {_EVALUATION_NAME} to measure quality on; "
            "give a text with --eval"
        )
    context = source.architecture.context_length
    text = read_text(path, source.tokenizer)
    measured_on = text.windows(min(WINDOW, context))
    if not calibrated:
        return Texts(measured_on, None)
    if calibration is None and (source.directory / _CALIBRATION_NAME).is_file():
        calibration = source.directory / _CALIBRATION_NAME
    if calibration is None:
        return _divide(measured_on)
    long = min(LONG_WINDOW, context)
    calibrated_on = read_text(calibration, source.tokenizer).windows(long, CALIBRATION_TOKENS)
    if calibrated_on.name.split()[-1] == measured_on.name.split()[-1]:
        raise EvaluationTextError(
            f"{calibration} holds the same as {path}: quality has to be measured on text that "
            "calibration has not seen"
        )
    return Texts(_with_a_long_window(text, measured_on, long), calibrated_on)


def _with_a_long_window(text: TokenizedText, short: EvaluationText, length: int) -> EvaluationText:
    """Add the longest window of a text to short ones, if it is longer than these."""
    longest = max(text.windows(length).windows, key=len)
    if len(longest) <= WINDOW:
        return short
    others = text.windows(WINDOW, TOKEN_BUDGET - len(longest))
    return replace(others, windows=(longest, *others.windows))


def _divide(text: EvaluationText) -> Texts:
    windows = text.windows
    if len(windows) == 1:
        windows = _halves(windows[0])
    return Texts(replace(text, windows=windows[::2]), replace(text, windows=windows[1::2]))


def _halves(window: TokenArray) -> tuple[TokenArray, TokenArray]:
    middle = len(window) // 2
    if middle < 2:
        raise EvaluationTextError(
            f"the evaluation text has {len(window)} tokens, too few to calibrate with a part of "
            "it; give a text with --calibration"
        )
    return window[:middle], window[middle:]


def calibrate_cache(
    reference: ReferenceModel,
    architecture: Architecture,
    windows: Sequence[TokenArray],
    on_window: Callable[[int, int], None],
) -> CacheScales:
    """Return scales with which the largest key and value of every channel just fit into int8.

    Args:
        reference: Computes keys and values.
        architecture: Its shape.
        windows: The tokens to look at, int64 [tokens] each.
        on_window: Told how many windows are done, and how many there are.
    """
    shape = (2, architecture.layers, architecture.heads, architecture.head_size)
    largest: FloatArray = np.zeros(shape, np.float32)
    for done, window in enumerate(windows, 1):
        for layer, parts in enumerate(reference.keys_and_values(window)):
            for part, numbers in enumerate(parts):
                np.maximum(
                    largest[part, layer], np.abs(numbers).max(axis=1), out=largest[part, layer]
                )
        on_window(done, len(windows))
    # A channel that is always zero takes any scale.
    key, value = np.where(largest > 0, largest / LARGEST_INT8, 1).astype(np.float32)
    return CacheScales(key, value)

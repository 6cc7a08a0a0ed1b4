"""Calibration: texts of an export, and scales of an int8 KV cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.errors import EvaluationTextError
from gpt2flow.export.graph.cache import CacheScales
from gpt2flow.export.verification.evaluation_text import (
    DEFAULT_TEXT,
    TOKEN_BUDGET,
    EvaluationText,
    TokenizedText,
    read_text,
)
from gpt2flow.export.verification.reference import ReferenceModel

# Windows are short, so that they sample many places of a text, their logits fit into memory, and
# there are enough of them to verify both small and large batches.
WINDOW: Final = 256
# One evaluation window, and all calibration windows, are as long as contexts in practice.
LONG_WINDOW: Final = 1024
# Enough for the inputs of every matrix of GPT-2 124M (up to 3,072) to span all their dimensions.
CALIBRATION_TOKENS: Final = 8192

_INT8_MAX: Final = 127
_EVALUATION_NAME: Final = "eval.txt"
_CALIBRATION_NAME: Final = "calibration.txt"


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of an export.

    Attributes:
        evaluation: Text to measure quality on, None if quality is not measured.
        calibration: Text to calibrate with, None if nothing is calibrated.
    """

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
    """Find the texts that an export needs.

    Without an evaluation text, there is the exporter's own. Without a calibration text, every other
    window of the evaluation text, or document of the exporter's own, is reserved for calibration,
    and quality is measured on the rest.

    Args:
        source: Checkpoint to export; it provides the texts for which no path is given.
        evaluation: Path of the text to measure quality on.
        calibration: Path of the text to calibrate with.
        measured: Whether quality must be measured. Otherwise, it is measured if there is a text
            beside the exporter's own.
        calibrated: Whether the export calibrates anything.

    Raises:
        EvaluationTextError: A text is unreadable or too short, or both are the same.
    """
    in_checkpoint = source.directory / _EVALUATION_NAME
    path = evaluation or (in_checkpoint if in_checkpoint.is_file() else DEFAULT_TEXT)
    if not measured and path == DEFAULT_TEXT:
        return Texts(None, None)
    context = source.architecture.context_length
    text = read_text(path, source.tokenizer)
    measured_on = text.windows(min(WINDOW, context))
    if not calibrated:
        return Texts(measured_on, None)
    if calibration is None and (source.directory / _CALIBRATION_NAME).is_file():
        calibration = source.directory / _CALIBRATION_NAME
    long = min(LONG_WINDOW, context)
    if calibration is None and path == DEFAULT_TEXT:
        return _split_documents(text, long)
    if calibration is None:
        return _split_for_calibration(measured_on)
    calibrated_on = read_text(calibration, source.tokenizer).windows(long, CALIBRATION_TOKENS)
    if calibrated_on.name.split()[-1] == measured_on.name.split()[-1]:
        raise EvaluationTextError(
            f"{calibration} holds the same as {path}; quality must be measured on text that "
            "calibration has not seen, so give another one"
        )
    return Texts(_add_long_window(text, measured_on, long), calibrated_on)


def _add_long_window(text: TokenizedText, short: EvaluationText, length: int) -> EvaluationText:
    """Add the longest window of a text, if it exceeds `WINDOW`."""
    longest = max(text.windows(length).windows, key=len)
    if len(longest) <= WINDOW:
        return short
    others = text.windows(WINDOW, TOKEN_BUDGET - len(longest))
    return replace(others, windows=(longest, *others.windows))


def _split_documents(text: TokenizedText, long: int) -> Texts:
    """Return alternating documents of a text as evaluation and calibration texts."""
    measured, calibrated = (replace(text, documents=text.documents[first::2]) for first in range(2))
    windows = measured.windows(min(WINDOW, long))
    return Texts(
        _add_long_window(measured, windows, long), calibrated.windows(long, CALIBRATION_TOKENS)
    )


def _split_for_calibration(text: EvaluationText) -> Texts:
    """Return alternating windows of a text as evaluation and calibration texts."""
    windows = text.windows
    if len(windows) == 1:
        windows = _split_in_half(windows[0])
    return Texts(replace(text, windows=windows[::2]), replace(text, windows=windows[1::2]))


def _split_in_half(window: TokenArray) -> tuple[TokenArray, TokenArray]:
    middle = len(window) // 2
    if middle < 2:
        raise EvaluationTextError(
            f"the evaluation text has {len(window)} tokens, too few to calibrate with a part of "
            "it (4 needed); give a text with --calibration"
        )
    return window[:middle], window[middle:]


def calibrate_cache(
    reference: ReferenceModel,
    architecture: Architecture,
    windows: Sequence[TokenArray],
    on_window: Callable[[int, int], None],
) -> CacheScales:
    """Return the scales of an int8 KV cache, measured on a text.

    Each channel's key or value of largest magnitude is mapped to the end of the int8 range.

    Args:
        reference: Reference model, which computes keys and values.
        architecture: Architecture of the model.
        windows: Token windows to calibrate with, int64 [tokens] each.
        on_window: Progress callback, called after each window with the windows done and in total.
    """
    shape = (2, architecture.layers, architecture.heads, architecture.head_size)
    largest: FloatArray = np.zeros(shape, np.float32)
    for done, window in enumerate(windows, 1):
        for layer, parts in enumerate(reference.keys_and_values(window)):
            for part, values in enumerate(parts):
                np.maximum(
                    largest[part, layer], np.abs(values).max(axis=1), out=largest[part, layer]
                )
        on_window(done, len(windows))
    # Any scale represents a channel that is always zero.
    key, value = np.where(largest > 0, largest / _INT8_MAX, 1).astype(np.float32)
    return CacheScales(key, value)

"""Quality is measured on text that calibration has not seen."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.documents import DOCUMENTS

from gpt2flow.export.checkpoint.checkpoint import Checkpoint, read_checkpoint
from gpt2flow.export.checkpoint.vocabulary import END_OF_TEXT
from gpt2flow.export.errors import EvaluationTextError
from gpt2flow.export.quantization.calibration import WINDOW, Texts, find_texts
from gpt2flow.export.verification.evaluation_text import DEFAULT_TEXT, TOKEN_BUDGET


@pytest.fixture
def source(make_model: Any, save_checkpoint: Any, tmp_path: Path) -> Checkpoint:
    checkpoint = save_checkpoint(make_model(), tmp_path / "checkpoint")
    (checkpoint / "calibration.txt").unlink()
    return read_checkpoint(checkpoint)


def find(
    source: Checkpoint,
    evaluation: Path | None = None,
    calibration: Path | None = None,
    *,
    measured: bool = True,
    calibrated: bool = True,
) -> Texts:
    return find_texts(source, evaluation, calibration, measured=measured, calibrated=calibrated)


def words(texts: Texts, source: Checkpoint) -> tuple[list[str], list[str]]:
    assert texts.evaluation
    assert texts.calibration
    decode = source.tokenizer.decode
    measured, calibrated = (
        [decode(list(window)) for window in text.windows]
        for text in (texts.evaluation, texts.calibration)
    )
    return measured, calibrated


def test_every_other_document_is_reserved_for_calibration(source: Checkpoint) -> None:
    measured, calibrated = words(find(source), source)
    assert measured == list(DOCUMENTS[::2])
    assert calibrated == list(DOCUMENTS[1::2])


def test_a_single_document_is_cut_in_two(source: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(DOCUMENTS[0])
    measured, calibrated = words(find(source, tmp_path / "one.txt"), source)
    assert len(measured) == len(calibrated) == 1
    assert measured[0] + calibrated[0] == DOCUMENTS[0]


def test_a_text_too_short_to_split_is_refused(source: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("cup")
    with pytest.raises(EvaluationTextError, match="give a text with --calibration"):
        find(source, tmp_path / "short.txt")


def test_a_calibration_text_leaves_the_whole_evaluation_text(source: Checkpoint) -> None:
    (source.directory / "calibration.txt").write_text("Thank you, please.<|endoftext|>")
    measured, calibrated = words(find(source), source)
    assert measured == list(DOCUMENTS)
    assert calibrated == ["Thank you, please."]


def test_a_given_text_takes_precedence_over_the_checkpoints(
    source: Checkpoint, tmp_path: Path
) -> None:
    (source.directory / "calibration.txt").write_text("Thank you, please.")
    (tmp_path / "mine.txt").write_text("I want my own cups.")
    assert words(find(source, calibration=tmp_path / "mine.txt"), source)[1] == [
        "I want my own cups."
    ]


def test_the_same_text_twice_is_refused(source: Checkpoint, tmp_path: Path) -> None:
    same = tmp_path / "other-name.txt"
    same.write_bytes((source.directory / "eval.txt").read_bytes())
    with pytest.raises(EvaluationTextError, match="calibration has not seen"):
        find(source, calibration=same)


def test_without_calibration_the_whole_text_is_for_evaluation(source: Checkpoint) -> None:
    texts = find(source, calibrated=False)
    assert texts.calibration is None
    assert texts.evaluation
    assert len(texts.evaluation.windows) == len(DOCUMENTS)


def test_a_long_text_yields_short_windows_and_a_long_one(
    make_model: Any, save_checkpoint: Any, tmp_path: Path
) -> None:
    model = make_model(n_positions=2 * WINDOW, n_layer=1)
    source = read_checkpoint(save_checkpoint(model, tmp_path / "checkpoint"))
    for name, text in (("long", DOCUMENTS * 60), ("other", DOCUMENTS[::-1] * 60)):
        (tmp_path / f"{name}.txt").write_text(" ".join(text))
    texts = find(source, tmp_path / "long.txt", tmp_path / "other.txt")
    assert texts.evaluation
    lengths = [len(window) for window in texts.evaluation.windows]
    assert lengths[0] == 2 * WINDOW
    # Enough short windows for small and large batches.
    assert lengths[1:].count(WINDOW) >= 12
    assert sum(lengths) < 1.1 * TOKEN_BUDGET
    assert texts.calibration
    assert max(map(len, texts.calibration.windows)) == 2 * WINDOW
    (source.directory / "calibration.txt").unlink()
    divided = find(source, tmp_path / "long.txt")
    assert divided.evaluation
    assert max(map(len, divided.evaluation.windows)) == WINDOW


def test_without_a_text_there_is_one_in_two_languages(source: Checkpoint) -> None:
    """Either half has both languages, and no document is in both."""
    (source.directory / "eval.txt").unlink()
    texts = find(source)
    assert texts.evaluation
    assert texts.calibration
    assert texts.evaluation.name == texts.calibration.name
    assert texts.evaluation.name.startswith("default_text.txt sha256:")
    halves = DEFAULT_TEXT.read_text(encoding="utf-8").split(END_OF_TEXT)[:-1]
    for half in (halves[::2], halves[1::2]):
        chinese = sum("一" <= character <= "龥" for character in "".join(half))
        assert 1000 < chinese < len("".join(half)) - 4000
    measured, calibrated = words(texts, source)
    assert not set(measured) & set(calibrated)
    assert texts.evaluation.predictions > 2000


def test_the_text_of_the_exporter_is_measured_on_whole_beside_a_calibration_text(
    source: Checkpoint, tmp_path: Path
) -> None:
    (source.directory / "eval.txt").unlink()
    (tmp_path / "own.txt").write_text(DOCUMENTS[0])
    texts = find(source, calibration=tmp_path / "own.txt")
    assert texts.calibration
    assert texts.calibration.name.startswith("own.txt ")
    assert texts.evaluation
    assert texts.evaluation.predictions > 3000
    assert find(source, measured=False) == Texts(None, None)

"""The evaluation text is cut at documents, and sampled evenly."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from gpt2flow.export.errors import EvaluationTextError
from gpt2flow.export.verification.evaluation_text import read_text

END = 0


def test_windows_do_not_cross_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("<|user|>I order a cup.<|endoftext|>\nThank you,\nall.<|endoftext|>\nI want")
    text = read_text(path, tokenizer).windows(64)
    first, second, third = (list(window) for window in text.windows)
    assert first == [*tokenizer.encode("<|user|>I order a cup.").ids, END]
    assert first[0] == tokenizer.token_to_id("<|user|>")
    assert second == [*tokenizer.encode("Thank you,\nall.").ids, END]
    assert third == tokenizer.encode("I want").ids
    assert text.predictions == len(first) + len(second) + len(third) - 3


def test_long_documents_are_cut_to_the_context(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("order " * 200)
    windows = read_text(path, tokenizer).windows(32).windows
    assert {len(window) for window in windows[:-1]} == {32}
    np.testing.assert_array_equal(np.concatenate(windows), tokenizer.encode(path.read_text()).ids)


def test_a_long_text_is_sampled_evenly(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    # The tests' vocabulary has no digits.
    letters = str.maketrans("0123456789", "abcdehorut")
    names = [str(number).translate(letters) for number in range(2000)]
    path.write_text("".join(f"order {name}<|endoftext|>" for name in names))
    everything = read_text(path, tokenizer).windows(64, 10**9)
    sample = read_text(path, tokenizer).windows(64, 600)
    assert 590 <= sample.predictions <= 610
    positions = [
        next(i for i, window in enumerate(everything.windows) if np.array_equal(window, chosen))
        for chosen in sample.windows
    ]
    assert positions[0] == 0
    assert positions[-1] > 1900
    assert max(np.diff(positions)) < 4 * min(np.diff(positions))


def test_the_name_contains_a_hash_of_the_content(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "eval.txt"
    path.write_text("I want a cup")
    before = read_text(path, tokenizer).windows(64).name
    assert before.startswith("eval.txt sha256:")
    path.write_text("I want a cap")
    assert read_text(path, tokenizer).windows(64).name != before


def test_truncation_settings_of_the_tokenizer_are_ignored(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    limited = Tokenizer.from_str(tokenizer.to_str())
    limited.enable_truncation(4)
    limited.enable_padding(length=50)
    path = tmp_path / "eval.txt"
    path.write_text("I want a cup and an order")
    (window,) = read_text(path, limited).windows(64).windows
    assert list(window) == tokenizer.encode(path.read_text()).ids


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "holds less than two tokens"),
        (b"<|endoftext|>\n<|endoftext|>\n", "holds less than two tokens"),
        (b"\xff\xfe", "cannot be read as text: 'utf-8' codec"),
        (None, "cannot be read as text: .*No such file"),
    ],
)
def test_an_unreadable_or_empty_text_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "eval.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EvaluationTextError, match=message):
        read_text(path, tokenizer).windows(64)

"""Choice of kernels, and what happens without the library."""

import subprocess
import sys

import pytest

from gpt2flow.native import library
from gpt2flow.native.library import FALLBACK, available_kernels, load_operators


def test_this_processor_runs_the_plain_kernels_and_the_fallback() -> None:
    assert available_kernels()[-2:] == ["plain", FALLBACK]


def test_the_choice_is_what_a_session_registers() -> None:
    for name in available_kernels()[:-1]:
        operators = load_operators(name)
        assert (operators.attention, operators.products) == (name, name)
        assert operators.library
    assert load_operators(FALLBACK).library is None


def test_by_default_a_processor_runs_only_what_was_measured_to_be_faster() -> None:
    operators = load_operators()
    for name in (operators.attention, operators.products):
        assert name in {available_kernels()[0], FALLBACK}
    assert operators.products == FALLBACK or operators.products in library.FAST_PRODUCTS


def test_kernels_that_the_processor_lacks_are_refused_with_those_that_it_has() -> None:
    with pytest.raises(ValueError, match=r"kernels are 'neon9', must be one of .*plain"):
        load_operators("neon9")


def test_without_a_library_everything_runs_on_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "open_library", lambda: None)
    assert available_kernels() == [FALLBACK]
    operators = load_operators()
    assert (operators.library, operators.attention, operators.products) == (
        None,
        FALLBACK,
        FALLBACK,
    )


@pytest.mark.process
def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, gpt2flow.native; print({'numpy', 'onnxruntime'} & set(sys.modules))"
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert completed.stdout == "set()\n"

"""Settings and recipes are validated when they are made."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2flow.training.config import SHOP_RECIPE, TrainingConfig, load_recipe
from gpt2flow.training.errors import ConfigError


def test_the_shipped_recipe_is_valid_and_has_four_to_seven_million_parameters() -> None:
    recipe = load_recipe(SHOP_RECIPE)
    weights = 12 * recipe.layers * recipe.width**2 + recipe.width * (
        recipe.vocabulary_size + recipe.context_length
    )
    assert recipe.context_length == 512
    assert 4e6 < weights < 7e6


@pytest.mark.parametrize(
    "text, problem",
    [
        ("layers: none", "field layers: Input should be a valid integer"),
        ("dropout: 2", "field dropout: Input should be less than 1, not '2'"),
        ("width: 100\nheads: 3", "width 100 is not a multiple of heads 3"),
        ("batch_tokens: 64", "batch_tokens 64 is below context_length 512"),
        ("depth: 3", "field depth: Extra inputs are not permitted"),
        ("- a", "Input should be a valid dictionary"),
        ("a: [", "while parsing"),
    ],
)
def test_an_invalid_recipe_is_named_with_field_and_value(
    write: Callable[[str, str], Path], text: str, problem: str
) -> None:
    path = write("bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: .*No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_a_changed_setting_is_validated() -> None:
    with pytest.raises(ConfigError, match=r"field layers: .* not 0"):
        TrainingConfig().changed(layers=0)


@pytest.mark.process
def test_settings_and_corpus_are_imported_without_torch() -> None:
    """The command line reports an invalid recipe without a slow import."""
    code = (
        "import sys, gpt2flow.training, gpt2flow.training.config, gpt2flow.training.corpus.corpus\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

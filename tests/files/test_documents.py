"""Readers of documents: errors name the file and the field."""

from pathlib import Path

import pytest

from gpt2flow.files.documents import StrictModel, read_yaml


class Recipe(StrictModel):
    width: int
    layers: int = 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("widht: 4", "field widht: Extra inputs are not permitted"),
        ("layers: 2", "field width: Field required"),
        ("width: wide", "field width: Input should be a valid integer"),
        ("width: {", "while parsing"),
    ],
)
def test_an_error_names_the_file_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LookupError) as caught:
        read_yaml(file, Recipe, LookupError)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)

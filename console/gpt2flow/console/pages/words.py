"""Words of the console in each language."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import RootModel

from gpt2flow.agent.wording import Language
from gpt2flow.console.errors import ConsoleConfigError
from gpt2flow.files.documents import read_yaml

LANGUAGES: Final[Sequence[Language]] = ("en", "zh")
FOLDER: Final = Path(__file__).parent.parent / "words"
# One entry of Accept-Language, such as `zh-CN;q=0.9`.
_ACCEPTED = re.compile(r"\s*([A-Za-z]{1,8})[A-Za-z0-9-]*\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*")


class _Words(RootModel[dict[str, str]]):
    """File of words: text by key."""


class Words:
    """Words of one language.

    Args:
        language: Language of the words.
        texts: Text by key.
    """

    def __init__(self, language: Language, texts: dict[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **fields: object) -> str:
        """Return the text of a key, with its fields filled in."""
        text = self._texts[key]
        return text.format(**fields) if fields else text

    def name(self, value: str) -> str:
        """Return the name of a status, change or reason."""
        return self._texts.get(f"name_{value}", value.replace("_", " "))


@cache
def words(language: Language) -> Words:
    """Return the words of a language."""
    content = read_yaml(FOLDER / f"{language}.yaml", _Words, ConsoleConfigError)
    return Words(language, content.root)


def accepted_language(header: str) -> Language:
    """Return the language that a browser prefers among those of the console.

    Args:
        header: Value of `Accept-Language`.
    """
    best: tuple[float, Language] = (0.0, "en")
    for entry in header.split(","):
        match = _ACCEPTED.fullmatch(entry)
        if match is None:
            continue
        weight = float(match[2] or 1)
        for language in LANGUAGES:
            if match[1].lower() == language and weight > best[0]:
                best = (weight, language)
    return best[1]

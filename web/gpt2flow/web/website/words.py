"""Words of a website in each language."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, Literal

from pydantic import RootModel
from starlette.requests import Request

from gpt2flow.files.documents import read_yaml

Language = Literal["en", "zh"]
LANGUAGES: Final[Sequence[Language]] = ("en", "zh")
LANGUAGE_COOKIE: Final = "gpt2flow-language"
# One entry of Accept-Language, such as `zh-CN;q=0.9`.
_ACCEPTED = re.compile(r"\s*([A-Za-z]{1,8})[A-Za-z0-9-]*\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*")


class _Texts(RootModel[dict[str, str]]):
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

    def has(self, key: str) -> bool:
        """Return whether there is a text of a key."""
        return key in self._texts

    def name(self, value: str) -> str:
        """Return the name of a status, change or reason."""
        return self._texts.get(f"name_{value}", value.replace("_", " "))


@cache
def read_words(folder: Path, language: Language) -> Words:
    """Return the words of a language.

    Args:
        folder: Folder of the files of words, one a language.
        language: Language of the words.

    Raises:
        ValueError: A file of the program is missing or invalid.
    """
    return Words(language, read_yaml(folder / f"{language}.yaml", _Texts, ValueError).root)


def chosen_language(request: Request) -> Language:
    """Return the language of a request's cookie, else of its browser."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    accepted = accepted_language(request.headers.get("accept-language", ""))
    return next((each for each in LANGUAGES if each == chosen), accepted)


def accepted_language(header: str) -> Language:
    """Return the language that a browser prefers among those of a website.

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

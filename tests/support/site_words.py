"""Words of a website under test, and their keys in templates."""

import re
import string
from dataclasses import dataclass
from pathlib import Path

from gpt2flow.agent.wording import Language
from gpt2flow.web.website.words import read_words


def fields(text: str) -> set[str]:
    """Return the fields of a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@dataclass(frozen=True)
class SiteWords:
    """Words of one website.

    Attributes:
        package: Package of the website.
        folder: Folder of its words.
        composed: Pattern of the keys that templates and forms put together.
    """

    package: Path
    folder: Path
    composed: re.Pattern[str]

    def texts(self, language: Language) -> dict[str, str]:
        """Return all texts of a language, by key."""
        return read_words(self.folder, language)._texts

    def check_languages(self) -> None:
        """Check that both languages have the same keys and fields."""
        english, chinese = self.texts("en"), self.texts("zh")
        assert list(english) == list(chinese)
        assert [key for key in english if fields(english[key]) != fields(chinese[key])] == []

    def unused(self) -> set[str]:
        """Return the keys that no template names; all others are known."""
        used, known = self._used(), set(self.texts("en"))
        assert len(used) > 50
        assert used <= known
        return {key for key in known - used if not self.composed.fullmatch(key)}

    def _used(self) -> set[str]:
        """Return the keys that templates name as text."""
        found: set[str] = set()
        for path in (self.package / "templates").glob("*.html"):
            content = path.read_text(encoding="utf-8")
            found.update(re.findall(r"(?:\bw|label)\(['\"](\w+)['\"]\s*[,)]", content))
            for names in re.findall(r"for (?:key|address, key) in \[([^\]]+)\]", content):
                found.update(re.findall(r"\"(\w+)\"", names))
        return found

"""Words of the console: complete, used, and the same in both languages."""

import re
import string

import pytest
from tests.support.project import PROJECT

from gpt2flow.agent.shop import CaseStatus, OrderStatus
from gpt2flow.agent.wording import Language
from gpt2flow.console.pages.site import WORDS
from gpt2flow.web.website.words import accepted_language, read_words

CONSOLE = PROJECT / "console" / "gpt2flow" / "console"
# Keys that templates put together.
COMPOSED = re.compile(r"(name|reason|view|urgency|by|chart|series|constraint)_\w+")


def texts(language: Language) -> dict[str, str]:
    return read_words(WORDS, language)._texts


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def used_keys() -> set[str]:
    """Return the keys that templates name as text."""
    found: set[str] = set()
    for path in (CONSOLE / "templates").glob("*.html"):
        content = path.read_text(encoding="utf-8")
        found.update(re.findall(r"w\(['\"](\w+)['\"]\s*[,)]", content))
        for names in re.findall(r"for (?:key|address, key) in \[([^\]]+)\]", content):
            found.update(re.findall(r"\"(\w+)\"", names))
    return found


def test_both_languages_have_the_same_keys_and_fields() -> None:
    english, chinese = texts("en"), texts("zh")
    assert list(english) == list(chinese)
    assert [key for key in english if fields(english[key]) != fields(chinese[key])] == []


def test_every_key_of_a_template_has_words_and_every_word_is_used() -> None:
    used = used_keys()
    assert len(used) > 50
    assert used <= set(texts("en"))
    composed = {key for key in texts("en") if COMPOSED.fullmatch(key)}
    unused = set(texts("en")) - used - composed
    assert unused <= {"skip", "done_already", "done"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_status_has_a_name(language: Language) -> None:
    names = {f"name_{status.value}" for status in CaseStatus}
    assert names <= set(texts(language))
    assert f"name_{OrderStatus.DELIVERED.value}" in texts(language)


def test_a_word_that_nobody_knows_is_shown_as_it_is() -> None:
    assert read_words(WORDS, "en").name("not_known_yet") == "not known yet"


@pytest.mark.parametrize(
    "header, language",
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-Hans-CN", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr, zh;q=0.3, en;q=0.2", "zh"),
        ("zh;q=0", "en"),
        (";;;,q=,*", "en"),
    ],
)
def test_a_browsers_language_is_understood(header: str, language: Language) -> None:
    assert accepted_language(header) == language

"""Words of the console: complete, used, and the same in both languages."""

import re

import pytest
from tests.support.project import PROJECT
from tests.support.site_words import SiteWords

from gpt2flow.agent.shop import CaseStatus, OrderStatus
from gpt2flow.agent.wording import Language
from gpt2flow.console.pages.site import WORDS
from gpt2flow.web.website.words import accepted_language, read_words

CONSOLE = SiteWords(
    PROJECT / "console" / "gpt2flow" / "console",
    WORDS,
    re.compile(r"(name|reason|view|urgency|by|chart|series|constraint)_\w+"),
)


def test_both_languages_have_the_same_keys_and_fields() -> None:
    CONSOLE.check_languages()


def test_every_key_of_a_template_has_words_and_every_word_is_used() -> None:
    assert CONSOLE.unused() <= {"skip", "done_already", "done"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_status_has_a_name(language: Language) -> None:
    names = {f"name_{status.value}" for status in CaseStatus}
    assert names <= set(CONSOLE.texts(language))
    assert f"name_{OrderStatus.DELIVERED.value}" in CONSOLE.texts(language)


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

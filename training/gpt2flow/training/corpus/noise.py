"""Noise of typed messages: typos, dropped punctuation, letter case, short forms."""

import random
import re
from dataclasses import dataclass

from gpt2flow.training.corpus.sources.utterances import Language


@dataclass(slots=True)
class Segment:
    """Piece of a message.

    Attributes:
        text: Text, changed in place by `add_noise`.
        slot: Slot whose value the text is. None for template text, enum values included.
        exact: Exclude the text from typos, as for a number or an e-mail address, so that its value
            stays readable. Its case may still change.
    """

    text: str
    slot: str | None = None
    exact: bool = False


_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    letter: "".join(row[max(0, i - 1) : i] + row[i + 1 : i + 2])
    for row in _KEYBOARD
    for i, letter in enumerate(row)
}
# Excludes "2" for "to", which would be read as a quantity.
_SHORT_FORMS = {
    "you": "u",
    "your": "ur",
    "are": "r",
    "please": "pls",
    "thanks": "thx",
    "because": "cuz",
    "want to": "wanna",
    "going to": "gonna",
    "got to": "gotta",
    "give me": "gimme",
    "order": "ordr",
    "and": "n",
    "people": "ppl",
    "tomorrow": "tmrw",
    "account": "acct",
    "number": "num",
    "have not": "havent",
    "with": "w/",
    "message": "msg",
    "okay": "ok",
    "though": "tho",
    "through": "thru",
    "be": "b",
    "see": "c",
    "why": "y",
}
_SHORTENED = re.compile(rf"\b({'|'.join(_SHORT_FORMS)})\b")
# Homophones that a pinyin input method offers together.
_HOMOPHONE_GROUPS = (
    "在再 的得地 那哪 他她它 做作 吗嘛 帐账 以已 和合 了啦 您你 是事 到道 要药 退腿 单但 货或 "
    "有又 没每 想像 给各 下夏 收手 件见 快块 查茶 定订 改该 号好 电店 发法 新心 寄记 "
    "坏怀 破迫 错挫 问文 址之 加家 购够 物务 款宽 码马 录路 注住 册侧"
)
_HOMOPHONES = {
    a: [b for b in group if b != a] for group in _HOMOPHONE_GROUPS.split() for a in group
}
# A typo makes another word of a shorter message.
_MIN_LETTERS = 5
_SENTENCE_START = re.compile(r"([.!?] +)([a-z])")
_PRONOUN = re.compile(r"\bi\b")
_END_MARKS: dict[Language, tuple[str, ...]] = {
    "en": ("", "", "", ".", "!", "..", "!!", "..."),
    "zh": ("", "", "。", "!", "~", "…"),
}
_NUMBERED = re.compile(r"(?<![\d.#])([1-4])[.、](?=\D|$)")
_FINAL_MARKS = re.compile(r"[.!?。~]+$")


def add_noise(segments: list[Segment], language: Language, rng: random.Random) -> None:
    """Add random noise to the segments of a message, in place."""
    template_segments = [segment for segment in segments if segment.slot is None]
    if rng.random() < 0.4:
        for segment in template_segments:
            segment.text = _NUMBERED.sub(r"\1)", segment.text)
    if language == "en":
        _add_english_noise(template_segments, rng)
    else:
        _add_chinese_noise(template_segments, rng)
    _vary_final_mark(segments[-1], language, rng)
    if rng.random() < 0.33:
        _add_typos(segments, language, rng)
    if language == "en":
        _change_case(segments, rng)


def _add_english_noise(segments: list[Segment], rng: random.Random) -> None:
    """Vary short forms, apostrophes and commas."""
    if rng.random() < 0.15:
        share = rng.choice((0.3, 0.9))
        for segment in segments:
            segment.text = _SHORTENED.sub(
                lambda m: _SHORT_FORMS[m.group()] if rng.random() < share else m.group(),
                segment.text,
            )
    apostrophe = rng.choices(("'", "", "’", "´"), (70, 22, 7, 1))[0]
    commas = rng.choices((",", "", " ,"), (80, 18, 2))[0]
    for segment in segments:
        segment.text = segment.text.replace("'", apostrophe).replace(",", commas)


def _add_chinese_noise(segments: list[Segment], rng: random.Random) -> None:
    """Vary commas."""
    comma = rng.choices((",", " ", "", "。", "~"), (70, 14, 9, 4, 3))[0]
    for segment in segments:
        segment.text = segment.text.replace(",", comma)


def _vary_final_mark(last: Segment, language: Language, rng: random.Random) -> None:
    """Drop or replace the final punctuation of the message, half the time."""
    if last.slot is not None or rng.random() < 0.5:
        return
    stripped = _FINAL_MARKS.sub("", last.text)
    marks = _END_MARKS[language]
    if "?" in last.text[len(stripped) :]:
        marks = ("", "?", "??")
    last.text = stripped + rng.choice(marks)


def _add_typos(segments: list[Segment], language: Language, rng: random.Random) -> None:
    letters = sum(len(segment.text) for segment in segments if not segment.exact)
    if letters < _MIN_LETTERS:
        return
    for _ in range(1 + int(rng.random() * letters / 25)):
        segment = rng.choice(segments)
        if segment.exact or not segment.text:
            continue
        at = int(rng.random() * len(segment.text))
        mistype = _mistype_english if language == "en" else _mistype_chinese
        segment.text = mistype(segment.text, at, rng)


def _mistype_english(text: str, at: int, rng: random.Random) -> str:
    """Mistype the letter at an index, or drop the space there."""
    before, typed, after = text[:at], text[at], text[at + 1 :]
    kind = rng.random()
    if typed == " " and before and after:
        typed = ""
    elif not typed.isalpha():
        return text
    elif kind < 0.3:  # neighbouring key
        typed = rng.choice(_NEIGHBOURS.get(typed.lower(), typed))
    elif kind < 0.5:  # doubled
        typed *= 2
    elif kind < 0.78:  # omitted
        typed = ""
    elif after[:1].isalpha():  # transposed
        typed, after = after[0] + typed, after[1:]
    return before + typed + after


def _mistype_chinese(text: str, at: int, rng: random.Random) -> str:
    """Replace the character by a homophone, omit it or double it."""
    character = text[at]
    if character in _HOMOPHONES:
        return text[:at] + rng.choice(_HOMOPHONES[character]) + text[at + 1 :]
    if rng.random() < 0.25 and "一" <= character <= "鿿":
        return text[:at] + rng.choice(("", character * 2)) + text[at + 1 :]
    return text


def _change_case(segments: list[Segment], rng: random.Random) -> None:
    kind = rng.random()
    if kind < 0.38:
        for segment in segments:
            segment.text = segment.text.lower()
    elif kind < 0.42:
        for segment in segments:
            segment.text = segment.text.upper()
    elif kind < 0.8:
        _capitalize(segments)


def _capitalize(segments: list[Segment]) -> None:
    """Capitalize sentences and the pronoun "I", outside slot values."""
    starts_sentence = True
    for segment in segments:
        if segment.slot is None:
            text = _PRONOUN.sub("I", segment.text)
            text = _SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), text)
            if starts_sentence:
                text = text[:1].upper() + text[1:]
            segment.text = text
        if segment.text.strip():
            starts_sentence = segment.text.rstrip()[-1] in ".!?"

"""Writes as people type: typos, missing punctuation, any case, text-speak."""

import random
import re
from dataclasses import dataclass

from gpt2flow.training.corpus.utterances import Language


@dataclass(slots=True)
class Segment:
    """A piece of a message.

    `exact` text must stay readable as the value it gives: no typo in a number
    or an e-mail address. Its case may change.
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
# Not "2" for "to": it would be a quantity.
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
# Characters that an input method offers for the same sound.
_SOUNDALIKES = (
    "在再 的得地 那哪 他她它 做作 吗嘛 帐账 以已 和合 了啦 您你 是事 到道 要药 退腿 单但 货或 "
    "有又 没每 想像 给各 下夏 收手 件见 快块 查茶 定订 改该 号好 电店 发法 新心 寄记 "
    "坏怀 破迫 错挫 问文 址之 加家 购够 物务 款宽 码马 录路 注住 册侧"
)
_SOUNDALIKE = {a: [b for b in group if b != a] for group in _SOUNDALIKES.split() for a in group}
_SENTENCE_START = re.compile(r"([.!?] +)([a-z])")
_PRONOUN = re.compile(r"\bi\b")
_END_MARKS: dict[Language, tuple[str, ...]] = {
    "en": ("", "", "", ".", "!", "..", "!!", "..."),
    "zh": ("", "", "。", "!", "~", "…"),
}
_FINAL_MARKS = re.compile(r"[.!?。~]+$")


def roughen(segments: list[Segment], language: Language, rng: random.Random) -> None:
    """Change the texts of a message's segments in place."""
    free = [segment for segment in segments if segment.slot is None]
    if language == "en":
        _roughen_english(free, rng)
    else:
        _roughen_chinese(free, rng)
    _mark_end(segments[-1], language, rng)
    if rng.random() < 0.4:
        _mistype(segments, language, rng)
    if language == "en":
        _change_case(segments, rng)


def _roughen_english(free: list[Segment], rng: random.Random) -> None:
    if rng.random() < 0.15:
        share = rng.choice((0.3, 0.9))
        for segment in free:
            segment.text = _SHORTENED.sub(
                lambda m: _SHORT_FORMS[m.group()] if rng.random() < share else m.group(),
                segment.text,
            )
    apostrophe = rng.choices(("'", "", "’", "´"), (70, 22, 7, 1))[0]
    commas = rng.choices((",", "", " ,"), (80, 18, 2))[0]
    for segment in free:
        segment.text = segment.text.replace("'", apostrophe).replace(",", commas)


def _roughen_chinese(free: list[Segment], rng: random.Random) -> None:
    comma = rng.choices((",", " ", "", "。", "~"), (70, 14, 9, 4, 3))[0]
    for segment in free:
        segment.text = segment.text.replace(",", comma)


def _mark_end(last: Segment, language: Language, rng: random.Random) -> None:
    """Drop or changes the mark that ends the message."""
    if last.slot is not None or rng.random() < 0.5:
        return
    stripped = _FINAL_MARKS.sub("", last.text)
    marks = _END_MARKS[language]
    if "?" in last.text[len(stripped) :]:
        marks = ("", "?", "??")
    last.text = stripped + rng.choice(marks)


def _mistype(segments: list[Segment], language: Language, rng: random.Random) -> None:
    letters = sum(len(segment.text) for segment in segments if not segment.exact)
    for _ in range(1 + int(rng.random() * letters / 25)):
        segment = rng.choice(segments)
        if segment.exact or not segment.text:
            continue
        at = int(rng.random() * len(segment.text))
        change = _typo if language == "en" else _chinese_typo
        segment.text = change(segment.text, at, rng)


def _typo(text: str, at: int, rng: random.Random) -> str:
    """Mistype one letter or swallows a blank; other characters stay."""
    before, typed, after = text[:at], text[at], text[at + 1 :]
    kind = rng.random()
    if typed == " " and before and after:
        typed = ""
    elif not typed.isalpha():
        return text
    elif kind < 0.3:  # the key beside it
        typed = rng.choice(_NEIGHBOURS.get(typed.lower(), typed))
    elif kind < 0.5:  # twice
        typed *= 2
    elif kind < 0.78:  # not at all
        typed = ""
    elif after[:1].isalpha():  # too late
        typed, after = after[0] + typed, after[1:]
    return before + typed + after


def _chinese_typo(text: str, at: int, rng: random.Random) -> str:
    character = text[at]
    if character in _SOUNDALIKE:
        return text[:at] + rng.choice(_SOUNDALIKE[character]) + text[at + 1 :]
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
        _capitalise(segments)


def _capitalise(segments: list[Segment]) -> None:
    """Start sentences with a capital, as the customers who care do."""
    starts = True
    for segment in segments:
        if segment.slot is None:
            text = _PRONOUN.sub("I", segment.text)
            text = _SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), text)
            if starts:
                text = text[:1].upper() + text[1:]
            segment.text = text
        if segment.text.strip():
            starts = segment.text.rstrip()[-1] in ".!?"

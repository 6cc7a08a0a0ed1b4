"""Parser of call times such as "tomorrow at 3pm" and 周五下午两点.

This module parses times of day and Chinese dates itself, because dateparser ignores
"at 5" and supports few Chinese times. dateparser parses all other dates.
"""

import functools
import re
from datetime import date, datetime, time, timedelta

from gpt2flow.agent.flows.grammar import split_chunks
from gpt2flow.agent.flows.numbers import (
    CHINESE_DIGITS,
    CHINESE_TENS,
    CLOCK_WORDS,
    parse_chinese_number,
)

_CHINESE_NUMBER = re.compile(rf"(?<!周|期|拜)(?:{CHINESE_TENS}|[{CHINESE_DIGITS}两])")
_ENGLISH_NUMBER = re.compile(rf"\b({'|'.join(CLOCK_WORDS)})\b")

# Default hour of each part of the day.
_HOURS = {
    "morning": 10,
    "noon": 12,
    "midday": 12,
    "lunchtime": 12,
    "afternoon": 15,
    "evening": 18,
    "tonight": 19,
    "凌晨": 2,
    "早上": 10,
    "早晨": 10,
    "上午": 10,
    "中午": 12,
    "下午": 15,
    "傍晚": 18,
    "晚上": 19,
    "早": 10,
    "晚": 19,
}
_PART_OF_DAY = re.compile(
    rf"(?:\b(?:in the|this|at)\s+)?({'|'.join(sorted(_HOURS, key=len, reverse=True))})"
)
# Longest time of a message, in words and the spaces between them.
_MAX_CHUNKS = 16
# Parts of a message that are parsed; dateparser takes a millisecond for each.
_MAX_TRIED = 150
_AROUND = " .,;:!?，。；：！？、"
# Calls start at seven in the morning, so an hour below seven is in the afternoon.
_FIRST_MORNING_HOUR = 7
_NOON = 12

_CHINESE_CLOCK = (
    r"(?P<hour>\d{1,2})[点时](?:(?P<past>半)|(?P<quarters>[13])刻|(?P<minute>\d{1,2})分?)?[钟整]?"
    r"(?:[以之]?[前后]|左右)?"
)
_CLOCKS = [
    re.compile(pattern)
    for pattern in (
        r"(?P<past>half|quarter) past (?P<hour>\d{1,2})\s*(?P<half>[ap])?(?:\.?m\b\.?)?",
        r"(?P<to>quarter) to (?P<hour>\d{1,2})\s*(?P<half>[ap])?(?:\.?m\b\.?)?",
        r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?!\d)\s*(?:(?P<half>[ap])\.?m\b\.?)?",
        r"(?P<hour>\d{1,2})\s*(?P<half>[ap])\.?m\b\.?",
        r"(?P<hour>\d{1,2})\s*o'?\s?clock",
        _CHINESE_CLOCK,
        r"\b(?:at|around|about|by|after|before|from)\s+(?P<hour>\d{1,2})(?![\w/.-])",
    )
]
_OFFSET = re.compile(
    r"\bin (?:about )?(?P<en>half an|an?|\d+) (?P<unit>hour|minute)s?\b"
    r"|(?P<zh>\d+|半)个?(?P<unit_zh>小时|钟头|分钟)(?:之|以)?后"
)
_FILLER = re.compile(
    r"\b(?:at|on|around|about|by|after|before|from|please|sometime|any ?time)\b|[,.;的吧请]"
)
_TOMORROW = re.compile(r"\b(?:tmr?w?|tom+or+ow|2moro)\b")
_DAY_AFTER = re.compile(r"\b(?:the )?day after tomorrow\b")

_DAYS_AHEAD = {"今": 0, "明": 1, "后": 2, "大后": 3}
_CHINESE_DAY = re.compile(r"^(大后|今|明|后)[天日]?$")
_WEEKDAYS = {c: i for i, c in enumerate("一二三四五六日")} | {"天": 6}
_CHINESE_WEEKDAY = re.compile(r"^(下下|下|这|本)?个?(?:周|星期|礼拜)([一二三四五六日天])$")
_CHINESE_DATE = re.compile(r"^(?:(\d{1,2})月)?(\d{1,2})[日号]$")


def parse_time(phrase: str, now: datetime) -> datetime | None:
    """Parse a date and time in English or Chinese.

    Args:
        phrase: Time as the customer wrote it.
        now: Reference time for relative phrases; the result has its time zone.

    Returns:
        The time, or None if the day or the hour is unclear. Without a day, an hour
        that has already passed today is tomorrow's.
    """
    text = _TOMORROW.sub("tomorrow", _replace_number_words(phrase.casefold()))
    text = _DAY_AFTER.sub("in 2 days", text)
    if (offset := _parse_offset(text)) is not None:
        return now + offset
    clock, rest = _split_clock(text)
    if clock is None:
        return None
    rest = re.sub(r"\s+", " ", _FILLER.sub(" ", rest)).strip()
    day = _parse_day(rest, now.date()) if rest else now.date()
    if day is None:
        return None
    moment = datetime.combine(day, clock, now.tzinfo)
    return moment + timedelta(days=1) if not rest and moment <= now else moment


@functools.lru_cache(maxsize=64)
def find_time(message: str, now: datetime) -> str | None:
    """Return the longest date and time in a message, None without one.

    A part of the day alone, as in "good morning", is none.

    Args:
        message: Message of a customer.
        now: Reference time, as for `parse_time`.
    """
    chunks, tried = split_chunks(message), 0
    for length in range(min(_MAX_CHUNKS, len(chunks)), 0, -1):
        for at in range(len(chunks) - length + 1):
            part = "".join(chunks[at : at + length])
            if part != part.strip(_AROUND) or not _is_explicit(part):
                continue
            tried += 1
            if tried > _MAX_TRIED:
                return None
            if parse_time(part, now) is not None:
                return part
    return None


def _is_explicit(part: str) -> bool:
    """Return whether a text has a clock time and nothing else."""
    text = _replace_number_words(part.casefold())
    if _OFFSET.search(text):
        return _OFFSET.fullmatch(text) is not None
    clock, rest = _split_clock(text)
    has_day = bool(_FILLER.sub("", rest).strip())
    return clock is not None and (has_day or any(each.search(text) for each in _CLOCKS[:-1]))


def _replace_number_words(text: str) -> str:
    text = _CHINESE_NUMBER.sub(lambda m: str(parse_chinese_number(m.group())), text)
    return _ENGLISH_NUMBER.sub(lambda m: str(CLOCK_WORDS[m.group()]), text)


def _parse_offset(text: str) -> timedelta | None:
    """Return the offset of a phrase such as "in two hours"."""
    if not (found := _OFFSET.search(text)):
        return None
    count, unit = found["en"] or found["zh"], found["unit"] or found["unit_zh"]
    length = timedelta(minutes=1) if unit in ("minute", "分钟") else timedelta(hours=1)
    if count in ("half an", "半"):
        return length / 2
    return length * (int(count) if count.isdecimal() else 1)


def _split_clock(text: str) -> tuple[time | None, str]:
    """Return the time of day and the rest of the text."""
    part = _PART_OF_DAY.search(text)
    for pattern in _CLOCKS:
        if found := pattern.search(text):
            rest = text[: found.start()] + " " + text[found.end() :]
            return _parse_clock(found.groupdict(), part and part[1]), _PART_OF_DAY.sub(" ", rest)
    if part is None:
        return None, text
    return time(_HOURS[part[1]]), _PART_OF_DAY.sub(" ", text)


def _parse_clock(groups: dict[str, str | None], part: str | None) -> time | None:
    hour, minute = int(groups["hour"] or 0), int(groups.get("minute") or 0)
    if groups.get("past"):
        minute = 15 if groups["past"] == "quarter" else 30
    if groups.get("quarters"):
        minute = 15 * int(groups["quarters"] or 0)
    if hour <= _NOON:
        hour = hour % _NOON + (_NOON if _is_afternoon(hour, groups.get("half"), part) else 0)
    if groups.get("to"):
        hour, minute = hour - 1, 45
    return time(hour, minute) if 0 <= hour < 24 and minute < 60 else None


def _is_afternoon(hour: int, half: str | None, part: str | None) -> bool:
    if half:
        return half == "p"
    if part and _HOURS[part] != _NOON:
        return _HOURS[part] > _NOON
    return hour < _FIRST_MORNING_HOUR or hour == _NOON


def _parse_day(text: str, today: date) -> date | None:
    if found := _CHINESE_DAY.match(text):
        return today + timedelta(days=_DAYS_AHEAD[found[1]])
    if found := _CHINESE_WEEKDAY.match(text):
        return _resolve_weekday(_WEEKDAYS[found[2]], found[1] or "", today)
    if found := _CHINESE_DATE.match(text):
        return _find_next_date(found[1] and int(found[1]), int(found[2]), today)
    return _parse_day_with_dateparser(text, today)


def _resolve_weekday(weekday: int, week: str, today: date) -> date:
    """Return the date of a Chinese weekday.

    周五 is the next Friday, today included; each 下 adds a week: 下周五 is next week's.
    """
    monday = today - timedelta(days=today.weekday())
    weeks = week.count("下")
    day = monday + timedelta(days=weekday, weeks=weeks)
    return day + timedelta(weeks=1) if not week and day < today else day


def _find_next_date(month: int | str | None, day: int, today: date) -> date | None:
    """Return the next date with a given day and optional month."""
    for ahead in range(366):
        candidate = today + timedelta(days=ahead)
        if candidate.day == day and (not month or candidate.month == month):
            return candidate
    return None


def _parse_day_with_dateparser(text: str, today: date) -> date | None:
    # The import takes 0.3 s, and few messages need it.
    import dateparser  # noqa: PLC0415

    found = dateparser.parse(
        text,
        languages=["en", "zh"],
        settings={
            "RELATIVE_BASE": datetime.combine(today, time(0)),
            "PREFER_DATES_FROM": "future",
            "DATE_ORDER": "DMY",
            "RETURN_AS_TIMEZONE_AWARE": False,
        },
    )
    return found.date() if found else None

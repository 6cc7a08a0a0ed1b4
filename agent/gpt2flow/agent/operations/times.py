"""Reads when a customer wants to be called: "tomorrow at 3pm", 周五下午两点.

The time of day and Chinese days are read here, since dateparser ignores "at 5"
and knows few Chinese times. All other days are dateparser's.
"""

import re
from datetime import date, datetime, time, timedelta

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2}
_CHINESE_NUMBER = re.compile(
    r"(?<!周|期|拜)(?:[一二三四五六七八九]?十[一二三四五六七八九]?|[零一二三四五六七八九两])"
)
_NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve"
_ENGLISH_NUMBERS = {word: str(i) for i, word in enumerate(_NUMBER_WORDS.split(), start=1)}
_ENGLISH_NUMBER = re.compile(rf"\b({'|'.join(_ENGLISH_NUMBERS)})\b")

# The hour that is meant where only a part of the day is said.
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
# Nobody is called before seven in the morning, so a bare three is in the afternoon.
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
_FROM_NOW = re.compile(
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
    """Read an instant.

    Args:
        phrase: as the customer wrote it, in English or Chinese.
        now: what "tomorrow" is counted from; its time zone is the result's.

    Returns:
        The instant, or None where day or hour cannot be told. An hour that has
        passed today means tomorrow's if no day was said.
    """
    text = _TOMORROW.sub("tomorrow", _in_digits(phrase.casefold()))
    text = _DAY_AFTER.sub("in 2 days", text)
    if (ahead := _from_now(text)) is not None:
        return now + ahead
    clock, rest = _take_clock(text)
    if clock is None:
        return None
    rest = re.sub(r"\s+", " ", _FILLER.sub(" ", rest)).strip()
    day = _day(rest, now.date()) if rest else now.date()
    if day is None:
        return None
    moment = datetime.combine(day, clock, now.tzinfo)
    return moment + timedelta(days=1) if not rest and moment <= now else moment


def _in_digits(text: str) -> str:
    text = _CHINESE_NUMBER.sub(lambda m: str(_chinese_number(m.group())), text)
    return _ENGLISH_NUMBER.sub(lambda m: _ENGLISH_NUMBERS[m.group()], text)


def _chinese_number(text: str) -> int:
    if "十" not in text:
        return _DIGITS[text]
    tens, ones = text.split("十")
    return (_DIGITS[tens] if tens else 1) * 10 + (_DIGITS[ones] if ones else 0)


def _from_now(text: str) -> timedelta | None:
    """A span from now, "in two hours"."""
    if not (found := _FROM_NOW.search(text)):
        return None
    count, unit = found["en"] or found["zh"], found["unit"] or found["unit_zh"]
    length = timedelta(minutes=1) if unit in ("minute", "分钟") else timedelta(hours=1)
    if count in ("half an", "半"):
        return length / 2
    return length * (int(count) if count.isdecimal() else 1)


def _take_clock(text: str) -> tuple[time | None, str]:
    """Read the time of day, and returns what else the text says."""
    part = _PART_OF_DAY.search(text)
    for pattern in _CLOCKS:
        if found := pattern.search(text):
            rest = text[: found.start()] + " " + text[found.end() :]
            return _clock(found.groupdict(), part and part[1]), _PART_OF_DAY.sub(" ", rest)
    if part is None:
        return None, text
    return time(_HOURS[part[1]]), _PART_OF_DAY.sub(" ", text)


def _clock(said: dict[str, str | None], part: str | None) -> time | None:
    hour, minute = int(said["hour"] or 0), int(said.get("minute") or 0)
    if said.get("past"):
        minute = 15 if said["past"] == "quarter" else 30
    if said.get("quarters"):
        minute = 15 * int(said["quarters"] or 0)
    if hour <= _NOON:
        hour = hour % _NOON + (_NOON if _is_after_noon(hour, said.get("half"), part) else 0)
    if said.get("to"):
        hour, minute = hour - 1, 45
    return time(hour, minute) if 0 <= hour < 24 and minute < 60 else None


def _is_after_noon(hour: int, half: str | None, part: str | None) -> bool:
    if half:
        return half == "p"
    if part and _HOURS[part] != _NOON:
        return _HOURS[part] > _NOON
    return hour < _FIRST_MORNING_HOUR or hour == _NOON


def _day(text: str, today: date) -> date | None:
    if found := _CHINESE_DAY.match(text):
        return today + timedelta(days=_DAYS_AHEAD[found[1]])
    if found := _CHINESE_WEEKDAY.match(text):
        return _weekday(_WEEKDAYS[found[2]], found[1] or "", today)
    if found := _CHINESE_DATE.match(text):
        return _next_date(found[1] and int(found[1]), int(found[2]), today)
    return _parse_day(text, today)


def _weekday(weekday: int, week: str, today: date) -> date:
    """周五 is the next Friday to come, 下周五 the one of next week."""
    monday = today - timedelta(days=today.weekday())
    weeks = week.count("下")
    day = monday + timedelta(days=weekday, weeks=weeks)
    return day + timedelta(weeks=1) if not week and day < today else day


def _next_date(month: int | str | None, day: int, today: date) -> date | None:
    """The next day with that number, in that month if one is given."""
    for ahead in range(366):
        candidate = today + timedelta(days=ahead)
        if candidate.day == day and (not month or candidate.month == month):
            return candidate
    return None


def _parse_day(text: str, today: date) -> date | None:
    # Loading it takes a third of a second, and few messages need it.
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

"""Parsing of call times in both languages."""

from datetime import UTC, datetime

import pytest

from gpt2flow.agent.operations.times import find_time, parse_time

NOW = datetime(2026, 3, 4, 10, 30, tzinfo=UTC)  # a Wednesday

TIMES = {
    # English
    "tomorrow at 3pm": "03-05 15:00",
    "3pm tomorrow please": "03-05 15:00",
    "tmrw 3 p.m.": "03-05 15:00",
    "tomorrow at three": "03-05 15:00",
    "tomorrow, 11.30": "03-05 11:30",
    "tomorrow morning": "03-05 10:00",
    "tomorrow morning at 9": "03-05 09:00",
    "the day after tomorrow at noon": "03-06 12:00",
    "friday at 2pm": "03-06 14:00",
    "on friday 14:00": "03-06 14:00",
    "friday afternoon": "03-06 15:00",
    "any time on monday after 2": "03-09 14:00",
    "half past three tomorrow": "03-05 15:30",
    "quarter to 4 on thursday": "03-05 15:45",
    "3 o'clock tomorrow": "03-05 15:00",
    "this afternoon at 3": "03-04 15:00",
    "today at 5": "03-04 17:00",
    "4pm": "03-04 16:00",
    "9am": "03-05 09:00",
    "12am tomorrow": "03-05 00:00",
    "in two hours": "03-04 12:30",
    "in half an hour": "03-04 11:00",
    "in 3 days at 4pm": "03-07 16:00",
    "march 12 at 10am": "03-12 10:00",
    "12 march 10:00": "03-12 10:00",
    "the 15th at 3pm": "03-15 15:00",
    "10/3 at 9am": "03-10 09:00",
    "2026-03-10 15:00": "03-10 15:00",
    # Chinese
    "明天下午3点": "03-05 15:00",
    "明天下午三点半": "03-05 15:30",
    "明天15:00": "03-05 15:00",
    "明早9点": "03-05 09:00",
    "明天中午": "03-05 12:00",
    "后天上午十点": "03-06 10:00",
    "大后天中午12点": "03-07 12:00",
    "今天下午4点": "03-04 16:00",
    "周五下午两点": "03-06 14:00",
    "周五 15:30": "03-06 15:30",
    "礼拜五下午2点": "03-06 14:00",
    "星期三14:30": "03-04 14:30",
    "周二上午十点": "03-10 10:00",
    "下周一上午9点": "03-09 09:00",
    "下周二十一点": "03-10 11:00",
    "周四上午十一点左右": "03-05 11:00",
    "3月12日上午10点": "03-12 10:00",
    "3月12号下午两点": "03-12 14:00",
    "12号下午四点一刻": "03-12 16:15",
    "2026年3月10日下午3点": "03-10 15:00",
    "两小时后": "03-04 12:30",
    "两个小时以后": "03-04 12:30",
    "半小时后": "03-04 11:00",
    "30分钟后": "03-04 11:00",
    "下午五点": "03-04 17:00",
}


@pytest.mark.parametrize("phrase", TIMES)
def test_phrase_is_parsed(phrase: str) -> None:
    expected = datetime.fromisoformat(f"2026-{TIMES[phrase]}").replace(tzinfo=UTC)
    assert parse_time(phrase, NOW) == expected


@pytest.mark.parametrize(
    "message, phrase",
    [
        ("I'd like a call from one of your people on Friday at 2pm.", "on Friday at 2pm"),
        ("今晚六点让你们的人打给我,少废话", "今晚六点"),
        ("call, tomorrow at half past 10, if you can", "tomorrow at half past 10"),
        ("I'm in an hour-long meeting, call me tomorrow at 3pm", "tomorrow at 3pm"),
        ("call me in two hours, not before", "in two hours"),
        ("明天早上打给我", "明天早上"),
        ("call me some day", None),
        ("good morning, call me as soon as you can", None),
        ("晚上好,请尽快回电", None),
        ("as soon as possible about 2 orders", None),
        ("", None),
    ],
)
def test_the_time_of_a_message_is_found(message: str, phrase: str | None) -> None:
    assert find_time(message, NOW) == phrase


@pytest.mark.parametrize("text", ["早a" * 500, "1点" * 500, "no 3pm is 4 of 5 at 9 " * 45])
def test_the_search_of_a_long_message_is_given_up(text: str) -> None:
    """Without a bound, it takes up to 20 s."""
    assert find_time(text, NOW) is None


@pytest.mark.parametrize(
    "phrase",
    [
        "tomorrow",
        "next week",
        "明天",
        "周五",
        "asdf",
        "at 25",
        "tomorrow at 99",
        "soon",
        "",
        "32号3点",
    ],
)
def test_phrase_without_day_and_hour_is_unclear(phrase: str) -> None:
    assert parse_time(phrase, NOW) is None

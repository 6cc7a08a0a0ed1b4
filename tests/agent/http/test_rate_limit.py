"""Rate limit of a session."""

import pytest

from gpt2flow.agent.http.rate_limit import RateLimit
from gpt2flow.agent.http.requests import RequestError


class Seconds:
    """Clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(limit: RateLimit, session: str) -> int:
    """Return the seconds of a refusal."""
    with pytest.raises(RequestError) as caught:
        limit.admit(session)
    assert (caught.value.status, caught.value.field) == (429, "session")
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_a_session_has_its_requests_in_any_minute() -> None:
    clock = Seconds()
    limit = RateLimit(2, clock)
    limit.admit("a")
    clock.now += 50
    limit.admit("a")
    assert refusal(limit, "a") == 10
    limit.admit("b")
    clock.now += 9.5
    assert refusal(limit, "a") == 1
    clock.now += 0.5
    limit.admit("a")
    assert refusal(limit, "a") == 50


def test_a_refused_request_does_not_count() -> None:
    clock = Seconds()
    limit = RateLimit(1, clock)
    limit.admit("a")
    for _ in range(10):
        clock.now += 5.9
        refusal(limit, "a")
    clock.now += 1
    limit.admit("a")


def test_the_refusal_states_the_limit_and_the_remedy() -> None:
    limit = RateLimit(3, Seconds())
    for _ in range(3):
        limit.admit("a")
    with pytest.raises(RequestError, match="3 requests in the last minute, limit 3; retry in 60 s"):
        limit.admit("a")


def test_silent_sessions_are_not_held() -> None:
    clock = Seconds()
    limit = RateLimit(5, clock)
    for number in range(20_000):
        clock.now += 0.1
        limit.admit(f"session {number}")
    # 600 sessions had a request in the last minute.
    assert len(limit) <= 2 * 1001

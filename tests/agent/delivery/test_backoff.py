"""Times between the attempts at a message."""

import random
from datetime import timedelta

import pytest

from gpt2flow.agent.delivery.backoff import Backoff
from gpt2flow.agent.errors import InputError

DAY = 24 * 3600.0


def seconds(backoff: Backoff, failed: int, retry_after: float = 0.0) -> float:
    wait = backoff.wait(failed, retry_after)
    assert wait is not None
    return wait.total_seconds()


@pytest.mark.parametrize(
    "failed, expected",
    [(1, 5), (2, 15), (3, 45), (5, 405), (8, 10_935), (9, 21_600), (11, 21_600)],
)
def test_waits_grow_threefold_up_to_six_hours_within_a_fifth(failed: int, expected: float) -> None:
    waits = [seconds(Backoff(source=random.Random(seed)), failed) for seed in range(200)]
    assert 0.8 * expected <= min(waits) < 0.85 * expected
    assert 1.15 * expected < max(waits) <= 1.2 * expected


def test_twelve_attempts_take_about_a_day() -> None:
    backoff = Backoff(source=random.Random(1))
    total = sum(seconds(backoff, failed) for failed in range(1, 12))
    assert 0.75 * DAY < total < 1.13 * DAY
    assert backoff.wait(12) is None


def test_there_is_no_attempt_after_the_last() -> None:
    assert Backoff(1).wait(1) is None
    assert Backoff(2).wait(1) is not None
    assert Backoff(2).wait(2) is None


def test_a_receiver_can_ask_for_a_longer_wait_of_a_day_at_most() -> None:
    backoff = Backoff()
    assert backoff.wait(1, 600.0) == timedelta(seconds=600)
    assert backoff.wait(1, float("inf")) == timedelta(days=1)
    assert seconds(backoff, 4, 1.0) >= 0.8 * 135


@pytest.mark.parametrize("attempts", [0, -1, 101])
def test_a_number_of_attempts_out_of_range_is_refused(attempts: int) -> None:
    with pytest.raises(InputError, match=f"attempts is {attempts}, must be from 1 to 100"):
        Backoff(attempts)

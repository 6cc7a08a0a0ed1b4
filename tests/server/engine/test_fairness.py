"""Fairness among callers: round-robin admission, and shares of a full queue."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.counting_engine import OpenEngine
from tests.support.schedule_driver import ScheduleDriver

from gpt2flow.server.engine.request_queue import AGING_SECONDS
from gpt2flow.server.engine.sequence import Request
from gpt2flow.server.errors import OverloadedError
from gpt2flow.server.servicer.identity import peer_name


def admissions(driver: ScheduleDriver, count: int) -> list[Request]:
    """End the running request `count` times; return those admitted instead."""
    admitted = []
    for _ in range(count):
        if driver.running:
            driver.scheduler.remove(driver.running[0])
        admitted += driver.admit()
    return admitted


def test_a_single_request_waits_for_one_request_of_each_other_caller() -> None:
    driver = ScheduleDriver(slots=1)
    many = [driver.add(1, caller="many") for _ in range(200)]
    assert admissions(driver, 50) == many[:50]
    other, third = driver.add(1, caller="one"), driver.add(1, caller="another")
    assert admissions(driver, 5) == [many[50], other, third, *many[51:53]]


def test_aging_does_not_override_round_robin() -> None:
    driver = ScheduleDriver(slots=1)
    for _ in range(200):
        driver.add(1, caller="many")
    admissions(driver, 1)
    driver.now = 5 * AGING_SECONDS
    single = driver.add(1, caller="one")
    assert admissions(driver, 2)[1] is single


def test_new_requests_of_a_caller_overtake_no_other_caller() -> None:
    driver = ScheduleDriver(slots=1)
    first, patient = driver.add(1, caller="a"), driver.add(1, caller="b")
    driver.add(1, caller="a")
    for _ in range(3):
        driver.add(1, caller=f"newcomer {_}")
    assert admissions(driver, 2) == [first, patient]


def test_a_request_admitted_for_an_aged_one_inherits_its_priority() -> None:
    driver = ScheduleDriver(slots=1)
    driver.add(1, caller="a")
    driver.add(1, caller="a")
    admissions(driver, 1)
    driver.now = 4 * AGING_SECONDS
    young = driver.add(1, caller="b")
    high = driver.add(1, caller="c", priority=3)
    driver.scheduler.remove(driver.running[0])
    driver.add(1, caller="a")
    driver.scheduler._waiting._counts = {"b": 1, "a": 2, "c": 1}
    assert driver.admit() == [young]
    assert high in driver.waiting


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=20),
    st.integers(0, 30),
)
def test_the_predicted_order_is_the_order_of_admission(
    arrivals: list[tuple[str, int]], seconds: int
) -> None:
    """Within a priority; among priorities the order also depends on later aging."""
    driver = ScheduleDriver(slots=1)
    for caller, priority in arrivals:
        driver.now += seconds
        driver.add(1, caller=caller, priority=priority)
    for level in range(3):
        lone = ScheduleDriver(slots=1)
        for caller, priority in arrivals:
            if priority == level:
                lone.now += seconds
                lone.add(1, caller=caller, priority=priority)
        predicted = lone.scheduler.queue(lone.now)
        assert admissions(lone, len(predicted)) == predicted
    queue = driver.scheduler.queue(driver.now)
    assert sorted(each.id for each in queue) == sorted(each.id for each in driver.waiting)
    assert queue[:1] == admissions(driver, 1)


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(0, 29))
def test_no_caller_is_admitted_twice_while_another_waits(arrivals: list[str], late: int) -> None:
    driver = ScheduleDriver(slots=1)
    for caller in arrivals[:late]:
        driver.add(1, caller=caller)
    admissions(driver, late // 2)
    for caller in arrivals[late:]:
        driver.add(1, caller=caller)
    since: dict[str, Counter[str]] = {each.caller: Counter() for each in driver.waiting}
    while driver.waiting:
        [request] = admissions(driver, 1)
        since[request.caller] = Counter()
        for caller in {each.caller for each in driver.waiting} - {request.caller}:
            since[caller][request.caller] += 1
            assert since[caller][request.caller] <= 1


# --- The queue ------------------------------------------------------------------------


async def test_a_full_queue_evicts_the_largest_holder_for_another_caller(
    open_engine: OpenEngine,
) -> None:
    harness = open_engine(slots=1, queued=3, seconds=0.01)
    with (
        harness.engine.submit([harness.task(900, caller="many")]),
        harness.engine.submit([harness.task(caller="many") for _ in range(3)]) as many,
        harness.engine.submit([harness.task(caller="one")]),
    ):
        [event] = [event async for event in many[-1]]
        assert isinstance(event.content, OverloadedError)
        with (
            pytest.raises(
                OverloadedError, match=r"4 requests would wait, limit 3; retry in 1\.\d s"
            ),
            harness.engine.submit([harness.task(caller="many")]),
        ):
            pass
    await harness.wait_all_free()


async def test_a_full_queue_evicts_no_request_for_an_equal_holder(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=1, queued=2, seconds=0.01)
    with (
        harness.engine.submit([harness.task(900, caller="a")]),
        harness.engine.submit([harness.task(caller="a")]),
        harness.engine.submit([harness.task(caller="b")]),
    ):
        for caller in ("a", "b"):
            with (
                pytest.raises(OverloadedError),
                harness.engine.submit([harness.task(caller=caller)]),
            ):
                pass


async def test_a_full_queue_evicts_no_request_of_a_higher_priority(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=1, queued=3, seconds=0.01)
    with (
        harness.engine.submit([harness.task(900, caller="a", priority=1)]),
        harness.engine.submit([harness.task(caller="a", priority=1) for _ in range(3)]),
        pytest.raises(OverloadedError),
        harness.engine.submit([harness.task(caller="b")]),
    ):
        pass


async def test_the_retry_delay_follows_the_measured_time_per_slot(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=1, queued=0)
    harness.engine.engine._forecast.record_hold(4.0, 1)
    with harness.engine.submit([harness.task(900)]):
        delays = set()
        for count in (1, 1, 2, 100):
            with (
                pytest.raises(OverloadedError) as caught,
                harness.engine.submit([harness.task() for _ in range(count)]),
            ):
                pass
            delays.add(caught.value.retry_after_seconds)
    one, other, two, most = sorted(delays)
    assert 4 <= one < other <= 6
    assert 8 <= two <= 12
    assert 30 <= most <= 45


# --- Names of callers -----------------------------------------------------------------


@pytest.mark.parametrize(
    "peer,name",
    [
        ("ipv4:10.1.2.3:4567", "10.1.2.3"),
        ("ipv4:127.0.0.1:4567", "127.0.0.1:4567"),
        ("ipv6:%5B2001:db8:0:7::1%5D:4567", "2001:db8:0:7::/64"),
        ("ipv6:%5B2001:db8:0:7:ffff:ffff:ffff:ffff%5D:4567", "2001:db8:0:7::/64"),
        ("ipv6:%5B2001:db8:0:8::1%5D:4567", "2001:db8:0:8::/64"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:4567", "10.1.2.3"),
        ("ipv6:%5B::ffff:7f00:1%5D:4567", "127.0.0.1:4567"),
        ("ipv6:%5B::1%5D:4567", "[::1]:4567"),
        ("ipv6:[fe80::1%25eth0]:4567", "fe80::/64%eth0"),
        ("unix:/run/gpt2flow.sock", "unix:/run/gpt2flow.sock"),
        ("unix:", "unix:"),
    ],
)
def test_a_peer_is_named_by_its_host_or_network(peer: str, name: str) -> None:
    assert peer_name(peer) == name

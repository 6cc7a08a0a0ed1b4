"""No caller waits for all that another one has sent."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.counting_engine import OpenDesk
from tests.support.schedule_driver import Driver

from gpt2flow.server.engine.request_queue import AGING_SECONDS
from gpt2flow.server.engine.sequence import Request
from gpt2flow.server.errors import OverloadedError
from gpt2flow.server.servicer.identity import peer_name


def turns(driver: Driver, count: int) -> list[Request]:
    """End what runs in the only slot, again and again; returns who is admitted."""
    admitted = []
    for _ in range(count):
        if driver.running:
            driver.scheduler.remove(driver.running[0])
        admitted += driver.admit()
    return admitted


def test_a_single_request_waits_for_one_turn_of_each_other_caller() -> None:
    driver = Driver(slots=1)
    many = [driver.add(1, caller="many") for _ in range(200)]
    assert turns(driver, 50) == many[:50]
    other, third = driver.add(1, caller="one"), driver.add(1, caller="another")
    assert turns(driver, 5) == [many[50], other, third, *many[51:53]]


def test_waiting_for_long_does_not_undo_the_turns() -> None:
    driver = Driver(slots=1)
    for _ in range(200):
        driver.add(1, caller="many")
    turns(driver, 1)
    driver.now = 5 * AGING_SECONDS
    single = driver.add(1, caller="one")
    assert turns(driver, 2)[1] is single


def test_who_comes_again_and_again_overtakes_nobody() -> None:
    driver = Driver(slots=1)
    first, patient = driver.add(1, caller="a"), driver.add(1, caller="b")
    driver.add(1, caller="a")
    for _ in range(3):
        driver.add(1, caller=f"newcomer {_}")
    assert turns(driver, 2) == [first, patient]


def test_who_is_admitted_in_the_turn_of_an_aged_request_is_protected_like_it() -> None:
    driver = Driver(slots=1)
    driver.add(1, caller="a")
    driver.add(1, caller="a")
    turns(driver, 1)
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
def test_the_order_that_is_foreseen_is_the_order_of_admission(
    arrivals: list[tuple[str, int]], seconds: int
) -> None:
    """Of each priority; which of them is next depends on the time, too."""
    driver = Driver(slots=1)
    for caller, priority in arrivals:
        driver.now += seconds
        driver.add(1, caller=caller, priority=priority)
    for asked in range(3):
        lone = Driver(slots=1)
        for caller, priority in arrivals:
            if priority == asked:
                lone.now += seconds
                lone.add(1, caller=caller, priority=priority)
        foreseen = lone.scheduler.queue(lone.now)
        assert turns(lone, len(foreseen)) == foreseen
    queue = driver.scheduler.queue(driver.now)
    assert sorted(each.id for each in queue) == sorted(each.id for each in driver.waiting)
    assert queue[:1] == turns(driver, 1)


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(0, 29))
def test_nobody_gets_two_turns_while_another_waits(arrivals: list[str], late: int) -> None:
    driver = Driver(slots=1)
    for caller in arrivals[:late]:
        driver.add(1, caller=caller)
    turns(driver, late // 2)
    for caller in arrivals[late:]:
        driver.add(1, caller=caller)
    since: dict[str, Counter[str]] = {each.caller: Counter() for each in driver.waiting}
    while driver.waiting:
        [request] = turns(driver, 1)
        since[request.caller] = Counter()
        for caller in {each.caller for each in driver.waiting} - {request.caller}:
            since[caller][request.caller] += 1
            assert since[caller][request.caller] <= 1


# --- The queue ------------------------------------------------------------------------


async def test_a_full_queue_makes_room_for_another_caller(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=1, queued=3, seconds=0.01)
    with (
        desk.engine.submit([desk.task(900, caller="many")]),
        desk.engine.submit([desk.task(caller="many") for _ in range(3)]) as many,
        desk.engine.submit([desk.task(caller="one")]),
    ):
        [event] = [event async for event in many[-1]]
        assert isinstance(event.content, OverloadedError)
        with (
            pytest.raises(OverloadedError, match="4 requests would wait, limit 3"),
            desk.engine.submit([desk.task(caller="many")]),
        ):
            pass
    await desk.all_free()


async def test_nobody_makes_way_for_whoever_holds_as_much(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=1, queued=2, seconds=0.01)
    with (
        desk.engine.submit([desk.task(900, caller="a")]),
        desk.engine.submit([desk.task(caller="a")]),
        desk.engine.submit([desk.task(caller="b")]),
    ):
        for caller in ("a", "b"):
            with pytest.raises(OverloadedError), desk.engine.submit([desk.task(caller=caller)]):
                pass


async def test_a_lower_priority_takes_nobodys_place(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=1, queued=3, seconds=0.01)
    with (
        desk.engine.submit([desk.task(900, caller="a", priority=1)]),
        desk.engine.submit([desk.task(caller="a", priority=1) for _ in range(3)]),
        pytest.raises(OverloadedError),
        desk.engine.submit([desk.task(caller="b")]),
    ):
        pass


async def test_the_retry_delay_follows_what_was_measured(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=1, queued=0)
    desk.engine._engine._forecast.note_held(4.0, 1)
    with desk.engine.submit([desk.task(900)]):
        delays = set()
        for count in (1, 1, 2, 100):
            with (
                pytest.raises(OverloadedError) as caught,
                desk.engine.submit([desk.task() for _ in range(count)]),
            ):
                pass
            delays.add(caught.value.retry_after_seconds)
    one, other, two, most = sorted(delays)
    assert 4 <= one < other <= 6
    assert 8 <= two <= 12
    assert 30 <= most <= 45


# --- Who a caller is ------------------------------------------------------------------


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
def test_a_peer_is_its_host_or_its_network(peer: str, name: str) -> None:
    assert peer_name(peer) == name

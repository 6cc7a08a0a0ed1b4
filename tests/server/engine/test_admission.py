"""Admission, queueing, aging and preemption of requests."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.schedule_driver import ScheduleDriver

from gpt2flow.server.engine.request_queue import AGING_SECONDS
from gpt2flow.server.engine.sequence import Request


def test_requests_wait_for_slots_in_order_of_arrival() -> None:
    driver = ScheduleDriver(slots=2)
    first, second, third = (driver.add(1) for _ in range(3))
    assert driver.admit() == [first, second]
    driver.scheduler.remove(first)
    assert driver.admit() == [third]


def test_a_higher_priority_is_admitted_first() -> None:
    driver = ScheduleDriver(slots=1)
    running = driver.add(1)
    driver.admit()
    low, high = driver.add(1), driver.add(1, priority=5)
    driver.scheduler.remove(running)
    assert driver.admit() == [high]
    driver.scheduler.remove(high)
    assert driver.admit() == [low]


@given(st.lists(st.integers(-2, 2), max_size=12), st.sets(st.integers(0, 11)))
def test_removing_requests_keeps_the_order_of_the_others(
    priorities: list[int], leaving: set[int]
) -> None:
    driver = ScheduleDriver(slots=1)
    blocker = driver.add(1, priority=100)
    driver.admit()
    waiting = [driver.add(1, priority=priority) for priority in priorities]
    for at in leaving & set(range(len(waiting))):
        driver.scheduler.remove(waiting[at])
    expected = [each for at, each in enumerate(waiting) if at not in leaving]
    expected.sort(key=lambda request: (-request.priority, request.id))
    admitted = []
    running = blocker
    for _ in expected:
        driver.scheduler.remove(running)
        [running] = driver.admit()
        admitted.append(running)
    assert admitted == expected


def test_a_request_for_several_slots_is_not_overtaken() -> None:
    driver = ScheduleDriver(slots=4)
    single = driver.add(1)
    driver.admit()
    multi, late = driver.add(1, slots_needed=4), driver.add(1)
    assert driver.admit() == []
    driver.scheduler.remove(single)
    assert driver.admit() == [multi]
    assert sorted(multi.slots) == [0, 1, 2, 3]
    driver.scheduler.remove(multi)
    assert driver.admit() == [late]


def test_removing_a_running_or_waiting_request_frees_its_slots() -> None:
    driver = ScheduleDriver(slots=1)
    running, waiting = driver.add(3), driver.add(3)
    driver.step()
    driver.scheduler.remove(waiting)
    driver.scheduler.remove(running)
    assert driver.cache.free_slots == 1
    assert list(driver.scheduler.requests) == []


# --- Aging ----------------------------------------------------------------------------


def test_a_low_priority_does_not_starve() -> None:
    driver = ScheduleDriver(slots=1)
    driver.add(1, priority=3)
    driver.admit()
    low = driver.add(1)
    while low not in driver.running:
        driver.now += 1.0
        driver.add(1, priority=3)
        driver.scheduler.remove(driver.running[0])
        driver.admit()
    assert low.admitted == 3 * AGING_SECONDS


def test_a_running_request_keeps_its_aged_priority() -> None:
    driver = ScheduleDriver(slots=1)
    driver.add(1, priority=3)
    driver.admit()
    low = driver.add(1)
    driver.now = 2 * AGING_SECONDS
    driver.scheduler.remove(driver.running[0])
    assert driver.admit() == [low]
    driver.now = 20 * AGING_SECONDS  # A running request does not age.
    driver.add(1, priority=2)
    assert driver.admit() == []
    high = driver.add(1, priority=3)
    assert driver.admit() == [high]
    assert driver.waiting[-1] is low


def test_aging_alone_preempts_no_request() -> None:
    driver = ScheduleDriver(slots=1)
    driver.add(1)
    driver.admit()
    driver.add(1)
    driver.now = 100 * AGING_SECONDS
    assert driver.admit() == []


# --- Preemption -----------------------------------------------------------------------


def run(driver: ScheduleDriver, *priorities: int, slots_needed: int = 1) -> list[Request]:
    """Start requests one after another."""
    requests = []
    for priority in priorities:
        requests.append(driver.add(1, priority=priority, slots_needed=slots_needed))
        assert driver.admit() == requests[-1:]
    return requests


def test_the_latest_of_the_lowest_priority_is_preempted() -> None:
    driver = ScheduleDriver(slots=4)
    _, zero, _, late = run(driver, 1, 0, 2, 0)
    high = driver.add(1, priority=5)
    assert driver.admit() == [high]
    assert driver.waiting == [late]
    multi = driver.add(1, priority=2, slots_needed=2)
    assert driver.admit() == [multi]
    assert zero in driver.waiting
    assert len(driver.waiting) == 3


def test_no_request_is_preempted_in_vain() -> None:
    driver = ScheduleDriver(slots=4)
    running = run(driver, 0, 0, 3, 3)
    driver.add(1, priority=2, slots_needed=3)
    assert driver.admit() == []
    assert driver.running == running


def test_equal_priorities_do_not_preempt() -> None:
    driver = ScheduleDriver(slots=1)
    run(driver, 1)
    driver.add(1, priority=1)
    assert driver.admit() == []


def test_no_more_requests_than_needed_are_preempted() -> None:
    driver = ScheduleDriver(slots=4)
    first, second = run(driver, 0, 0)
    multi = driver.add(1, priority=1, slots_needed=3)
    assert driver.admit() == [multi]
    assert driver.running == [first, multi]
    assert driver.waiting == [second]


def test_a_preempted_request_resumes_before_later_arrivals() -> None:
    driver = ScheduleDriver(slots=1)
    [preempted] = run(driver, 0)
    driver.now = 1.0
    later = driver.add(1)
    driver.now = 2.0
    high = driver.add(1, priority=1)
    assert driver.admit() == [high]
    driver.now = 3.0
    driver.scheduler.remove(high)
    assert driver.admit() == [preempted]
    assert later in driver.waiting


def test_a_preempted_request_waits_for_its_missing_slots_only() -> None:
    driver = ScheduleDriver(slots=3)
    [request] = run(driver, 0, slots_needed=3)
    driver.cache.free(request.slots.pop())
    high = driver.add(1, priority=1, slots_needed=2)
    assert driver.admit() == [high]
    assert request.slots_needed == 2
    driver.add(1, priority=1)
    driver.admit()
    driver.scheduler.remove(high)
    assert driver.admit() == [request]
    assert len(request.slots) == 2


jobs = st.tuples(
    st.integers(0, 3), st.integers(1, 3), st.integers(0, 4), st.integers(1, 12), st.integers(1, 9)
)


@settings(max_examples=examples(300))
@given(st.lists(jobs, max_size=12), st.sampled_from([0.0, 1.0, AGING_SECONDS]))
def test_all_requests_finish(
    arrivals: list[tuple[int, int, int, int, int]], seconds: float
) -> None:
    driver = ScheduleDriver(slots=3)
    due = 0
    waits: list[tuple[int, Request, int]] = []
    queue = list(arrivals)
    ends: dict[int, int] = {}
    for step in range(2000):
        while queue and step >= due + queue[0][0]:
            (_, slots_needed, priority, prompt, new), due = queue.pop(0), step
            request = driver.add(prompt, slots_needed=slots_needed, priority=priority)
            ends[request.id] = prompt + new
            waits.append((step, request, priority))
        running = list(driver.running)
        admitted = driver.admit()
        assert all(each in driver.running for each in admitted)
        for victim in (each for each in running if each not in driver.running):
            assert any(each.priority > victim.priority for each in admitted)
        if driver.running:
            driver.step()
        for request in list(driver.running):
            if len(request.sequences[0].tokens) >= ends[request.id]:
                driver.scheduler.remove(request)
        driver.now += seconds
        if not (queue or driver.running or driver.waiting):
            break
    assert not driver.waiting
    assert not driver.running
    assert driver.cache.free_slots == 3

"""Queue of turns: bounds, order, and its end."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from tests.support.waiting import eventually, until

from gpt2flow.agent.http.requests import Message, RequestError
from gpt2flow.agent.http.turn_queue import Answered, TurnQueue
from gpt2flow.agent.report import TurnReport


class Work:
    """Handler whose turns end once a test lets them.

    Attributes:
        begun: Ids of the messages whose turns have begun, in order.
        open: Event without which no turn ends.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.open = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, message: Message) -> Answered:
        with self._lock:
            self.begun.append(message.id)
        eventually(self.open.is_set)
        return TurnReport(
            session=message.session, message_id=message.id, message=message.text, language="en"
        )


@pytest.fixture
def work() -> Work:
    return Work()


def message(session: str, number: int) -> Message:
    return Message(session, str(number), "hello")


def refusal(submit: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        submit()
    return caught.value


async def test_turns_over_the_bound_wait_and_more_are_refused(work: Work) -> None:
    queue = TurnQueue(work, max_turns=2, max_queued=1)
    turns = [queue.submit(message(f"s{n}", n)) for n in range(3)]
    await until(lambda: len(work.begun) == 2)
    assert (queue.running, queue.waiting) == (2, 1)
    error = refusal(lambda: queue.submit(message("s3", 3)))
    assert (error.status, error.field) == (503, None)
    assert error.message == "queue full: 1 turns waiting, limit 1; retry in 2 s"
    assert error.retry_after == 2
    work.open.set()
    assert [await turn for turn in turns] == [turn.result() for turn in turns]
    assert work.begun == ["0", "1", "2"]
    # The queue hears of an end after those who wait for it.
    await until(lambda: len(queue) == 0)


async def test_a_session_holds_one_thread_and_keeps_its_order(work: Work) -> None:
    queue = TurnQueue(work, max_turns=2, max_queued=100)
    first = [queue.submit(message("a", n)) for n in range(10)]
    other = queue.submit(message("b", 99))
    await until(lambda: len(work.begun) == 2)
    assert work.begun == ["0", "99"]
    work.open.set()
    await asyncio.gather(*first, other)
    assert work.begun[2:] == [str(n) for n in range(1, 10)]


async def test_a_repeated_message_joins_the_turn_that_runs(work: Work) -> None:
    queue = TurnQueue(work, max_turns=1, max_queued=0)
    turn = queue.submit(message("a", 1))
    assert queue.submit(message("a", 1)) is turn
    work.open.set()
    await turn
    assert work.begun == ["1"]


async def test_a_full_queue_still_answers_a_repeated_message(work: Work) -> None:
    queue = TurnQueue(work, max_turns=1, max_queued=0)
    turn = queue.submit(message("a", 1))
    refusal(lambda: queue.submit(message("b", 2)))
    assert queue.submit(message("a", 1)) is turn
    work.open.set()
    await turn


async def test_a_closed_queue_ends_its_turns_and_takes_no_more(work: Work) -> None:
    queue = TurnQueue(work, max_turns=1, max_queued=5)
    turns = [queue.submit(message("a", n)) for n in range(3)]
    queue.close()
    error = refusal(lambda: queue.submit(message("a", 3)))
    assert (error.status, error.retry_after) == (503, 1)
    finished = asyncio.create_task(queue.finished())
    await asyncio.sleep(0)
    assert not finished.done()
    work.open.set()
    await finished
    assert all(isinstance(turn.result(), TurnReport) for turn in turns)


async def test_an_abandoned_queue_answers_and_begins_nothing_more(work: Work) -> None:
    queue = TurnQueue(work, max_turns=1, max_queued=5)
    turns = [queue.submit(message("a", n)) for n in range(3)]
    await until(lambda: work.begun == ["0"])
    assert queue.abandon() == 3
    for number, turn in enumerate(turns):
        answer = await turn
        assert isinstance(answer, RequestError)
        assert answer.status == 503
        assert f"send the message again with id '{number}'" in answer.message
    work.open.set()
    await queue.finished()
    assert work.begun == ["0"]


async def test_requests_of_two_traces_that_repeat_a_message_share_its_turn(work: Work) -> None:
    queue = TurnQueue(work, max_turns=1, max_queued=0)
    first, second = (
        queue.submit(Message("s", "1", "hello", trace=f"00-{digit * 32}-{digit * 16}-01"))
        for digit in "12"
    )
    assert first is second
    work.open.set()
    await first
    assert work.begun == ["1"]

"""Claims on the messages of the outbox, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text
from tests.support.outbox import AFTER_LEASE, Outbox

from gpt2flow.agent.delivery.local import ConsoleTransport
from gpt2flow.agent.delivery.message import DeliveryError
from gpt2flow.agent.delivery.queue import LEASE, Claim, OutboxQueue
from gpt2flow.agent.delivery.routing import mail_route
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.shop import Audience, Delivery

FAULT, REFUSAL = DeliveryError("fault"), DeliveryError("refused", is_permanent=True)


def keys(claims: list[Claim]) -> list[str]:
    return [claim.message.key for claim in claims]


def claim(queue: OutboxQueue) -> Claim:
    (found,) = queue.claim(1)
    return found


def test_only_pending_messages_are_claimed_the_oldest_of_each_recipient(outbox: Outbox) -> None:
    outbox.add("answered", delivery=Delivery.ANSWERED, contact=None)
    outbox.add("sent", delivery=Delivery.SENT)
    outbox.add("dead", delivery=Delivery.DEAD)
    outbox.add("a1", "a2")
    outbox.add("b1", contact="bob@example.com")
    outbox.add("s1", "s2", contact=None)
    outbox.add("staff1", "staff2", contact=None, audience=Audience.STAFF)
    queue = outbox.queue()
    assert keys(queue.claim(10)) == ["a1", "b1", "s1", "staff1"]
    assert queue.claim(10) == []


def test_a_claim_is_of_as_many_messages_as_asked(outbox: Outbox) -> None:
    for number in range(5):
        outbox.add(f"{number}", contact=f"{number}@example.com")
    queue = outbox.queue()
    assert keys(queue.claim(2)) == ["0", "1"]
    assert keys(queue.claim(2)) == ["2", "3"]
    assert queue.claim(0) == []


def test_the_next_message_of_a_recipient_follows_when_the_first_is_sent(outbox: Outbox) -> None:
    outbox.add("a1", "a2")
    queue = outbox.queue()
    queue.record_sent(claim(queue))
    row = outbox.row("a1")
    assert (row.delivery, row.sent_at, row.attempts) == (Delivery.SENT, outbox.clock.now, 1)
    assert (row.claimed_until, row.error, row.next_attempt_at) == (None, None, None)
    assert keys(queue.claim(10)) == ["a2"]


def test_a_failed_message_holds_back_those_behind_it_until_its_time(outbox: Outbox) -> None:
    outbox.add("a1", "a2")
    queue = outbox.queue()
    wait = queue.record_failure(claim(queue), FAULT)
    assert wait is not None
    row = outbox.row("a1")
    assert (row.delivery, row.attempts, row.error) == (Delivery.PENDING, 1, "fault")
    assert row.next_attempt_at == outbox.clock.now + wait
    outbox.clock.now += wait - timedelta(milliseconds=1)
    assert queue.claim(10) == []
    outbox.clock.now += timedelta(milliseconds=1)
    assert keys(queue.claim(10)) == ["a1"]


def test_a_receiver_decides_on_a_longer_wait(outbox: Outbox) -> None:
    outbox.add("a1")
    queue = outbox.queue()
    wait = queue.record_failure(claim(queue), DeliveryError("busy", retry_after=300.0))
    assert wait == timedelta(seconds=300)


def test_a_message_is_dead_after_its_last_attempt_and_holds_back_nothing(outbox: Outbox) -> None:
    outbox.add("a1", "a2")
    queue = outbox.queue(attempts=2)
    assert queue.record_failure(claim(queue), FAULT) is not None
    outbox.clock.forward(hours=1)
    assert queue.record_failure(claim(queue), FAULT) is None
    row = outbox.row("a1")
    assert (row.delivery, row.attempts, row.error) == (Delivery.DEAD, 2, "fault")
    assert keys(queue.claim(10)) == ["a2"]


def test_a_permanent_error_needs_no_second_attempt(outbox: Outbox) -> None:
    outbox.add("a1")
    queue = outbox.queue()
    assert queue.record_failure(claim(queue), REFUSAL) is None
    assert outbox.deliveries() == {"a1": "dead"}
    assert [row.error for row in queue.dead_letters()] == ["refused"]


def test_a_revived_message_has_all_its_attempts_again(outbox: Outbox) -> None:
    outbox.add("old", delivery=Delivery.DEAD, error="written before messages were delivered")
    outbox.add("sent", delivery=Delivery.SENT, attempts=1)
    outbox.add("a1")
    queue = outbox.queue(attempts=1)
    queue.record_failure(claim(queue), FAULT)
    assert queue.revive() == 1
    assert outbox.deliveries() == {"old": "dead", "sent": "sent", "a1": "pending"}
    assert queue.dead_letters() == []
    assert claim(queue).message.attempts == 0
    assert queue.revive() == 0


def test_a_lease_that_has_ended_frees_the_message_with_the_same_key(outbox: Outbox) -> None:
    outbox.add("a1", "a2")
    queue = outbox.queue()
    lost = claim(queue)
    assert queue.is_lasting(lost)
    outbox.clock.now = lost.until - timedelta(seconds=1)
    assert queue.claim(10) == []
    assert not queue.is_lasting(lost)
    outbox.clock.now = lost.until
    assert keys(queue.claim(10)) == ["a1"]


def test_a_late_failure_changes_nothing_for_the_next_dispatcher(outbox: Outbox) -> None:
    outbox.add("a1")
    queue = outbox.queue()
    late = claim(queue)
    outbox.clock.forward(**AFTER_LEASE)
    current = claim(queue)
    queue.record_failure(late, REFUSAL)
    queue.release(late)
    row = outbox.row("a1")
    assert (row.delivery, row.claimed_until) == (Delivery.PENDING, current.until)


def test_a_late_success_is_one(outbox: Outbox) -> None:
    outbox.add("a1")
    queue = outbox.queue()
    late = claim(queue)
    outbox.clock.forward(**AFTER_LEASE)
    current = claim(queue)
    queue.record_sent(late)
    queue.record_failure(current, REFUSAL)
    assert outbox.deliveries() == {"a1": "sent"}


def test_a_released_message_has_lost_no_attempt(outbox: Outbox) -> None:
    outbox.add("a1")
    queue = outbox.queue()
    queue.release(claim(queue))
    assert claim(queue).message.attempts == 0


def test_a_clock_that_was_ahead_delays_nothing_for_long(outbox: Outbox) -> None:
    outbox.add("claimed")
    outbox.add("waiting", contact="bob@example.com")
    queue = outbox.queue()
    outbox.clock.forward(days=400)
    _, waiting = queue.claim(10)
    queue.record_failure(waiting, FAULT)
    outbox.clock.forward(days=-400)
    assert keys(queue.claim(10)) == ["claimed", "waiting"]


def test_a_clock_a_little_behind_respects_the_lease_of_another(outbox: Outbox) -> None:
    outbox.add("a1")
    queue = outbox.queue()
    queue.claim(1)
    outbox.clock.now -= LEASE / 2
    assert queue.claim(1) == []


def test_messages_without_a_transport_wait_and_are_counted(outbox: Outbox) -> None:
    route = mail_route(ConsoleTransport(lambda _: None), has_staff_address=False)
    for number in range(3):
        outbox.add(f"phone {number}", contact=f"+49{number}")
    outbox.add("mail")
    queue = outbox.queue([route])
    assert keys(queue.claim(1)) == ["mail"]
    assert queue.count_waiting() == (4, 3)


def test_the_case_and_the_columns_reach_the_message(outbox: Outbox) -> None:
    case = outbox.add_case()
    outbox.add("a1", case_id=case, language="zh")
    message = claim(outbox.queue()).message
    assert (message.case, message.language, message.session) == (f"C-{case}", "zh", "s")
    assert message.created_at == outbox.clock.now


def test_dispatchers_at_the_same_time_share_the_messages(outbox: Outbox) -> None:
    for number in range(60):
        outbox.add(f"{number}", contact=f"{number % 30}@example.com")
    queue = outbox.queue()

    def work(_: int) -> list[str]:
        found = []
        while claims := queue.claim(3):
            for each in claims:
                found.append(each.message.key)
                queue.record_sent(each)
        return found

    with ThreadPoolExecutor(4) as pool:
        found = [key for part in pool.map(work, range(4)) for key in part]
    assert sorted(found, key=int) == [f"{number}" for number in range(60)]


def test_a_failure_of_the_database_is_one_line(outbox: Outbox) -> None:
    outbox.add("a1")
    queue = outbox.queue()
    found = claim(queue)
    with outbox.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE outbox RENAME TO away"))
    try:
        for fail in (
            lambda: queue.claim(1),
            lambda: queue.record_sent(found),
            queue.revive,
            queue.dead_letters,
            queue.count_waiting,
        ):
            with pytest.raises(DatabaseError) as raised:
                fail()
            assert "\n" not in str(raised.value)
    finally:
        with outbox.database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO outbox"))

"""Dispatcher: order, attempts, and how it ends; with a real receiver."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from tests.support.mail_server import MailServer
from tests.support.outbox import AFTER_LEASE, Outbox
from tests.support.waiting import SECONDS, eventually, until
from tests.support.webhook_receiver import SECRET, HttpAnswer, Received, WebhookReceiver

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.delivery import dispatcher as module
from gpt2flow.agent.delivery.backoff import Backoff
from gpt2flow.agent.delivery.dispatcher import Dispatcher
from gpt2flow.agent.delivery.local import ConsoleTransport
from gpt2flow.agent.delivery.mail import SmtpTls
from gpt2flow.agent.delivery.message import OutgoingMessage
from gpt2flow.agent.delivery.queue import Claim, OutboxQueue
from gpt2flow.agent.delivery.routing import mail_route
from gpt2flow.agent.delivery.settings import DeliverySettings
from gpt2flow.agent.errors import DatabaseError, InputError
from gpt2flow.agent.shop import Audience, Delivery

pytestmark = pytest.mark.process


def fail(status: int, *keys: str) -> Callable[[Received], HttpAnswer]:
    """Return answers that refuse some keys."""
    return lambda request: HttpAnswer(status if request.key in keys else 204)


async def test_messages_of_a_customer_arrive_in_order_and_one_at_a_time(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    for number, contact in itertools.product(range(5), "abcd"):
        outbox.add(f"{contact}{number}", contact=f"{contact}@example.com")
    dispatcher = await outbox.send_due(outbox.webhook(receiver))
    assert receiver.keys_by_contact() == {
        f"{contact}@example.com": [f"{contact}{number}" for number in range(5)]
        for contact in "abcd"
    }
    assert set(receiver.most_at_once.values()) == {1}
    assert set(outbox.deliveries().values()) == {"sent"}
    assert dispatcher.summary.sent == 20


async def test_mails_and_webhooks_share_the_outbox(
    outbox: Outbox, receiver: WebhookReceiver, mails: MailServer
) -> None:
    outbox.add("mail")
    outbox.add("phone", contact="+4915112345678")
    outbox.add("staff", contact=None, audience=Audience.STAFF)
    settings = DeliverySettings(
        webhook=receiver.url,
        webhook_secret=SECRET,
        smtp=mails.address,
        smtp_from="shop@example.com",
        smtp_tls=SmtpTls.NONE,
        staff_address="staff@example.com",
    )
    await outbox.send_due(settings.routes(utc_now))
    assert receiver.keys == ["phone"]
    assert sorted(mails.recipients) == [["ann@example.com"], ["staff@example.com"]]
    assert set(outbox.deliveries().values()) == {"sent"}


async def test_customers_do_not_wait_for_each_other(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1")
    outbox.add("b1", "b2", contact="bob@example.com")
    others = threading.Event()

    def answer(request: Received) -> HttpAnswer:
        if request.key == "a1":
            assert others.wait(SECONDS)
        elif request.key == "b2":
            others.set()
        return HttpAnswer()

    receiver.answer = answer
    await outbox.send_due(outbox.webhook(receiver))
    assert set(outbox.deliveries().values()) == {"sent"}


async def test_a_failed_message_is_tried_again_before_those_behind_it(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1", "a2")
    outbox.add("b1", contact="bob@example.com")
    receiver.answer = fail(503, "a1")
    routes = outbox.webhook(receiver)
    dispatcher = await outbox.send_due(routes)
    assert outbox.deliveries() == {"a1": "pending", "a2": "pending", "b1": "sent"}
    assert (dispatcher.summary.sent, dispatcher.summary.failed) == (1, 1)
    failed, sent = sorted(outbox.logged("delivery"), key=lambda line: str(line["key"]))
    assert 4 <= failed.pop("retry_seconds") <= 6
    common = {"transport": "webhook", "attempt": 1}
    assert failed == common | {
        "key": "a1",
        "result": "failed",
        "reason": "127.0.0.1 answered 503 Service Unavailable",
        "attempts": 12,
        "log_level": "warning",
    }
    assert sent == common | {"key": "b1", "result": "sent", "seconds": 0.0, "log_level": "info"}
    receiver.answer = fail(503)
    await outbox.send_due(routes)
    assert receiver.keys.count("a1") == 1
    outbox.clock.forward(seconds=10)
    await outbox.send_due(routes)
    assert receiver.keys_by_contact()["ann@example.com"] == ["a1", "a1", "a2"]
    assert set(outbox.deliveries().values()) == {"sent"}


async def test_a_receiver_is_left_alone_for_as_long_as_it_asks(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1")
    receiver.answer = lambda _: HttpAnswer(429, {"retry-after": "3600"})
    await outbox.send_due(outbox.webhook(receiver))
    assert outbox.row("a1").next_attempt_at == outbox.clock.now + timedelta(hours=1)


async def test_a_dead_message_no_longer_blocks_and_can_be_revived(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1", "a2", "a3")
    receiver.answer = fail(404, "a1")
    dispatcher = await outbox.send_due(outbox.webhook(receiver))
    assert outbox.deliveries() == {"a1": "dead", "a2": "sent", "a3": "sent"}
    assert dispatcher.summary.dead == 1
    dead = outbox.logged("delivery")[0]
    assert (dead["key"], dead["result"], dead["attempt"]) == ("a1", "dead", 1)
    assert dead["reason"] == "127.0.0.1 answered 404 Not Found"
    assert "retry_seconds" not in dead
    receiver.answer = fail(404)
    assert outbox.queue().revive() == 1
    await outbox.send_due(outbox.webhook(receiver))
    assert receiver.keys == ["a1", "a2", "a3", "a1"]
    assert outbox.deliveries()["a1"] == "sent"


async def test_the_last_attempt_is_the_last(outbox: Outbox, receiver: WebhookReceiver) -> None:
    outbox.add("a1")
    receiver.answer = fail(500, "a1")
    for _ in range(4):
        await outbox.send_due(outbox.webhook(receiver), attempts=3)
        outbox.clock.forward(days=1)
    assert receiver.keys == ["a1"] * 3
    assert outbox.row("a1").delivery is Delivery.DEAD


async def test_one_message_that_breaks_a_transport_does_not_stop_the_others(
    outbox: Outbox,
) -> None:
    def write(message: OutgoingMessage) -> None:
        if message.key == "a1":
            raise ZeroDivisionError("by zero")

    outbox.add("a1")
    outbox.add("b1", contact="bob@example.com")
    await outbox.send_due(outbox.console(write))
    assert outbox.deliveries() == {"a1": "pending", "b1": "sent"}
    assert outbox.row("a1").error == "unexpected ZeroDivisionError: by zero"


async def test_an_attempt_ends_after_its_time(
    outbox: Outbox, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS", 0.2)
    outbox.add("a1")
    release = threading.Event()
    receiver.answer = lambda _: HttpAnswer(204 if release.wait(SECONDS) else 500)
    await outbox.send_due(outbox.webhook(receiver))
    release.set()
    assert outbox.row("a1").error == "not taken within 0.2 s"


async def test_new_messages_are_sent_until_the_dispatcher_is_stopped(outbox: Outbox) -> None:
    dispatcher = outbox.dispatcher()
    running = asyncio.create_task(dispatcher.run())
    for key in ("a1", "a2"):
        outbox.add(key)
        await until(lambda key=key: outbox.printed[-1:] == [key])  # type: ignore[misc]
    dispatcher.stop()
    await asyncio.wait_for(running, SECONDS)
    assert set(outbox.deliveries().values()) == {"sent"}


async def test_a_stopped_dispatcher_finishes_what_it_sends_and_claims_nothing_more(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1", "a2")
    release = threading.Event()
    receiver.answer = lambda _: HttpAnswer(204 if release.wait(SECONDS) else 500)
    dispatcher = outbox.dispatcher(outbox.webhook(receiver))
    running = asyncio.create_task(dispatcher.run())
    await until(lambda: receiver.keys == ["a1"])
    dispatcher.stop()
    release.set()
    await asyncio.wait_for(running, SECONDS)
    assert outbox.deliveries() == {"a1": "sent", "a2": "pending"}
    assert outbox.row("a2").claimed_until is None
    assert receiver.keys == ["a1"]


async def test_a_second_stop_cuts_short_and_releases(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1")
    release = threading.Event()
    receiver.answer = lambda _: HttpAnswer(204 if release.wait(SECONDS) else 500)
    dispatcher = outbox.dispatcher(outbox.webhook(receiver))
    running = asyncio.create_task(dispatcher.run())
    await until(lambda: receiver.keys == ["a1"])
    dispatcher.stop()
    dispatcher.stop()
    await asyncio.wait_for(running, SECONDS)
    release.set()
    row = outbox.row("a1")
    assert (row.delivery, row.claimed_until, row.attempts) == (Delivery.PENDING, None, 0)
    assert outbox.logged("delivery_cut_short") == [{"key": "a1", "log_level": "warning"}]
    assert outbox.logged("delivery") == []


async def test_what_is_claimed_while_the_dispatcher_stops_is_released(outbox: Outbox) -> None:
    class StoppingQueue(OutboxQueue):
        """Queue whose claim the signal to stop meets."""

        def claim(self, limit: int) -> list[Claim]:
            dispatcher.stop()
            return super().claim(limit)

    outbox.add("a1")
    routes = outbox.console(lambda message: outbox.printed.append(message.key))
    queue = StoppingQueue(outbox.database, routes, outbox.clock, Backoff())
    dispatcher = Dispatcher(queue)
    await dispatcher.run()
    assert outbox.printed == []
    assert outbox.row("a1").claimed_until is None


async def test_a_message_that_is_freed_during_a_claim_is_sent_too(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    claimed_in_vain = threading.Event()

    class SlowQueue(OutboxQueue):
        """Queue whose second claim ends after the first message is recorded."""

        def claim(self, limit: int) -> list[Claim]:
            claims = super().claim(limit)
            if not claims and not claimed_in_vain.is_set():
                claimed_in_vain.set()
                eventually(lambda: not dispatcher._running)
            return claims

    outbox.add("a1", "a2")
    receiver.answer = lambda _: HttpAnswer(204 if claimed_in_vain.wait(SECONDS) else 500)
    queue = SlowQueue(outbox.database, outbox.webhook(receiver), outbox.clock, Backoff())
    dispatcher = Dispatcher(queue, interval=0.1)
    await dispatcher.run(once=True)
    assert receiver.keys == ["a1", "a2"]


async def test_a_process_that_was_suspended_sends_nothing_under_an_old_lease(
    outbox: Outbox,
) -> None:
    outbox.add("a1")
    times = itertools.chain([outbox.clock.now], itertools.repeat(outbox.clock.now + timedelta(1)))
    queue = OutboxQueue(
        outbox.database,
        outbox.console(lambda message: outbox.printed.append(message.key)),
        lambda: next(times),
        Backoff(),
    )
    dispatcher = Dispatcher(queue)
    (late,) = queue.claim(1)
    await dispatcher._handle(late)
    assert outbox.printed == []
    await dispatcher.run(once=True)
    assert outbox.printed == ["a1"]


async def test_a_message_that_was_sent_but_not_recorded_is_sent_again_with_its_key(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1", "a2")
    routes = outbox.webhook(receiver)
    (lost,) = outbox.queue(routes).claim(1)
    await lost.transport.send(lost.message)
    await outbox.send_due(routes)
    assert receiver.keys == ["a1"]
    outbox.clock.forward(**AFTER_LEASE)
    await outbox.send_due(routes)
    assert receiver.keys == ["a1", "a1", "a2"]


async def test_a_database_that_is_away_is_waited_for(outbox: Outbox) -> None:
    def rename(old: str, new: str) -> None:
        with outbox.database.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    outbox.add("a1")
    rename("outbox", "away")
    try:
        with pytest.raises(DatabaseError):
            await outbox.send_due()
        dispatcher = outbox.dispatcher()
        running = asyncio.create_task(dispatcher.run())
        await until(lambda: outbox.logged("database_failed") != [])
        await asyncio.sleep(0.3)
    finally:
        rename("away", "outbox")
    await until(lambda: outbox.printed == ["a1"])
    dispatcher.stop()
    await asyncio.wait_for(running, SECONDS)
    (line,) = outbox.logged("database_failed")
    assert line["retry_seconds"] == 0.1
    assert "outbox" in line["reason"]


async def test_messages_that_no_transport_takes_are_reported_once(outbox: Outbox) -> None:
    outbox.add("phone", contact="+4915112345678")
    outbox.add("mail")
    route = mail_route(
        ConsoleTransport(lambda message: outbox.printed.append(message.key)),
        has_staff_address=False,
    )
    dispatcher = outbox.dispatcher([route])
    running = asyncio.create_task(dispatcher.run())
    await until(lambda: outbox.printed == ["mail"] and outbox.logged("no_transport") != [])
    outbox.add("mail 2")
    await until(lambda: outbox.printed == ["mail", "mail 2"])
    dispatcher.stop()
    await asyncio.wait_for(running, SECONDS)
    assert outbox.logged("no_transport") == [{"pending": 1, "log_level": "warning"}]
    assert outbox.row("phone").claimed_until is None


@pytest.mark.parametrize("interval", [0.0, 0.05, -1.0, 3601.0, float("nan"), float("inf")])
def test_an_interval_out_of_range_is_refused(outbox: Outbox, interval: float) -> None:
    with pytest.raises(InputError, match=r"interval is .* s, must be from 0\.1 to 3600"):
        outbox.dispatcher(interval=interval)

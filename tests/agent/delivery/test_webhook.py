"""Signed webhooks, to a receiver that verifies them."""

import base64
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook
from tests.support.certificates import AuthorityFiles
from tests.support.outbox import outgoing
from tests.support.waiting import until
from tests.support.webhook_receiver import (
    SECRET,
    HttpAnswer,
    WebhookReceiver,
    webhook_receiver,
)

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.delivery import webhook
from gpt2flow.agent.delivery.message import DeliveryError
from gpt2flow.agent.delivery.webhook import WebhookTransport

pytestmark = pytest.mark.process

SECRETS = [base64.b64decode(SECRET.removeprefix("whsec_"))]


def transport(url: str, secrets: list[bytes] = SECRETS) -> WebhookTransport:
    return WebhookTransport(httpx.URL(url), secrets, utc_now, direct=True)


async def refused(url: str) -> DeliveryError:
    sender = transport(url)
    with pytest.raises(DeliveryError) as raised:
        await sender.send(outgoing())
    await sender.close()
    return raised.value


async def test_a_receiver_verifies_the_signature_and_reads_the_message(
    receiver: WebhookReceiver,
) -> None:
    sender = transport(receiver.url)
    await sender.send(outgoing("s/m%20/1/0", text="你好, Ann"))
    await sender.close()
    (request,) = receiver.received
    assert request.key == "s/m%20/1/0"
    assert request.body == outgoing("s/m%20/1/0", text="你好, Ann").payload()
    assert request.headers["content-type"] == "application/json"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60


async def test_a_key_beyond_ascii_can_stand_in_the_header(receiver: WebhookReceiver) -> None:
    sender = transport(receiver.url)
    await sender.send(outgoing("会话 1/\r\nx"))
    await sender.close()
    assert receiver.keys == ["%E4%BC%9A%E8%AF%9D%201/%0D%0Ax"]
    assert receiver.received[0].body["data"]["key"] == "会话 1/\r\nx"


async def test_two_secrets_sign_for_receivers_of_either(receiver: WebhookReceiver) -> None:
    new = b"n" * 32
    sender = transport(receiver.url, [new, *SECRETS])
    await sender.send(outgoing())
    await sender.close()
    (request,) = receiver.received
    assert len(request.headers["webhook-signature"].split()) == 2
    assert Webhook(new).verify(request.content, request.headers) == request.body


async def test_connections_are_used_again(receiver: WebhookReceiver) -> None:
    receiver.answer = lambda _: HttpAnswer(200, body=b"x" * 1000)
    sender = transport(receiver.url)
    for number in range(3):
        await sender.send(outgoing(f"{number}"))
    connections = sender._client._transport._pool.connections  # type: ignore[attr-defined]
    assert len(connections) == 1
    await sender.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_answer_below_300_is_success(receiver: WebhookReceiver, status: int) -> None:
    receiver.answer = lambda _: HttpAnswer(status)
    sender = transport(receiver.url)
    await sender.send(outgoing())
    await sender.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422, 451])
async def test_a_refusal_is_permanent(receiver: WebhookReceiver, status: int) -> None:
    receiver.answer = lambda _: HttpAnswer(status, body=b"secret text of an error page")
    error = await refused(receiver.url)
    assert error.is_permanent
    assert str(error).startswith(f"127.0.0.1 answered {status}")
    assert "secret" not in str(error)


@pytest.mark.parametrize("status", [300, 304, 408, 409, 425, 429, 500, 502, 503, 504, 599])
async def test_an_overload_or_a_fault_is_temporary(receiver: WebhookReceiver, status: int) -> None:
    receiver.answer = lambda _: HttpAnswer(status)
    error = await refused(receiver.url)
    assert not error.is_permanent
    assert error.retry_after == 0


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("120", 120.0),
        ("0", 0.0),
        ("9" * 400, float("inf")),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("Wed, 04 Mar 2026 09:30:00 GMT", 0.0),
    ],
)
async def test_retry_after_is_read_in_seconds(
    receiver: WebhookReceiver, value: str, seconds: float
) -> None:
    receiver.answer = lambda _: HttpAnswer(503, {"retry-after": value})
    assert (await refused(receiver.url)).retry_after == seconds


async def test_retry_after_can_be_a_date(receiver: WebhookReceiver) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    receiver.answer = lambda _: HttpAnswer(429, {"retry-after": later})
    assert 3500 < (await refused(receiver.url)).retry_after <= 3600


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(receiver: WebhookReceiver, status: int) -> None:
    with webhook_receiver() as target:
        receiver.answer = lambda _: HttpAnswer(status, {"location": target.url})
        error = await refused(receiver.url)
        assert target.received == []
    assert not error.is_permanent
    assert str(error).endswith("redirects are not followed")


async def test_an_answer_without_end_is_cut_off(receiver: WebhookReceiver) -> None:
    receiver.answer = lambda _: HttpAnswer(200, body=b"x" * 50_000_000)
    sender = transport(receiver.url)
    await sender.send(outgoing())
    await until(lambda: receiver.cut_off == 1)
    await sender.close()


async def test_a_success_stays_one_if_its_body_never_comes(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "_MAX_BODY_SECONDS", 0.1)
    receiver.answer = lambda _: HttpAnswer(200, {"content-length": "10"})
    sender = transport(receiver.url)
    await sender.send(outgoing())
    await sender.close()


async def test_a_receiver_that_is_down_or_silent_is_a_temporary_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr(webhook, "_TIMEOUT_SECONDS", 0.1)
        error = await refused(url)
        assert str(error) == "127.0.0.1: ReadTimeout"
        assert not error.is_permanent
    error = await refused(url)
    assert str(error) == "127.0.0.1: ConnectError All connection attempts failed"
    assert not error.is_permanent


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = AuthorityFiles(tmp_path)
    pair = files.pair("hook")
    with webhook_receiver(pair) as receiver:
        assert "CERTIFICATE_VERIFY_FAILED" in str(await refused(receiver.url))
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
        sender = transport(receiver.url)
        await sender.send(outgoing())
        await sender.close()
        assert receiver.keys == ["k-1"]

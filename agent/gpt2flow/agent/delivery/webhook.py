"""Signed webhooks, as the Standard Webhooks specification describes them."""

import asyncio
import json
import math
import string
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from standardwebhooks import Webhook

from gpt2flow.agent.config import Clock
from gpt2flow.agent.delivery.message import DeliveryError, OutgoingMessage
from gpt2flow.agent.telemetry.spans import current_span

# Answers below 500 after which the same request may succeed later.
_TEMPORARY = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
_TIMEOUT_SECONDS = 10.0
# What is read of an answer, so that its connection serves the next message too.
_MAX_BODY_BYTES = 65_536
_MAX_BODY_SECONDS = 2.0


class WebhookTransport:
    """Sender of messages as signed HTTP requests.

    Args:
        url: Address of the receiver, https unless it is on this machine.
        secrets: Secrets to sign with, as random bytes; several while receivers change from one
            to another.
        clock: Source of the time in the signature.
        direct: Whether proxies of the environment are ignored.
    """

    name = "webhook"

    def __init__(
        self, url: httpx.URL, secrets: Sequence[bytes], clock: Clock, *, direct: bool = False
    ) -> None:
        self._url = url
        self._signers = [Webhook(secret) for secret in secrets]
        self._clock = clock
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT_SECONDS,
            verify=httpx.create_ssl_context(),
            trust_env=not direct,
            follow_redirects=False,
        )

    async def send(self, message: OutgoingMessage) -> None:
        """Send a message; any answer of 200 to 299 is success.

        Raises:
            DeliveryError: There was no answer, or another one.
        """
        body = json.dumps(message.payload(), ensure_ascii=False)
        try:
            async with self._client.stream(
                "POST", self._url, content=body.encode(), headers=self._headers(message, body)
            ) as response:
                await _read_start(response)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise DeliveryError(f"{self._url.host}: {reason}") from error
        if not response.is_success:
            raise self._refusal(response)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    def _headers(self, message: OutgoingMessage, body: str) -> dict[str, str]:
        now = self._clock().astimezone(UTC)
        webhook_id = header_id(message.key)
        return {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "gpt2flow",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(math.floor(now.timestamp())),
            "webhook-signature": " ".join(
                signer.sign(webhook_id, now, body) for signer in self._signers
            ),
            # A dispatcher without traces passes on the span that wrote the message.
            **({"traceparent": trace} if (trace := current_span() or message.trace) else {}),
        }

    def _refusal(self, response: httpx.Response) -> DeliveryError:
        status = response.status_code
        hint = ", and redirects are not followed" if response.is_redirect else ""
        return DeliveryError(
            f"{self._url.host} answered {status} {response.reason_phrase}{hint}",
            is_permanent=response.is_client_error and status not in _TEMPORARY,
            retry_after=_retry_after(response.headers, self._clock()),
        )


def header_id(key: str) -> str:
    """Return a key with all characters beyond visible ASCII percent-encoded."""
    return quote(key, safe=string.punctuation)


async def _read_start(response: httpx.Response) -> None:
    """Read a body of ordinary size; errors are ignored.

    The status has decided already.
    """
    size = 0
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(_MAX_BODY_SECONDS):
            async for part in response.aiter_raw():
                size += len(part)
                if size > _MAX_BODY_BYTES:
                    return


def _retry_after(headers: Any, now: datetime) -> float:
    """Return the seconds of `Retry-After`; 0 if there is none."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        # A number of many digits becomes infinite, which the caller bounds.
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())

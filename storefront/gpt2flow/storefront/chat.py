"""Messages of the chat box, sent to the agent's HTTP endpoint."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import structlog
from standardwebhooks import Webhook

from gpt2flow.agent.net.addresses import parse_url
from gpt2flow.agent.net.secrets import parse_webhook_secrets, read_secret

_PATH: Final = "/v1/messages"
_OPTION: Final = "--agent-secret-file"
_CONNECT_SECONDS: Final = 5.0


class AgentAwayError(Exception):
    """Agent that did not answer a message in time."""


class AgentChat:
    """Connection to the agent's HTTP endpoint.

    Args:
        url: URL of the endpoint: https, or http on this machine.
        secret_file: File of the secret that signs requests; None signs none.
        seconds: Longest time for an answer.

    Raises:
        InputError: The URL or the file is invalid.
    """

    def __init__(self, url: str, secret_file: Path | None, seconds: float) -> None:
        self._url = str(parse_url(url, "agent")).rstrip("/") + _PATH
        self._webhook = None if secret_file is None else Webhook(_first_secret(secret_file))
        self._timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)

    async def send(self, session: str, message_id: str, text: str) -> None:
        """Send a message of a customer, and wait for its turn.

        The same id makes one turn, however often it is sent.

        Args:
            session: Id of the conversation.
            message_id: Id of the message within its session.
            text: Message as typed.

        Raises:
            AgentAwayError: The agent did not take the message, or gave no answer in time.
        """
        content = {"session": session, "text": text, "id": message_id, "channel": "web"}
        body = json.dumps(content, ensure_ascii=False)
        headers = {"content-type": "application/json"} | self._signature(message_id, body)
        try:
            async with httpx.AsyncClient(timeout=self._timeout, trust_env=False) as client:
                answer = await client.post(self._url, content=body.encode(), headers=headers)
                answer.raise_for_status()
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            structlog.get_logger().warning("agent_away", reason=reason)
            raise AgentAwayError(reason) from error

    def _signature(self, message_id: str, body: str) -> dict[str, str]:
        if self._webhook is None:
            return {}
        now = datetime.now(UTC)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body),
        }


def _first_secret(path: Path) -> bytes:
    """Return the first secret of a file; the others are older ones."""
    return parse_webhook_secrets(read_secret(_OPTION, path), f"{_OPTION} {path}")[0]

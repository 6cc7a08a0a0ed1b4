"""Ways in which pages change on purpose, for rehearsals and tests."""

import asyncio
from collections import Counter as Counted
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2flow.storefront.config import StorefrontConfig

# Keys of labels that change, by the key that a page names.
_RENAMED: Final = {"place_order": "place_order_renamed", "add_to_cart": "add_to_cart_renamed"}
# One of so many forms is answered late.
_SLOW: Final = 3
# Requests after which an operator's session ends.
_ENDING: Final = 5


class Disturber:
    """Ways in which the pages of one process change.

    Threads do not share an instance: it belongs to the event loop.

    Args:
        config: Settings of the storefront.
    """

    def __init__(self, config: StorefrontConfig) -> None:
        self._config = config
        self._requests: Counted[str] = Counted()

    def label(self, key: str) -> str:
        """Return the key of a label, which may be another one today."""
        return _RENAMED.get(key, key) if "renamed-label" in self._config.disturb else key

    @property
    def asks_more(self) -> bool:
        """Whether the checkout has one more question, which has to be answered."""
        return "extra-question" in self._config.disturb

    def ends_session(self, session_id: str) -> bool:
        """Count an operator's request; return whether it is the last."""
        if "ended-session" not in self._config.disturb:
            return False
        self._requests[session_id] += 1
        return self._requests[session_id] % _ENDING == 0


class SlowPages:
    """ASGI middleware that answers some forms late, after they have acted.

    Args:
        app: Application behind it.
        seconds: Delay of these answers.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        self._forms = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_form = scope["type"] == "http" and scope["method"] == "POST"
        self._forms += is_form
        if not is_form or self._forms % _SLOW:
            await self._app(scope, receive, send)
            return

        async def send_late(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(self._seconds)
            await send(message)

        await self._app(scope, receive, send_late)

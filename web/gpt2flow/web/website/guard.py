"""Checks before a request, and the headers of every answer."""

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2flow.web.addresses import is_loopback
from gpt2flow.web.website.config import WebsiteConfig

_SAFE: Final = frozenset({"GET", "HEAD"})
# Everything comes from the website itself, and nobody may frame it.
_POLICY: Final = "; ".join(
    [
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:"),
        *("connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
    ]
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Browsers leave plain HTTP alone for a year once they have seen TLS.
_STRICT_TRANSPORT: Final = "max-age=31536000"


class Guard:
    """ASGI middleware that refuses foreign hosts and cross-site writes.

    Args:
        app: Application behind it.
        config: Settings of the website.
    """

    def __init__(self, app: ASGIApp, config: WebsiteConfig) -> None:
        self._app = app
        self._hosts = {host.strip("[]").lower() for host in config.allowed_hosts}
        self._headers = dict(_HEADERS)
        if config.is_https:
            self._headers["Strict-Transport-Security"] = _STRICT_TRANSPORT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], Headers(scope=scope))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                # Pages have customers' data; a file names its own rule.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        app = self._app if refusal is None else PlainTextResponse(refusal, 403)
        await app(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        """Return why a request is refused; None if it is not."""
        host = headers.get("host", "")
        name = _host_name(host)
        if not (is_loopback(name) or name in self._hosts):
            # A page of another host could otherwise reach the website through a name that
            # resolves to 127.0.0.1.
            return f"host is {name!r}, must be localhost, or a name given by --allowed-host\n"
        if method in _SAFE:
            return None
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if is_foreign or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "the request is another site's\n"
        return None


def _host_name(host: str) -> str:
    """Return the name or address in a `Host` header, without port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""

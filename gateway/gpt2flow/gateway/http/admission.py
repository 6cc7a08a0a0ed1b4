"""Admission of a request: host, key, body."""

import re
import uuid
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from gpt2flow.client.call import Metadata
from gpt2flow.gateway.config import GatewayConfig
from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.http.backend import CALLER
from gpt2flow.web.addresses import is_loopback
from gpt2flow.web.asgi import BodyTooLargeError, read_body

# Key of the id in the scope of a request.
REQUEST_ID: Final = "gateway.request_id"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Fields of https://www.w3.org/TR/trace-context/, which the server's spans continue.
_TRACE: Final = ("traceparent", "tracestate")
_BEARER: Final = "bearer"
# What is left of a body is not read.
_CLOSE: Final = {"Connection": "close"}


class Admission:
    """Checks of a request before its fields are read.

    Args:
        config: Settings of the gateway.
        is_local: Whether the gateway listens on a loopback address.
    """

    def __init__(self, config: GatewayConfig, *, is_local: bool) -> None:
        self._config = config
        self._is_local = is_local
        self._hosts = {host.strip("[]").lower() for host in config.allowed_hosts}

    def admit(self, request: Request) -> None:
        """Check host and key, and make its caller that of its calls.

        Raises:
            ApiError: The request is refused.
        """
        self._check_host(request)
        CALLER.set(_caller(request))

    async def body(self, request: Request) -> bytes:
        """Return the body of a request.

        Raises:
            ApiError: It is no JSON by its type, too large, or too slow.
        """
        given = request.headers.get("content-type", "")
        # A page in a browser may send no JSON to another host without asking that host first.
        if given.partition(";")[0].strip().lower() != "application/json":
            raise _refusal(415, "content-type", f"is {given!r}, must be application/json", {})
        limit, seconds = self._config.max_body_bytes, self._config.body_seconds
        try:
            return await read_body(request, limit, seconds)
        except BodyTooLargeError as error:
            raise _refusal(413, "body", f"has more than {limit:,} bytes, the limit") from error
        except TimeoutError as error:
            raise _refusal(408, "body", f"did not arrive within {seconds:g} s") from error

    def _check_host(self, request: Request) -> None:
        host = request.url.hostname or ""
        if self._is_local and not (is_loopback(host) or host in self._hosts):
            # A page in a browser of this machine could otherwise reach the gateway through a name
            # of its own that resolves to 127.0.0.1.
            raise _refusal(
                421,
                "host",
                f"is {host!r}, must be localhost, or a name given by --allowed-host",
                {},
            )


def _refusal(
    status: int, param: str, message: str, headers: Mapping[str, str] = _CLOSE
) -> ApiError:
    return ApiError(status, f"{param} {message}", param=param, headers=headers)


def request_id(request: Request) -> str:
    """Return the id of a request."""
    given: str = request.scope[REQUEST_ID]
    return given


def new_request_id(scope: Scope) -> str:
    """Return the id that a request brings, or a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _caller(request: Request) -> Metadata:
    """Return what the calls of a request have besides their message."""
    headers = request.headers
    metadata = tuple(
        (name, headers[name]) for name in _TRACE if _is_printable(headers.get(name, ""))
    )
    scheme, _, key = headers.get("authorization", _BEARER).strip().partition(" ")
    if scheme.lower() == _BEARER and not key:
        # Some clients send the header without a key, if they have none.
        return metadata
    if scheme.lower() != _BEARER or not _is_printable(key) or " " in key:
        raise ApiError(
            401,
            "the header must be 'Authorization: Bearer KEY', and KEY printable ASCII",
            param="authorization",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return (*metadata, ("authorization", f"Bearer {key}"))


def _is_printable(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()

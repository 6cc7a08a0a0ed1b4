"""Counts what callers have unfinished, from before their requests are read to their end."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from gpt2flow.server.permissions import UnfinishedRequests
from gpt2flow.server.servicer.callers import caller_of
from gpt2flow.server.servicer.status import Context


class _Counting(Protocol):
    unfinished: UnfinishedRequests


_Servicer = TypeVar("_Servicer", bound=_Counting)
_Response = TypeVar("_Response")
_Method = Callable[[_Servicer, Any, Context], Awaitable[_Response]]


def counts_requests(method: _Method[_Servicer, _Response]) -> _Method[_Servicer, _Response]:
    """Makes a method of the servicer one that a caller may have unfinished only so often.

    Each prompt of a message counts.
    """

    @functools.wraps(method)
    async def counting(servicer: _Servicer, request: Any, context: Context) -> _Response:
        count = max(len(getattr(request, "prompts", ())), 1)
        with servicer.unfinished.hold(caller_of(context), count):
            return await method(servicer, request, context)

    return counting

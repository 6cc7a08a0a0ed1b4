"""Tells who sends a request."""

from contextvars import ContextVar

from gpt2flow.server.caller import Caller
from gpt2flow.server.servicer.status import Context

# Set for one call by the interceptor that checks credentials.
AUTHENTICATED: ContextVar[Caller | None] = ContextVar("authenticated", default=None)


def caller_of(context: Context) -> Caller:
    """Returns who sends this request: whom its credentials name, else the connection's peer."""
    return AUTHENTICATED.get() or Caller(context.peer())

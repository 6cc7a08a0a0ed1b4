"""Exceptions of the agent, one class per cause."""

from typing import ClassVar


class AgentError(Exception):
    """Base class of all agent errors; the message is a single line.

    Attributes:
        result: Result of a turn that ends with the error, in log, metrics and traces.
    """

    result: ClassVar[str] = "internal_error"


class InputError(AgentError):
    """Invalid input from the user; nothing was changed."""

    result = "invalid"


class FlowError(InputError):
    """Invalid flow file; the message names the file and the field."""


class UnknownModelError(InputError):
    """Model name that the server does not serve."""

    # A mistake of the operator, and none of the customer.
    result = "model_error"


class MessageIdError(InputError):
    """Message id that was already used for another message."""

    result = "conflict"


class UnanswerableError(InputError):
    """Message that the model cannot read, or answer within its context."""

    result = "unanswerable"


class ModelError(AgentError):
    """Failed model call, or an action that the flows do not allow."""

    result = "model_error"


class ModelUnavailableError(ModelError):
    """Model server that does not answer for now.

    A later call may succeed.
    """


class DatabaseError(AgentError):
    """Database that cannot be opened, read or written."""

    result = "database_error"

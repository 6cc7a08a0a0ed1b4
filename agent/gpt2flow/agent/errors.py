"""Exceptions of the agent, one class per cause."""


class AgentError(Exception):
    """Base class of all agent errors; the message is a single line."""


class InputError(AgentError):
    """Invalid input from the user; nothing was changed."""


class FlowError(InputError):
    """Invalid flow file; the message names the file and the field."""


class UnknownModelError(InputError):
    """Model name that the server does not serve."""


class MessageIdError(InputError):
    """Message id that was already used for another message."""


class UnanswerableError(InputError):
    """Message that the model cannot read, or answer within its context."""


class ModelError(AgentError):
    """Failed model call, or an action that the flows do not allow."""


class ModelUnavailableError(ModelError):
    """Model server that does not answer for now; a later call may succeed."""


class DatabaseError(AgentError):
    """Database that cannot be opened, read or written."""

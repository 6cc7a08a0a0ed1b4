"""What can go wrong in the agent, one class a cause."""


class AgentError(Exception):
    """Base of every error of the agent; its text is one line for a person."""


class InputError(AgentError):
    """Something that the user gave is not usable; nothing was changed."""


class FlowError(InputError):
    """A flow file is not valid; the text names the file and the field."""


class UnknownModelError(InputError):
    """The server has no model of that name."""


class MessageIdError(InputError):
    """The id of a message was used already, for another message."""


class UnanswerableError(InputError):
    """The model cannot read the message, or cannot finish its answer to it."""


class ModelError(AgentError):
    """The model could not be asked, or chose what is not allowed."""


class DatabaseError(AgentError):
    """The database cannot be opened, read or written."""

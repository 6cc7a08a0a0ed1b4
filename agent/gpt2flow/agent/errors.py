"""What can go wrong in the agent, one class a cause."""


class AgentError(Exception):
    """Base of every error of the agent; its text is one line for a person."""


class InputError(AgentError):
    """Something that the user gave is not usable; nothing was changed."""


class FlowError(InputError):
    """A flow file is not valid; the text names the file and the field."""

"""The load generator behind `gpt2flow bench`: what is sent, when, and what came of it."""


class LoadError(ValueError):
    """A description of load that cannot be used; the message says what is allowed."""

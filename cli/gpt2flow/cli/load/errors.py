"""What can be wrong with a description of load."""


class LoadError(ValueError):
    """A description of load that cannot be used; the message says what is allowed."""

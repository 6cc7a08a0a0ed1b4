"""Load generator of `gpt2flow bench`."""


class LoadError(ValueError):
    """Invalid description of a load; the message states the valid values."""

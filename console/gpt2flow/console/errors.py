"""Errors of the console at its start."""

from gpt2flow.agent.errors import InputError


class ConsoleConfigError(InputError):
    """Setting that is invalid; the message names it."""

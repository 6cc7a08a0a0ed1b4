"""How a command ends: exit codes, and one line for each error.

0 is success, 1 a failure, 2 bad input.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    FAILURE = 1
    BAD_INPUT = 2
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with one line on stderr and an exit code."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


_Errors = type[Exception] | tuple[type[Exception], ...]


@contextmanager
def reported(*, bad_input: _Errors = (), failure: _Errors = ()) -> Iterator[None]:
    """Turns the typed errors of a component into how the command ends."""
    try:
        yield
    except bad_input as error:
        raise CommandError(str(error), Exit.BAD_INPUT) from error
    except failure as error:
        raise CommandError(str(error), Exit.FAILURE) from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around a component's imports: says which extra brings a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(
            f"this command needs the package {error.name!r}: pip install 'gpt2flow[{extra}]'",
            Exit.FAILURE,
        ) from error

"""Exit codes and error reporting of all commands.

A command exits with 0 on success, 1 on failure, 2 on bad input and 130 on Ctrl-C. Every error
is one line on stderr.
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
    """Error that ends a command with a one-line message and exit code."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


_Errors = type[Exception] | tuple[type[Exception], ...]


@contextmanager
def reported(*, bad_input: _Errors = (), failure: _Errors = ()) -> Iterator[None]:
    """Convert a component's errors within the block into command errors.

    Args:
        bad_input: Errors that exit with code 2.
        failure: Errors that exit with code 1.

    Raises:
        CommandError: The block raised one of these errors.
    """
    try:
        yield
    except bad_input as error:
        raise CommandError(str(error), Exit.BAD_INPUT) from error
    except failure as error:
        raise CommandError(str(error), Exit.FAILURE) from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Report a missing package of the block's imports and its extra.

    Args:
        extra: Name of the pip extra that contains the component's packages.

    Raises:
        CommandError: An import of the block failed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(
            f"this command needs the package {error.name!r}: pip install 'gpt2flow[{extra}]'",
            Exit.FAILURE,
        ) from error

"""Where errors come from, without what they say.

The message of an error may quote a prompt, a stop string or a grammar, and the log holds
no text of requests. Kinds of errors and lines of code are enough to find a defect.
"""

import traceback
from typing import TextIO

from structlog.typing import ExcInfo


def format_traceback(error: BaseException) -> str:
    """Returns the calls that led to an error and to its causes, the last one at the end."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        hidden = cause.__suppress_context__
        cause = cause.__cause__ or (None if hidden else cause.__context__)
    return "\nled to:\n".join(
        "".join(traceback.format_tb(each.__traceback__)) + type(each).__qualname__
        for each in reversed(causes)
    )


def format_exc_info(exc_info: ExcInfo) -> str:
    """Does so for structlog's lines of JSON."""
    return format_traceback(exc_info[1])


def write_exc_info(stream: TextIO, exc_info: ExcInfo) -> None:
    """Does so for structlog's lines for people."""
    stream.write(format_exc_info(exc_info))


def without_messages(text: str, error: BaseException) -> str:
    """Returns a text without what an error says, where a library has put it in there."""
    for said in (repr(error), str(error)):
        text = text.replace(said, type(error).__qualname__) if said else text
    return text

"""Log on standard error: one line per event."""

from contextlib import AbstractContextManager

from gpt2flow.web import log
from gpt2flow.web.log import LogFormat


def logging_to_stderr(log_format: LogFormat) -> AbstractContextManager[None]:
    """Send the log of this process and its libraries to standard error.

    Args:
        log_format: `json` for one object a line, `console` for people.
    """
    # DBOS adds a handler of its own, with texts of errors, to a logger without one.
    return log.logging_to_stderr(log_format, adopted=("dbos",))

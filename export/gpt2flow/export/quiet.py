"""Keeps libraries from writing to the terminal while they do the export's work."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOGGERS: Final = ("optimum", "torch", "transformers")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences warnings, and all but errors of the loggers of torch, transformers and Optimum.

    Tracing a model warns about every Python branch it passes, which says nothing to a user: the
    outcome is verified. What was set before is restored.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

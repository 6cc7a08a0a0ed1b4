"""Errors of training, one class per cause."""


class TrainingError(Exception):
    """Base class of training errors, each with a one-line message."""


class CorpusError(TrainingError):
    """Unusable corpus.

    The message names the file, or states what the corpus lacks.
    """


class ConfigError(TrainingError):
    """Invalid training configuration; the message names the field and its value."""


class OutputError(TrainingError):
    """Unusable output directory; the message names it."""

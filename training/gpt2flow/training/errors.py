"""What can go wrong in training, one class a cause."""


class TrainingError(Exception):
    """Base of every error of training; its text is one line for a person."""


class CorpusError(TrainingError):
    """The corpus cannot be used; the text names the file, or what is missing from it."""


class ConfigError(TrainingError):
    """The training configuration is not usable; the text names the field and its value."""


class OutputError(TrainingError):
    """The output directory cannot be used; the text names it."""

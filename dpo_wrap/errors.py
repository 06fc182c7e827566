"""The errors that end a dpo_wrap command, each with its exit status."""


def one_line(error: Exception) -> str:
    """A library's message on one line."""
    return " ".join(str(error).split()).rstrip(".:") or type(error).__name__


class DpoWrapError(Exception):
    """A command cannot continue; the message says what happened, where, and how to fix it."""

    status = 1
    common = True
    """Whether every process of a run raises it, so that only one prints it."""


class ConfigError(DpoWrapError):
    """The config was refused."""

    status = 2


class DataError(DpoWrapError):
    """The data was refused."""

    status = 2


class ModelError(DpoWrapError):
    """The model's files were refused."""

    status = 2


class StoppedError(DpoWrapError):
    """All processes of the run stopped, because of a signal or a failed process."""


class RunError(DpoWrapError):
    """The run failed after it had started, perhaps in this process only."""

    common = False

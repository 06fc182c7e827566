"""The errors that end a dpo_wrap command, each with its exit status."""


def one_line(error: Exception) -> str:
    """What a library's exception says, without its further lines."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return text.strip().rstrip(".:") or type(error).__name__


class DpoWrapError(Exception):
    """A command cannot go on; the message says what, where and the mend."""

    status = 1
    common = True
    """Whether every process of a run raises it, so that one of them says it for all."""


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
    """The run was stopped in all its processes, by a signal or by one of them that failed."""


class RunError(DpoWrapError):
    """The run failed after it had been accepted, perhaps in this process alone."""

    common = False

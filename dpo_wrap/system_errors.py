"""Errors of the machine (memory, disk space, access rights) as one line with the fix."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import datasets
from safetensors import SafetensorError
from torch.distributed import DistError
from transformers.utils import logging as transformers_logging

from dpo_wrap.diagnostics.memory import is_out_of_memory
from dpo_wrap.errors import RunError, StoppedError, one_line

# Warnings of one library about another, (module, message), that no key of a config can avoid.
IGNORED_WARNINGS = (
    (r"transformers\.", r".*gradient_checkpointing"),
    (r"torch\.utils\.data", r".*pin_memory"),
)


@contextlib.contextmanager
def system_errors_reported(
    directory: Path, retry: str, less_memory: str = "a smaller batch"
) -> Iterator[None]:
    """Raise RunError, or StoppedError for a lost process, instead of an error of the machine.

    `directory` is named where the error names no file; `retry` completes "fix that, and ..." with
    what the same command then does; `less_memory` completes "use ..." after out of memory.
    Progress bars and warnings that are of no use to the user are switched off.
    """
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module, message in IGNORED_WARNINGS:
                warnings.filterwarnings("ignore", message, module=module)
            yield
    except (OSError, SafetensorError) as error:
        where = getattr(error, "filename", None) or directory
        text = getattr(error, "strerror", None) or one_line(error)
        raise RunError(f"{where}: {text}; fix that, and {retry}") from None
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise RunError(f"out of memory ({one_line(error)}); use {less_memory}") from None
        if isinstance(error, DistError) or "gloo" in str(error):
            raise StoppedError(f"another process of this run has ended; {retry}") from None
        # torch.save reports a full disk by the name of its zip writer.
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise RunError(
            f"{directory}: a checkpoint was written only in part; free disk space, and {retry}"
        ) from None

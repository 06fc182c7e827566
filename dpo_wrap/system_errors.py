"""What the machine lacks in one line, and what the libraries say among themselves in none."""

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

# What the libraries warn each other of, and no key of a config could change.
LIBRARIES_AMONG_THEMSELVES = (
    (r"transformers\.", r".*gradient_checkpointing"),
    (r"torch\.utils\.data", r".*pin_memory"),
)


@contextlib.contextmanager
def system_errors_reported(out: Path, then: str, less: str = "a smaller batch") -> Iterator[None]:
    """Turn what the machine lacks (memory, space, rights) into one line with its mend.

    `out` is the directory that is read and written, `then` what the same command does afterwards,
    `less` what takes less memory.
    """
    _quiet()
    try:
        with warnings.catch_warnings():
            for module, words in LIBRARIES_AMONG_THEMSELVES:
                warnings.filterwarnings("ignore", words, module=module)
            yield
    except (OSError, SafetensorError) as error:
        where = getattr(error, "filename", None) or out
        text = getattr(error, "strerror", None) or one_line(error)
        raise RunError(f"{where}: {text}; mend that, and {then}") from None
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise RunError(f"out of memory ({one_line(error)}); take {less}") from None
        if isinstance(error, DistError) or "gloo" in str(error):
            raise StoppedError(f"another process of this run has ended; {then}") from None
        # How torch.save says that the disk is full.
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise RunError(
            f"{out}: a checkpoint could not be written whole; free some space, and {then}"
        ) from None


def _quiet() -> None:
    """Bars are for terminals, and what the libraries log below an error is said here in lines."""
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

"""What the machine lacks in one line, and what the libraries say among themselves in none."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import datasets
import torch
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from dpo_wrap.errors import ConfigError, RunError, one_line

# What the libraries warn each other of, and no key of a config could change.
LIBRARIES_AMONG_THEMSELVES = (
    (r"transformers\.", r".*gradient_checkpointing"),
    (r"torch\.utils\.data", r".*pin_memory"),
)


@contextlib.contextmanager
def faults_named(out: Path, then: str) -> Iterator[None]:
    """Turn what the machine lacks (memory, space, rights) into one line with its mend.

    `out` is the directory that is read and written, `then` what the same command does afterwards.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"output_dir {out} is a file; name a directory")
    _quiet()
    try:
        with warnings.catch_warnings():
            for module, words in LIBRARIES_AMONG_THEMSELVES:
                warnings.filterwarnings("ignore", words, module=module)
            yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"out of memory ({one_line(error)}); lower batch_size and raise "
            "gradient_accumulation_steps by as much, then lower max_length, then load_in_4bit"
        ) from None
    except (OSError, SafetensorError) as error:
        where = getattr(error, "filename", None) or out
        text = getattr(error, "strerror", None) or one_line(error)
        raise RunError(f"{where}: {text}; mend that, and {then}") from None
    except RuntimeError as error:
        # How torch.save says that the disk is full.
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise RunError(f"{out}: cannot be written ({one_line(error)}); free some space") from None


def _quiet() -> None:
    """Bars are for terminals, and what the libraries log below an error is said here in lines."""
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

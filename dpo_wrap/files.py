"""Atomic writes, and temporary directories that carry this program's marker."""

import os
import shutil
from pathlib import Path

from dpo_wrap.errors import ConfigError

OWN = ".dpo_wrap"
"""Marker file of a directory that this program made and may delete."""


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a file that is either complete or absent, even after a power cut."""
    # With the process id, so that no two processes write the same file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def make_own(folder: Path) -> None:
    """Make the directory with the marker; `clear_own` deletes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OWN).touch()


def clear_own(folder: Path) -> None:
    """Delete a directory that `make_own` made. Raises ConfigError for any other of that name."""
    if (folder / OWN).is_file():
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists() or folder.is_symlink():
        raise ConfigError(
            f"{folder}: needed as a temporary directory, but not made by this program; move it"
        )


def path_problem(text: str) -> str | None:
    """Why a text cannot be a path, or None."""
    try:
        os.stat(Path(text).expanduser())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError, ValueError) as error:  # too long, ~nobody, a NUL
        return f"{text[:80]!r} is not a usable path: {getattr(error, 'strerror', None) or error}"
    return None

"""Files that are there whole or not at all, and folders aside that are known as this program's."""

import os
import shutil
from pathlib import Path

from dpo_wrap.errors import ConfigError

OWN = ".dpo_wrap"
"""A file that tells a folder of this program's from anybody else's of that name."""


def write_atomically(path: Path, text: str | bytes) -> None:
    """The file is there whole or not at all, also after a power cut."""
    # Named for this process, so that it is nobody else's file.
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
    """Make the folder, marked as this program's; `clear_own` removes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OWN).touch()


def clear_own(folder: Path) -> None:
    """Remove what an earlier run left aside. Raises ConfigError for a folder of somebody else's."""
    if (folder / OWN).is_file():
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder}: stands where this command works aside; move it away")

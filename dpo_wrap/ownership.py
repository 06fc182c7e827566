"""What a run directory belongs to: the marker of a run, and the lock of the process that uses it.

A directory is a run's only by the first line of its config. Nothing in another directory is
overwritten or deleted, and while a command writes to a run, other commands are refused.
"""

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from dpo_wrap.errors import ConfigError
from dpo_wrap.files import OWN

CONFIG = "config.resolved.yaml"
"""The first file of a run."""
MARKER = "# Written by dpo_wrap.train. This line marks the directory as a run's; keep it.\n"
"""The first line of CONFIG."""
# What else a run writes into output_dir and later ones replace or delete; not its raw data's
# conversion, which data.splits writes.
WRITTEN = re.compile(
    r"(run|config|generation_config|adapter_config)\.json|config\.resolved\.yaml|metrics\.jsonl"
    r"|report\.html|README\.md|checkpoint-\d+|reference-(train|eval)\.safetensors"
    r"|(adapter_model|model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
    r"|(tokenizer(_config)?|special_tokens_map|added_tokens|chat_template|vocab|merges)\..*"
)


LOCK_TEXT = re.compile(rb"\Z|\d+ \(python -m dpo_wrap\.")
"""What the file of a lock begins with."""


def is_run(directory: Path) -> bool:
    """Whether the directory is a run's, which must not be overwritten."""
    try:
        with (directory / CONFIG).open(encoding="utf-8") as file:
            return file.readline() == MARKER
    except (OSError, ValueError):
        return False


def is_written(path: Path) -> bool:
    """Whether a run writes what is at this path relative to its directory."""
    return WRITTEN.fullmatch(path.parts[0]) is not None


def check_own(directory: Path, place: str) -> None:
    """Raise ConfigError if a run there would replace or delete what no run wrote."""
    part = directory.with_name(f"{directory.name}.part-data")
    if part.exists() and not (part / OWN).is_file():
        raise ConfigError(f"{place}: {part} is needed as a temporary directory; move it")
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    foreign = [path for path in found if is_written(path.relative_to(directory))]
    if is_run(directory):
        # Without the marker of its own a checkpoint was put there.
        foreign = [path for path in foreign if path.is_dir() and not (path / OWN).is_file()]
    if foreign:
        names = ", ".join(path.name for path in foreign)
        raise ConfigError(
            f"{place}: {directory} holds {names}, which no run wrote and training would replace "
            "or delete; name another directory, or move them"
        )


@contextlib.contextmanager
def locked(directory: Path, command: str, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a run directory for the command; `shared` if it only reads.

    The lock is on the file OUTPUT_DIR.lock, because the directory itself may be renamed. The kernel
    releases it when the process ends, however that happens.

    Raises ConfigError, which names the process that holds it. Under a launcher the first process
    holds it for all. A reader without write access holds it only if the file exists.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    target = directory.expanduser().resolve()
    path = target.with_name(f"{target.name}.lock")
    handle = _acquire(path, directory, shared)
    if handle is None:
        yield
        return
    try:
        if not shared:
            text = f"{os.getpid()} (python -m dpo_wrap.{command}) on {socket.gethostname()}"
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)
        yield
    finally:
        # While the lock is held, so that the file that is removed is the one that was locked. A
        # reader leaves it to the others.
        if not shared:
            path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, directory: Path, shared: bool) -> int | None:
    """The locked file, or None for a reader where there is none."""
    while True:
        if path.is_dir():
            raise ConfigError(f"{path}: a directory, needed for the lock of the run; move it")
        try:
            if shared:
                handle = os.open(path, os.O_RDONLY)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 1000, 0).decode("utf-8", "replace") or "of another command"
            os.close(handle)
            raise ConfigError(
                f"{directory} is in use by process {holder}; wait until it ends, or stop it"
            ) from None
        # A lock that was left is empty or has a process.
        if not LOCK_TEXT.match(os.pread(handle, 1000, 0)):
            os.close(handle)
            raise ConfigError(f"{path}: needed for the lock of the run, but it is yours; move it")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # its last holder removed the file in between

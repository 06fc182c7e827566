"""Where the dataset goes: what may be replaced there, and how it is moved into place as a whole."""

import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from uuid import uuid4

from data_tools import readers
from data_tools.record import ConvertError

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the signals that stop the command
WORK = "work"  # the folder in an unfinished dataset for what only the run needs
_OWN_FILES = re.compile(
    r"(train|test)(-\d{5,}-of-\d{5,})?(\.parquet|\.jsonl)?"
    r"|dataset_(dict|info)\.json|rejects\.jsonl|report\.json|README\.md"
)


def choose(output: str | None, inputs: Sequence[str], files: Sequence[str]) -> str:
    """The directory to write. Raises ConvertError (status 2) where it cannot be replaced."""
    name = "stdin" if inputs[0] == readers.STDIN else readers.stem_of(inputs[0])
    target = os.path.normpath(output or os.path.join("data", name))
    real = os.path.realpath(target)
    for path in (*inputs, *files):
        source = os.path.realpath(path)
        if path != readers.STDIN and (source == real or source.startswith(real + os.sep)):
            raise ConvertError(
                f"{target}: the input {path} is there; name another output directory with -o"
            )
    _refuse_foreign(target)
    rejects = rejects_next_to(target)
    if os.path.lexists(rejects) and not _has_keys(rejects, "file record reason detail", line=True):
        raise ConvertError(
            f"{rejects}: exists and was not written by this command, which keeps rejects there "
            "when no pair is kept; move it or choose another directory with -o"
        )
    return target


def rejects_next_to(target: str) -> str:
    """Where the rejects go when there is no dataset to hold them."""
    return f"{target}.rejects.jsonl"


def _refuse_foreign(target: str) -> None:
    """Raise ConvertError unless the target is absent, empty or a dataset of this command."""
    if not os.path.lexists(target):
        return
    if not os.path.isdir(target) or os.path.islink(target):
        what = "a symbolic link" if os.path.islink(target) else "no directory"
        raise ConvertError(f"{target}: exists and is {what}; choose another directory with -o")
    names, report = os.listdir(target), os.path.join(target, "report.json")
    foreign = sorted(name for name in names if not _OWN_FILES.fullmatch(name))
    if foreign or (names and not _has_keys(report, "records pairs splits evidence")):
        what = f"it holds {foreign[0]}" if foreign else "it was not written by this command"
        raise ConvertError(
            f"{target}: exists, and {what}; it is not replaced, choose another directory with -o"
        )


def _has_keys(path: str, keys: str, line: bool = False) -> bool:
    """Whether a JSON file, or the first line of JSON Lines if there is any, has these keys."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.readline() if line else file.read()
        return (line and not text) or json.loads(text).keys() >= {*keys.split()}
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def temporary(target: str) -> Iterator[str]:
    """A new directory `TARGET.part-*`, removed again unless it was moved into place.

    It is locked while this process lives, so that another run can recognise one left by a run
    that was killed; such ones are removed first.
    """
    _clean_up(target)
    part = f"{os.path.abspath(target)}.part-{uuid4().hex}"
    os.makedirs(part)
    lock = os.open(part, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)


def move_into_place(part: str, target: str) -> None:
    """Replace `target` by `part`, and remove the rejects of an earlier run that kept no pair.

    From here on it is too late to stop, see `signals_restored`. A run that is killed between the
    two renames leaves both datasets whole; `_clean_up` of the next run restores the older one.
    """
    on_stop(signal.SIG_IGN)
    older = f"{part}.older"
    if os.path.lexists(target):
        os.rename(target, older)
    os.rename(part, target)
    shutil.rmtree(older, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.remove(rejects_next_to(target))


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Handle signals as before on leaving."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            on_stop(handler, number)


def on_stop(handler: Callable | int, *signals: int) -> None:
    """Handle these signals, by default all that stop the command."""
    with contextlib.suppress(ValueError):  # outside the main thread, which alone gets signals
        for number in signals or STOPPING:
            signal.signal(number, handler)


def _clean_up(target: str) -> None:
    """Undo what killed runs left: restore a dataset caught between two renames, remove parts.

    A directory that holds anything else than a part may hold is not touched.
    """
    for path in sorted(glob.glob(f"{glob.escape(target)}.part-*")):
        if os.path.islink(path) or not os.path.isdir(path):
            continue
        if not all(_OWN_FILES.fullmatch(name) or name == WORK for name in os.listdir(path)):
            continue
        if path.endswith(".older") and not os.path.lexists(target):
            os.rename(path, target)
            continue
        handle = os.open(path, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError):  # of a run that still writes
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        os.close(handle)

"""A directory written aside and moved into place whole, whatever happens on the way."""

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

from data_tools.record import ConvertError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def written_aside(target: str) -> Iterator[str]:
    """A fresh directory `target.part-*`, removed again on leaving unless it was moved.

    It is locked while its writer lives, so that another run can tell litter from work.
    """
    parent = os.path.dirname(os.path.abspath(target))
    os.makedirs(parent, exist_ok=True)
    part = tempfile.mkdtemp(prefix=f"{os.path.basename(target)}.part-", dir=parent)
    os.chmod(part, 0o777 & ~_umask())
    lock = os.open(part, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)


def move_into_place(part: str, target: str) -> None:
    """`part` becomes `target` in one step; what stood there before is left at `part`."""
    if not os.path.lexists(target):
        os.rename(part, target)
    elif not _exchange(part, target):
        older = f"{part}.older"
        os.rename(target, older)
        os.rename(part, target)
        os.rename(older, part)


def clear_litter(target: str, is_known: Callable[[str], bool]) -> None:
    """Undo what a killed run left: restore a dataset caught between two renames, drop parts.

    A directory that only looks like a part, since it holds a name that is not known, is left alone.
    """
    for path in sorted(glob.glob(f"{glob.escape(target)}.part-*")):
        if os.path.islink(path) or not os.path.isdir(path):
            continue
        if not all(map(is_known, os.listdir(path))):
            continue
        if path.endswith(".older") and not os.path.lexists(target):
            os.rename(path, target)
        elif _abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def refuse_foreign(
    target: str, is_known: Callable[[str], bool], is_ours: Callable[[str], bool]
) -> None:
    """Raise ConvertError (status 2) unless `target` is absent, empty or wholly ours."""
    if not os.path.lexists(target):
        return
    if not os.path.isdir(target) or os.path.islink(target):
        what = "a symbolic link" if os.path.islink(target) else "no directory"
        raise ConvertError(f"{target}: exists and is {what}; choose another place with -o")
    names = os.listdir(target)
    foreign = sorted(name for name in names if not is_known(name))
    if foreign or (names and not is_ours(target)):
        what = f"it holds {foreign[0]}" if foreign else "it was not written by this command"
        raise ConvertError(
            f"{target}: exists, and {what}; it is left alone, choose another place with -o"
        )


def _exchange(one: str, other: str) -> bool:
    """Swap two directories atomically; False where the system or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    paths = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), other)


def _abandoned(path: str) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

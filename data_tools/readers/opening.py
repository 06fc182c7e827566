"""Opens an input as decompressed bytes, once its content is known to match its ending."""

import contextlib
import gzip
import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from data_tools.record import ConvertError

STDIN = "-"
COMPRESSIONS = (".gz", ".zst")


_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
# What the first bytes of a file show: its name, these bytes, and how to fix another ending. There,
# `whole` is the path without its compression, `stem` also without its syntax.
_KINDS = {
    ".gz": ("gzip", (b"\x1f\x8b",), "rename it to {whole}.gz"),
    ".zst": ("zstd", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), "rename it to {whole}.zst"),
    ".parquet": ("Parquet", (b"PAR1",), "rename it to {stem}.parquet"),
    ".xlsx": (
        "a zip archive or spreadsheet",
        (b"PK\x03\x04",),
        "rename a spreadsheet to {stem}.xlsx, unpack an archive",
    ),
    ".xls": (
        "an older (.xls) or encrypted spreadsheet",
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
        "save it as .xlsx without a password",
    ),
}


@contextlib.contextmanager
def open_binary(path: str, stdin: BinaryIO | None) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The seekable, decompressed bytes of an input, and the file on disk below them.

    The position of the latter shows how much of the file was read. `stdin` is a copy of standard
    input. Raises ConvertError (status 2) for what is no file, a Git LFS pointer, or content that
    does not match the file's ending.
    """
    if path == STDIN:
        stdin.seek(0)  # read twice: for detection, then for conversion
        if found := _kind(stdin.read(64)):
            raise ConvertError(
                f"{path}: its content is {_KINDS[found][0]}; standard input is JSON Lines, so "
                "name the file instead"
            )
        stdin.seek(0)
        yield stdin, stdin
        return
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ConvertError(f"{path}: is no regular file; pipe its content in and name it -")
    with open(path, "rb") as file:
        head = file.read(64)
        file.seek(0)
        if head.startswith(b"version https://git-lfs.github.com/spec/"):
            raise ConvertError(
                f"{path}: this is a Git LFS pointer, not the data; run 'git lfs pull' where it "
                "came from"
            )
        _refuse_other_kinds(path, head)
        if path.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                yield unpacked, file
        elif path.lower().endswith(".zst"):
            with io.BufferedReader(_Zstd(file), 1 << 16) as unpacked:
                yield unpacked, file
        else:
            yield file, file


def _refuse_other_kinds(path: str, head: bytes) -> None:
    expected = next((ending for ending in _KINDS if path.lower().endswith(ending)), None)
    found = _kind(head)
    if expected == found:
        return
    called = "a spreadsheet" if expected == ".xlsx" else expected and _KINDS[expected][0]
    if expected and not head:
        raise ConvertError(f"{path}: is empty, though its ending says {called}; fetch it again")
    if not found:
        raise ConvertError(f"{path}: its ending says {called}, its content does not; rename it")
    name, _, fix = _KINDS[found]
    whole = os.path.splitext(path)[0] if expected in COMPRESSIONS else path
    if found in COMPRESSIONS and expected not in (None, *COMPRESSIONS):
        fix = "decompress it"
    fix = fix.format(whole=whole, stem=os.path.splitext(whole)[0])
    says = f"its ending says {called}, " if expected else ""
    raise ConvertError(f"{path}: {says}its content is {name}; {fix}")


def _kind(head: bytes) -> str | None:
    """The ending of the kind of file that begins with these bytes."""
    return next((end for end, (_, marks, _) in _KINDS.items() if head.startswith(marks)), None)


class _Zstd(io.RawIOBase):
    """The decompressed bytes of a Zstandard file; it can seek back to the start only."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._streams: list = []  # a stream that is freed closes the file
        self._restart()

    def _restart(self) -> None:
        from pyarrow import CompressedInputStream, PythonFile

        self._file.seek(0)
        self._position = 0
        self._stream = CompressedInputStream(PythonFile(self._file, "r"), "zstd")
        self._streams.append(self._stream)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            count = self._stream.readinto(buffer)
        except OSError as error:  # gzip raises EOFError for the same damage
            raise EOFError(str(error)) from None
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) == (0, io.SEEK_SET):
            self._restart()
        elif (offset, whence) != (0, io.SEEK_CUR):
            raise io.UnsupportedOperation("only back to the start")
        return self._position

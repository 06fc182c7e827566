"""Opens an input as bytes, decompressed, once its content is known to be what its ending says."""

import contextlib
import gzip
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from data_tools.record import ConvertError

STDIN = "-"
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True)
class _Kind:
    """What a file's first bytes say that it is; `mend` may name `{whole}` and `{stem}`.

    `whole` is the path without its compression, `stem` without its syntax too.
    """

    name: str
    ending: str
    marks: tuple[bytes, ...]
    mend: str


_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
_KINDS = (
    _Kind("gzip", ".gz", (b"\x1f\x8b",), "rename it to {whole}.gz"),
    _Kind("zstd", ".zst", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), "rename it to {whole}.zst"),
    _Kind("Parquet", ".parquet", (b"PAR1",), "rename it to {stem}.parquet"),
    _Kind(
        "a zip archive or spreadsheet",
        ".xlsx",
        (b"PK\x03\x04",),
        "rename a spreadsheet to {stem}.xlsx, unpack an archive",
    ),
    _Kind(
        "an older (.xls) or encrypted spreadsheet",
        ".xls",
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
        "save it as .xlsx without a password",
    ),
)


@dataclass
class Meter:
    """How far an input has been read: `tell` says it in bytes of the file as it is, packed or not.

    Of a table it counts what was read, which need not be from the front.
    """

    tell: Callable[[], int] = int


def open_binary(path: str, stdin, meter: Meter | None = None):
    """A context manager over the seekable bytes of one input, which `meter` then measures.

    Raises ConvertError (status 2) for what is no file, an LFS pointer, or not what its ending says.
    """
    meter = meter or Meter()
    if path == STDIN:
        meter.tell = stdin.tell
        stdin.seek(0)  # read twice: recognition, then conversion
        if found := _kind(stdin.read(64)):
            raise ConvertError(
                f"{path}: its content is {found.name}; standard input is JSON Lines, so name the "
                "file instead"
            )
        stdin.seek(0)
        return contextlib.nullcontext(stdin)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ConvertError(f"{path}: is no regular file; pipe its content in and name it -")
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise ConvertError(
            f"{path}: this is a Git LFS pointer, not the data; run 'git lfs pull' at its source"
        )
    _refuse_other_kinds(path, head)
    if path.lower().endswith(".gz"):
        unpacked = gzip.GzipFile(path, "rb")
        meter.tell = unpacked.fileobj.tell
        return unpacked
    packed = path.lower().endswith(".zst")
    raw = _Zstd(path) if packed else _Counted(path)
    meter.tell = raw.taken
    return io.BufferedReader(raw, 1 << 16 if packed else io.DEFAULT_BUFFER_SIZE)


def _refuse_other_kinds(path: str, head: bytes) -> None:
    said = next((kind for kind in _KINDS if path.lower().endswith(kind.ending)), None)
    found = _kind(head)
    if said == found:
        return
    if said and not head:
        raise ConvertError(
            f"{path}: is empty, though its ending says {_called(said)}; fetch it again"
        )
    if not found:
        raise ConvertError(
            f"{path}: its ending says {_called(said)}, its content does not; rename it"
        )
    whole = os.path.splitext(path)[0] if said and said.ending in COMPRESSIONS else path
    mend = found.mend.format(whole=whole, stem=os.path.splitext(whole)[0])
    if found.ending in COMPRESSIONS and said and said.ending not in COMPRESSIONS:
        mend = "decompress it"
    says = f"its ending says {_called(said)}, " if said else ""
    raise ConvertError(f"{path}: {says}its content is {found.name}; {mend}")


def _kind(head: bytes) -> _Kind | None:
    return next((kind for kind in _KINDS if head.startswith(kind.marks)), None)


def _called(kind: _Kind) -> str:
    return "a spreadsheet" if kind.ending == ".xlsx" else kind.name


class _Counted(io.FileIO):
    """A file that knows how many bytes were taken from it, wherever they stood."""

    _taken = 0

    def taken(self) -> int:
        return self._taken

    def readinto(self, buffer) -> int | None:
        count = super().readinto(buffer)
        self._taken += count or 0
        return count

    def readall(self) -> bytes:
        data = super().readall()
        self._taken += len(data)
        return data


class _Zstd(io.RawIOBase):
    """The bytes inside a Zstandard file; going back to the start opens it anew."""

    def __init__(self, path: str):
        self._path = path
        self._restart()

    def _restart(self) -> None:
        from pyarrow import CompressedInputStream, OSFile

        self._file, self._position = OSFile(self._path), 0
        self._stream = CompressedInputStream(self._file, "zstd")

    def taken(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            count = self._stream.readinto(buffer)
        except OSError as error:  # what gzip raises for the same damage
            raise EOFError(str(error)) from None
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) == (0, io.SEEK_SET):
            self._stream.close()
            self._restart()
        elif (offset, whence) != (0, io.SEEK_CUR):
            raise io.UnsupportedOperation("only back to the start")
        return self._position

    def close(self) -> None:
        self._stream.close()
        super().close()

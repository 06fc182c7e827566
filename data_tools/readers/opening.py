"""Opens an input as bytes or as text, once its content is known to match its ending.

No encoding is guessed, but a BOM is honoured. A byte that does not decode becomes a lone surrogate
(U+DC00 + byte), which no correct text can contain; `check_text` finds it, so that the record is
rejected and not the file.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from data_tools.record import BadRecord, ConvertError, Location, Record, Reject, as_json

STDIN = "-"
Items = Iterator[Record | Reject]
"""What a reader yields for each record, in the order of the file."""


def _open_zstd(file: BinaryIO) -> io.BufferedReader:
    from pyarrow import CompressedInputStream, PythonFile

    return io.BufferedReader(CompressedInputStream(PythonFile(file, "r"), "zstd"), 1 << 16)


_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
COMPRESSIONS = {
    ".gz": (gzip.open, (b"\x1f\x8b",)),
    ".zst": (_open_zstd, (b"\x28\xb5\x2f\xfd", *_SKIPPABLE)),
    ".bz2": (bz2.open, tuple(b"BZh%d" % size for size in range(1, 10))),
    ".xz": (lzma.open, (b"\xfd7zXZ\0",)),
}
"""What decompresses an open file, and what such a file begins with, by its ending."""

# What a file of some kind begins with, and the fix where its ending is not that of the kind.
_KINDS = {
    ending: (marks, f"decompress it, or let its name end with {ending}")
    for ending, (_, marks) in COMPRESSIONS.items()
} | {
    ".parquet": ((b"PAR1",), "rename it to .parquet"),
    ".arrow": ((b"ARROW1\0\0", b"\xff\xff\xff\xff"), "rename it to .arrow"),
    ".xlsx": ((b"PK\x03\x04",), "rename a spreadsheet to .xlsx, a zip archive to .zip"),
    "Git LFS pointer": ((b"version https://git-lfs",), "run 'git lfs pull' where it came from"),
    ".xls": ((b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",), "save it as .xlsx without a password"),
}
ARCHIVE = ".zip"
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, zlib.error, lzma.LZMAError)
UTF8_BOM = "utf-8-sig"
_BOMS = (
    (codecs.BOM_UTF8, UTF8_BOM),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME_ENCODING = "name the file's encoding with --encoding, e.g. cp1252 or utf-16-le"
LONGEST = 256 * 2**20
"""Characters of a line, or of an element of a JSON array: a small archive may unpack to one of
gigabytes."""
MARK = "data_tools.mark"
"""The error handler that decodes a bad byte, also one below 128, as a lone surrogate."""


def _mark(error: UnicodeDecodeError) -> tuple[str, int]:
    bad = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in bad), error.end


codecs.register_error(MARK, _mark)


def unpack(path: str, place: str, folder: str | None) -> str:
    """Unpack an archive to a new folder in `folder`, by default TMPDIR. Raises ConvertError."""
    unpacked = tempfile.mkdtemp(dir=folder)
    try:
        with zipfile.ZipFile(place) as archive:
            if len({*archive.namelist()}) < len(archive.namelist()):
                raise ValueError("two members have one name")
            check_unpacked(archive, shutil.disk_usage(unpacked).free)
            archive.extractall(unpacked)
    except _ZIP_ERRORS as error:
        why = " ".join(str(error).split())
        fix = "fetch it again, or unpack it and convert its files"
        raise ConvertError(f"{path}: the archive cannot be unpacked ({why}); {fix}") from None
    return unpacked


def check_unpacked(archive: zipfile.ZipFile, most: int) -> None:
    """Raise ValueError where the members have more than `most` bytes."""
    if (size := sum(member.file_size for member in archive.infolist())) > most:
        raise ValueError(f"it unpacks to {size / 2**30:,.0f} GB, and {most / 2**30:,.0f} GB fit")


def decompressed(file: BinaryIO, path: str) -> BinaryIO:
    """The content of an input. Raises ConvertError (status 2) where its ending says otherwise."""
    head = file.peek(64)
    expected = next((ending for ending in _KINDS if path.lower().endswith(ending)), None)
    found = next((ending for ending, (marks, _) in _KINDS.items() if head.startswith(marks)), None)
    if expected == found:
        return COMPRESSIONS[found][0](file) if found in COMPRESSIONS else file
    if expected and not head:
        raise ConvertError(f"{path}: is empty, though its ending says {expected}; fetch it again")
    if not found:
        raise ConvertError(f"{path}: its ending says {expected}, its content does not; rename it")
    fix = _KINDS[found][1]
    if path == STDIN:
        fix = "standard input is JSON Lines, so name the file instead"
    raise ConvertError(f"{path}: its content is that of a {found} file; {fix}")


def open_text(binary: io.BufferedReader, encoding: str | None, path: str = "") -> io.TextIOWrapper:
    """Text over `binary` with line ends untouched, whose encoding its BOM decides.

    Raises ConvertError (status 2) for an unknown encoding, or one that the BOM contradicts.
    """
    named, head = encoding or "utf-8", binary.peek(4)
    of_bom = next((codec for bom, codec in _BOMS if head.startswith(bom)), None)
    try:
        codec = codecs.lookup(named).name.removesuffix("-sig")
        io.TextIOWrapper(io.BytesIO(), encoding=named)  # refuses codecs that are not of text
    except (LookupError, ValueError):
        raise ConvertError(
            f"--encoding {named}: no such encoding; examples: utf-8, utf-16, cp1252, latin-1"
        ) from None
    if of_bom == UTF8_BOM and codec != "utf-8":
        raise ConvertError(
            f"--encoding {named}: the file begins with the BOM of UTF-8, so it is not {named}; "
            "remove the option"
        )
    text = _Text(binary, encoding=of_bom or codec, errors=MARK, newline="")
    text.path = path
    return text


class _Text(io.TextIOWrapper):
    """Text of which no line is too long to be held in memory."""

    path = ""

    def __next__(self) -> str:
        line = self.readline(LONGEST)
        check_length(len(line), self.path)
        if not line:
            raise StopIteration
        return line


def check_length(length: int, path: str) -> None:
    """Raise ConvertError for the length of a line or a record that is not below LONGEST."""
    if length >= LONGEST:
        raise ConvertError(
            f"{path}: a record has more than {LONGEST // 2**20} MB, so the file is damaged or not "
            "what its ending says; a JSON array must be named .json"
        )


def read_or_reject(
    location: Location,
    parse: Callable[..., Any],
    raw_of: Callable[[Any], Any],
    source: Any,
    *more: Any,
    is_text: bool = False,
) -> Record | Reject:
    """The record that `parse` makes of a source, or the reject where it raises BadRecord.

    `is_text` is true where its values are cells of a table, see `Record`.
    """
    try:
        return Record(location, parse(source, *more), is_text)
    except BadRecord as fault:
        return Reject(location, fault.reason, fault.detail, as_json(raw_of(source)))


def check_text(text: str, what: str, fix: str = _NAME_ENCODING) -> None:
    """Raise BadRecord (`bad_encoding` or `nul_byte`) for a text that holds what no text can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = printable(text[max(0, error.start - 12) : error.start + 12])
        detail = f"{what} holds bytes that do not decode (near {near!r}); {fix}"
        raise BadRecord("bad_encoding", detail) from None
    if "\0" in text:
        raise BadRecord("nul_byte", f"{what} holds a NUL character; remove it, or {fix}")


def printable(text: str) -> str:
    """The text with undecodable bytes written as \\xNN, so that JSON can store it."""
    return _SURROGATE.sub(lambda found: f"\\x{ord(found.group()) & 0xFF:02x}", text)


def line_ends(text: str | bytes) -> int:
    """The line ends in a text or its bytes, each CR, LF or both."""
    cr, lf = ("\r", "\n") if isinstance(text, str) else (b"\r", b"\n")
    count = text.count(lf)
    if cr in text:
        count += text.count(cr) - text.count(cr + lf)
    return count

"""Bytes to text for every text reader: a BOM is honoured, no encoding is guessed.

A byte that does not decode becomes a lone surrogate (U+DC00 + byte), which no correct text can
contain; `check_text` finds it, so that the record is rejected and not the file.
"""

import codecs
import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from data_tools.record import BadRecord, ConvertError, Location, Record, Reject

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UTF8 = ("utf-8", "utf-8-sig")
_SURROGATE = re.compile("[\ud800-\udfff]")
MARK = "data_tools.mark"
"""The error handler that decodes a bad byte, also one below 128, as a lone surrogate."""


def _mark(error: UnicodeDecodeError) -> tuple[str, int]:
    bad = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in bad), error.end


codecs.register_error(MARK, _mark)


@contextlib.contextmanager
def open_text(binary, encoding: str | None) -> Iterator[io.TextIOWrapper]:
    """Text over `binary` with line ends untouched; closing the binary file is up to the caller.

    A BOM decides the encoding. Raises ConvertError (status 2) for an unknown encoding, or one that
    the BOM contradicts.
    """
    named = _encoding_of_bom(binary, encoding) or encoding or "utf-8"
    text = io.TextIOWrapper(binary, encoding=named, errors=MARK, newline="")
    try:
        yield text
    finally:
        text.detach()


def utf8_start(binary, encoding: str | None) -> int | None:
    """The offset at which the text of a UTF-8 file begins; None for any other encoding."""
    mark = _encoding_of_bom(binary, encoding)
    if mark is None:
        return 0 if codecs.lookup(encoding or "utf-8").name in _UTF8 else None
    return len(codecs.BOM_UTF8) if mark == "utf-8-sig" else None


def _encoding_of_bom(binary, encoding: str | None) -> str | None:
    named = encoding or "utf-8"
    try:
        codec = codecs.lookup(named).name
        io.TextIOWrapper(io.BytesIO(), encoding=named)  # refuses codecs that are not of text
    except (LookupError, ValueError):
        raise ConvertError(
            f"--encoding {named}: no such encoding; examples: utf-8, utf-16, cp1252, latin-1"
        ) from None
    head = binary.read(4)
    binary.seek(0)
    bom = next((name for mark, name in _BOMS if head.startswith(mark)), None)
    if bom == "utf-8-sig" and codec not in _UTF8:
        raise ConvertError(
            f"--encoding {named}: the file begins with the BOM of UTF-8, so it is not {named}; "
            "remove the option"
        )
    return bom


def count_line_ends(text: str | bytes) -> int:
    """The line ends in a text, each CR, LF or both."""
    lf, cr, both = (b"\n", b"\r", b"\r\n") if isinstance(text, bytes) else ("\n", "\r", "\r\n")
    count = text.count(lf)
    if cr in text:
        count += text.count(cr) - text.count(both)
    return count


def read_or_reject(
    location: Location,
    parse: Callable[[Any], Any],
    source: Any,
    raw_of: Callable[[Any], Any],
    cells: bool = False,
) -> Record | Reject:
    """The record that `parse` makes of a source, or the reject where it raises BadRecord."""
    try:
        return Record(location, parse(source), cells)
    except BadRecord as fault:
        return Reject(location, fault.reason, fault.detail, raw_of(source))


def check_text(text: str, what: str) -> None:
    """Raise BadRecord (`bad_encoding` or `nul_byte`) for a text that holds what no text can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = printable(text[max(0, error.start - 12) : error.start + 12])
        raise BadRecord(
            "bad_encoding",
            f"{what} holds bytes that do not decode (near {near!r}); name the file's encoding "
            "with --encoding, e.g. --encoding cp1252",
        ) from None
    if "\0" in text:
        raise BadRecord(
            "nul_byte", f"{what} holds a NUL character; remove it, or name an --encoding of UTF-16"
        )


def printable(text: str) -> str:
    """The text with undecodable bytes written as \\xNN, so that JSON can store it."""
    return _SURROGATE.sub(lambda m: _escaped(m.group()), text)


def _escaped(char: str) -> str:
    byte = ord(char) - 0xDC00
    return f"\\x{byte:02x}" if 0 <= byte <= 0xFF else f"\\u{ord(char):04x}"

"""Bytes to text for every text reader: a BOM is honoured, nothing is guessed, nothing is lost.

A byte that does not decode becomes a lone surrogate (U+DC00 + byte), which no correct text can
hold; `bad_text` finds it, so the record and not the file is rejected.
"""

import codecs
import contextlib
import io
import re
from collections.abc import Iterator

from data_tools.record import ConvertError, Fault

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def _mark(error):
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in bad), error.end


codecs.register_error("data_tools.mark", _mark)


@contextlib.contextmanager
def open_text(binary, encoding: str | None, bom: bool = True) -> Iterator[io.TextIOWrapper]:
    """Text over `binary`, line ends untouched; the binary file stays the caller's to close.

    A BOM decides, unless it is known that none can stand where `binary` is. Raises ConvertError
    (status 2) for an unknown encoding, or one that it denies.
    """
    mark = _mark_of(binary, encoding) if bom else None
    text = io.TextIOWrapper(
        binary, encoding=mark or encoding or "utf-8", errors="data_tools.mark", newline=""
    )
    try:
        yield text
    finally:
        text.detach()


def utf8_start(binary, encoding: str | None) -> int | None:
    """Where the text of a file begins that is UTF-8 throughout; None for any other encoding."""
    mark = _mark_of(binary, encoding)
    if mark is None:
        return 0 if codecs.lookup(encoding or "utf-8").name in ("utf-8", "utf-8-sig") else None
    return len(codecs.BOM_UTF8) if mark == "utf-8-sig" else None


def _mark_of(binary, encoding: str | None) -> str | None:
    """The encoding that a file's first bytes name; raises ConvertError as `open_text` does."""
    named = encoding or "utf-8"
    try:
        codec = codecs.lookup(named).name
        io.TextIOWrapper(io.BytesIO(), encoding=named)  # some codecs are not of text
    except (LookupError, ValueError):
        raise ConvertError(
            f"--encoding {named}: no such encoding; examples: utf-8, utf-16, cp1252, latin-1"
        ) from None
    head = binary.read(4)
    binary.seek(0)
    bom = next((name for mark, name in _BOMS if head.startswith(mark)), None)
    if bom == "utf-8-sig" and codec not in ("utf-8", "utf-8-sig"):
        raise ConvertError(
            f"--encoding {named}: the file begins with the mark of UTF-8, so it is not {named}; "
            "leave the option out"
        )
    return bom


def bad_text(text: str, what: str) -> Fault | None:
    """`bad_encoding` or `nul_byte` for a text that holds what no text can, else None."""
    if not text.isascii() and (bad := _SURROGATE.search(text)):
        return Fault(
            "bad_encoding",
            f"{what} holds bytes that do not decode (near {_around(text, bad.start())}); "
            "name the file's encoding with --encoding, e.g. --encoding cp1252",
        )
    if "\0" in text:
        return Fault(
            "nul_byte", f"{what} holds a NUL character; remove it, or name an --encoding of UTF-16"
        )
    return None


def bad_strings(value: object) -> Fault | None:
    """The same for every string inside a parsed JSON value, escapes such as \\ud800 included."""
    stack, nul = [value], None
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if not item.isascii() and _SURROGATE.search(item):
                return Fault(
                    "bad_encoding",
                    "a string holds a lone surrogate (\\ud800 to \\udfff), which is no text; "
                    "write the character itself or both halves of the pair",
                )
            if nul is None and "\0" in item:
                nul = Fault("nul_byte", "a string holds a NUL character (\\u0000); remove it")
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return nul


def printable(text: str) -> str:
    """The text with undecodable bytes written as \\xNN, so that it can be stored as JSON."""
    return _SURROGATE.sub(lambda m: _escaped(m.group()), text)


def _escaped(char: str) -> str:
    byte = ord(char) - 0xDC00
    return f"\\x{byte:02x}" if 0 <= byte <= 0xFF else f"\\u{ord(char):04x}"


def _around(text: str, at: int) -> str:
    return repr(printable(text[max(0, at - 12) : at + 12]))

"""Large text files cut into blocks of records, so that several workers can read one file.

The cut is made in one sequential scan that also counts lines, so each block knows its first line.
In a table, a newline after an even number of quotes ends a row, unless a cell holds a stray quote;
so reading a block also tells where its last record really ended.
"""

import codecs
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, tee
from typing import Any, BinaryIO

from data_tools.readers import delimited, json_records, opening
from data_tools.readers.opening import MARK
from data_tools.record import ConvertError, Record, Reject

SIZE = 2_000_000  # bytes of a block


@dataclass(frozen=True)
class Span:
    """Some bytes of a UTF-8 file that begin with a record, on line `first_line` of the file.

    `state` is what `file_state` gives of the file. `head` is the header of a table, None for JSON
    Lines.
    """

    file: str
    state: tuple[int, int]
    start: int
    stop: int
    first_line: int
    head: delimited.Head | None = None


def file_state(path: str, place: str | None = None) -> tuple[int, int]:
    """The size of a file and the time of its last change (ns). Raises ConvertError (status 1)."""
    try:
        found = os.stat(place or path)
    except OSError:
        raise changed(path) from None
    return found.st_size, found.st_mtime_ns


def first_span(path: str, encoding: str | None, header_row: int | None = None) -> Span | None:
    """The empty span before the first record; None for a file that only reads from its start."""
    ending = os.path.splitext(path)[1].lower()
    delimiters = delimited.DELIMITERS.get(ending)
    if not delimiters and ending not in (".jsonl", ".ndjson"):
        return None
    state = file_state(path)
    with open(path, "rb") as file:
        text = opening.open_text(file, encoding, path)
        if text.encoding not in ("utf-8", opening.UTF8_BOM):
            return None
        start = len(codecs.BOM_UTF8) if text.encoding == opening.UTF8_BOM else 0
        if not delimiters:
            return Span(path, state, start, start, 1)
        ahead = [*islice(text, delimited.AHEAD + (header_row or 0))]
        head = delimited.read_head(ahead, path, delimiters, header_row, [])
        start += _size(ahead[: head.lines])
        return Span(path, state, start, start, head.lines + 1, head)


def cut(after: Span) -> Iterator[Span]:
    """The spans of a file that follow `after`."""
    start, line = after.stop, after.first_line
    with open(after.file, "rb") as file:
        file.seek(after.start)
        data = file.read(after.stop - after.start)
        while True:
            line += opening.line_ends(data)
            file.seek(start)
            data = file.read(SIZE)
            if not data:
                return
            if len(data) == SIZE:
                rest = _rest_of_record(file, data, after.head)
                opening.check_length(len(rest), after.file)
                data += rest
            yield replace(after, start=start, stop=start + len(data), first_line=line)
            start += len(data)


def _rest_of_record(file: BinaryIO, data: bytes, head: delimited.Head | None) -> bytes:
    """What follows `data` until a record seems to end."""
    rest = bytearray() if data.endswith(b"\n") else bytearray(file.readline(opening.LONGEST))
    is_open = head is not None and (data.count(b'"') + rest.count(b'"')) % 2
    while is_open and len(rest) < SIZE and (line := file.readline()):
        is_open ^= line.count(b'"') % 2
        rest += line
    return bytes(rest)


def read_span(span: Span) -> tuple[list[Record | Reject], int]:
    """The records of a span, and the offset at which the last one ended."""
    lines = _lines(span)
    if span.head is None:
        return [*json_records.read_lines(lines, span.file, span.first_line)], span.stop
    own = [line.decode("utf-8", MARK) for line in lines]
    with open(span.file, encoding="utf-8", errors=MARK, newline="") as text:
        text.buffer.seek(span.stop)
        after, again = tee(text)
        rows = delimited.Rows(span.head, span.file, chain(own, after), span.first_line, len(own))
        records = list(rows)
        return records, span.stop + _size(islice(again, max(0, rows.number - len(own))))


def _lines(span: Span) -> list[bytes]:
    """The lines of a span with their ends, each CR, LF or both. Raises ConvertError (status 1)."""
    # Another machine may know the time of the last change to the second only.
    (size, time), (size_before, time_before) = file_state(span.file), span.state
    if (size, time // 10**9) != (size_before, time_before // 10**9):
        raise changed(span.file)
    with open(span.file, "rb") as file:
        file.seek(span.start)
        data = file.read(span.stop - span.start)
    # Much faster than `splitlines`, but it only knows LF.
    return data.splitlines(keepends=True) if b"\r" in data else io.BytesIO(data).readlines()


def _size(lines: Iterable[str]) -> int:
    """The bytes of some lines in their UTF-8 file."""
    return sum(len(line.encode("utf-8", "surrogateescape")) for line in lines)


def read_again(span: Span, lines: Sequence[int]) -> dict[int, Any]:
    """The records of a span that begin on these lines of the file, as they are read, by line.

    Raises ConvertError (status 1) where one is not there any more.
    """
    own, found = _lines(span), {}
    for line in lines:
        rest = own[line - span.first_line :]
        if span.head is None:
            records = json_records.read_lines(rest, span.file)
        else:
            decoded = (text.decode("utf-8", MARK) for text in rest)
            records = delimited.Rows(span.head, span.file, decoded, line)
        record = next(iter(records), None)
        if not isinstance(record, Record):
            raise changed(span.file)
        found[line] = record.value
    return found


def changed(path: str) -> ConvertError:
    return ConvertError(
        f"{path}: changed while it was read; convert it again once it is complete, and start "
        "the workers of a --scheduler where they see the same files",
        status=1,
    )

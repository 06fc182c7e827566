"""JSON Lines, each line parsed by itself, and JSON arrays, element by element in bounded memory.

A `.json` file may hold an array, JSON Lines, or one object around a list of records; its content
decides. Every record knows the line on which it starts.
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise

from data_tools import strict_json
from data_tools.readers.opening import MARK, check_text, count_line_ends, printable, read_or_reject
from data_tools.record import BadRecord, ConvertError, Location, Record, Reject, clip

_CHUNK = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n:,]*")  # one key or value of an object and the next
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_SCALAR_END = re.compile(r"[,\]}\s]")
_DECODER = json.JSONDecoder()


def read_json_lines(
    text: Iterable[str], path: str, note: Callable[[str], None]
) -> Iterator[Record | Reject]:
    """Yield the records of an open text file whose line ends are untouched.

    Raises ConvertError for an array over several lines, none of which would be a record.
    """
    for item in read_lines((line.rstrip("\r\n") for line in text), path):
        is_cut = isinstance(item, Reject) and "EOF while" in item.detail
        if is_cut and item.location.record == 1 and json.loads(item.raw).lstrip().startswith("["):
            fix = "save it as a .json file" if path == "-" else "rename it to .json"
            raise ConvertError(f"{path}: its content is a JSON array; {fix}")
        yield item


def read_lines(
    lines: Iterable[str | bytes], path: str, first_line: int = 1
) -> Iterator[Record | Reject]:
    """Yield the record of each line that is not blank; bytes are UTF-8."""
    record = 0
    for number, line in enumerate(lines, start=first_line):
        if line.startswith(b"{" if isinstance(line, bytes) else "{") or _text(line).strip():
            record += 1
            yield read_or_reject(Location(path, number, record), _parse, _raw, line)


def _parse(source: str | bytes) -> object:
    """The value of a JSON text. Raises BadRecord."""
    try:
        return strict_json.loads(
            source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
        )
    except BadRecord:
        check_text(_text(source), "the record")
        raise


def _raw(source: str | bytes) -> str:
    return printable(_text(source).rstrip("\r\n"))


def _text(source: str | bytes) -> str:
    return source if isinstance(source, str) else source.decode("utf-8", MARK)


def read_json(
    text: io.TextIOBase, path: str, note: Callable[[str], None]
) -> Iterator[Record | Reject]:
    """Yield the records of a .json file. Raises ConvertError where it is no JSON or breaks off."""
    window = _Window(text)
    first = window.peek()
    if first == "[":
        yield from _elements(window, path)
    elif first:
        text.seek(0)
        is_json_lines = _is_json_lines(text)
        text.seek(0)
        if is_json_lines:
            note(f"{path}: read as JSON Lines, by its content")
            yield from read_json_lines(text, path, note)
        else:
            yield from _unwrapped(_Window(text), path, note)


def _is_json_lines(text: io.TextIOBase) -> bool:
    """Whether one of the first two lines is an object of its own and not the whole file."""
    lines = list(islice((line for line in text if not line.isspace()), 2))
    if len(lines) < 2 or lines[0].rstrip().endswith(("{", "[", ":")):  # around the second line
        return False
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(line), dict):
                return True
    return False


def _unwrapped(
    window: "_Window", path: str, note: Callable[[str], None]
) -> Iterator[Record | Reject]:
    """The records of one object: the list that is exactly one of its values, or itself."""
    first, line = window.peek(), window.line
    source = window.value() if first == "{" else None
    if source is None:
        rest = window.rest(sys.maxsize)
        raise ConvertError(
            f"{path}: this is not JSON, or it breaks off: it begins with {clip(rest[:40])} and "
            f"ends on line {line + count_line_ends(rest.rstrip())}; a .json file holds an array "
            "of records"
        )
    end = window.line
    if window.peek():
        raise ConvertError(
            f"{path}: text follows the object that ends on line {end}; a .json file holds one "
            "array, or one record a line"
        )
    lists = _lists_of_objects(source)
    if len(lists) == 1:
        key, start, stop = lists[0]
        note(f"{path}: the records are the list under {key!r}")
        line += count_line_ends(source[:start])
        yield from _elements(_Window(io.StringIO(source[start:stop], newline=""), line), path)
    else:
        yield read_or_reject(Location(path, line, 1), _parse, _raw, source)


def _lists_of_objects(source: str) -> list[tuple[str, int, int]]:
    """The key, start and end of each value of an object that is a list of objects."""
    found, end = [], 1
    try:
        while source[start := _BETWEEN.match(source, end).end()] != "}":
            key, end = _DECODER.raw_decode(source, start)
            start = _BETWEEN.match(source, end).end()
            value, end = _DECODER.raw_decode(source, start)
            if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                found.append((key, start, end))
    except (ValueError, RecursionError):
        return []  # the object does not parse, and is rejected as the only record
    return found


def _elements(window: "_Window", path: str) -> Iterator[Record | Reject]:
    """The records of an array, each held until it is known whether another shares its line."""
    shared = False
    found = chain(_sources(window, path), [("", 0)])
    for record, ((source, line), (_, following)) in enumerate(pairwise(found), start=1):
        shared_before, shared = shared, line == following
        location = Location(path, line, record, shared_before or shared)
        yield read_or_reject(location, _parse, _raw, source)


def _sources(window: "_Window", path: str) -> Iterator[tuple[str, int]]:
    """The source of each element, valid or not, and its line."""
    window.peek()
    window.advance(1)  # past the opening bracket
    record = 0
    while True:
        char = window.peek()
        if char == "," and record:
            window.advance(1)
            char = window.peek()
        elif char not in ("]", "") and record:
            raise ConvertError(
                f"{path}:{window.line}: expected ',' or ']' after record {record}, found "
                f"{clip(window.rest(20))}; fix the array there"
            )
        if char == "]":
            break
        line = window.line
        source = window.value() if char else None
        if source is None:
            raise ConvertError(
                f"{path}: the array is unfinished: it breaks off on line {line} after record "
                f"{record}; fetch the file again"
            )
        record += 1
        yield source, line
    window.advance(1)
    if window.peek():
        raise ConvertError(
            f"{path}:{window.line}: text follows the end of the array ({clip(window.rest(20))}); "
            "a .json file holds one array"
        )


class _Window:
    """The part of a text that is not consumed yet, and the line on which it begins."""

    def __init__(self, text: io.TextIOBase, line: int = 1):
        self.line = line
        self._text, self._buffer, self._position = text, "", 0

    def peek(self) -> str:
        """The next character that is no white space, moved to; empty at the end."""
        while True:
            self.advance(_SPACE.match(self._buffer, self._position).end() - self._position)
            if self._position < len(self._buffer) or not self._fill():
                return self._buffer[self._position : self._position + 1]

    def value(self) -> str | None:
        """Consume and return the source of the next value; None where the text ends before it."""
        while (end := _value_end(self._buffer, self._position)) is None:
            if not self._fill():
                return None
        source = self._buffer[self._position : end]
        self.advance(len(source))
        return source

    def rest(self, length: int) -> str:
        """What comes next, up to a length."""
        while len(self._buffer) - self._position < length and self._fill():
            pass
        return self._buffer[self._position : self._position + length]

    def advance(self, length: int) -> None:
        """Consume some characters."""
        end = self._position + length
        self.line += count_line_ends(self._buffer[self._position : end])
        self._position = end

    def _fill(self) -> bool:
        kept = self._buffer[self._position :]
        more = self._text.read(max(_CHUNK, len(kept)))  # doubling: a long value is scanned often
        if more.endswith("\r"):  # a CRLF counts once, so it must not be cut in two
            more += self._text.readline()
        self._buffer, self._position = kept + more, 0
        return bool(more)


def _value_end(source: str, start: int) -> int | None:
    """Where the JSON value at `start` ends, valid or not; None when `source` ends before it."""
    if source[start] not in '{["':  # 1.5 must not be taken for 1 where the source is cut
        end = _SCALAR_END.search(source, start)
        return end.start() if end else None
    try:
        return _DECODER.raw_decode(source, start)[1]
    except (ValueError, RecursionError):
        pass
    depth = 0
    for token in _STRUCTURE.finditer(source, start):
        mark = token.group()
        if mark == '"':
            return None  # a string that is not closed
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
        if depth <= 0:
            return token.end()
    return None

"""JSON Lines, each line parsed by itself, and JSON arrays, element by element in bounded memory.

A `.json` file may hold an array, JSON Lines, or one object around a list of records; its content
decides. Every record knows the line on which it starts.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise, tee

from data_tools import strict_json
from data_tools.readers.opening import MARK, check_text, printable, read_or_reject
from data_tools.record import BadRecord, ConvertError, Location, Record, Reject, clip

_CHUNK = 1 << 16
_BLANK = " \t\r\n"
_SPACE = re.compile(f"[{_BLANK}]*")
_BETWEEN = re.compile(r"[ \t\r\n:,]*")  # one key or value of an object and the next
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# Up to the next bracket, or comma or bracket, that is not in a string; never tried twice.
_BRACKET = re.compile(rf'[^"\[\]{{}}]*+(?:{_STRING}[^"\[\]{{}}]*+)*+[\[\]{{}}]', re.DOTALL)
_MARK = re.compile(rf'[^"\[\]{{}},]*+(?:{_STRING}[^"\[\]{{}},]*+)*+[\[\]{{}},]', re.DOTALL)
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
    blank = ""
    while (first := text.read(1)).isspace():
        blank += first
    if first == "[":
        yield from _elements(text, path, 1 + _line_ends(blank))
    elif first:
        start = io.StringIO(blank + first + text.readline(), newline="")
        lines, ahead = tee(chain(start, text))
        is_json_lines = _is_json_lines(ahead)
        del ahead  # which would hold every line
        if is_json_lines:
            note(f"{path}: read as JSON Lines, by its content")
            yield from read_json_lines(lines, path, note)
        else:
            yield from _unwrapped("".join(lines), path, note)


def _is_json_lines(lines: Iterator[str]) -> bool:
    """Whether one of the first two lines is an object of its own and not the whole file."""
    lines = list(islice((line for line in lines if not line.isspace()), 2))
    if len(lines) < 2 or lines[0].rstrip().endswith(("{", "[", ":")):  # around the second line
        return False
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(line), dict):
                return True
    return False


def _unwrapped(source: str, path: str, note: Callable[[str], None]) -> Iterator[Record | Reject]:
    """The records of one object: the list that is exactly one of its values, or itself."""
    lists = _lists_of_objects(source)
    if len(lists) == 1:
        key, start, stop = lists[0]
        note(f"{path}: the records are the list under {key!r}")
        inside = io.StringIO(source[start + 1 : stop], newline="")
        yield from _elements(inside, path, 1 + _line_ends(source[:start]))
        return
    begin, line = _next(source, 0, 1)
    record = source[begin:].rstrip(_BLANK)
    item = read_or_reject(Location(path, line, 1), _parse, _raw, record)
    if isinstance(item, Reject) and (
        record[0] != "{" or "EOF while" in item.detail or "trailing" in item.detail
    ):
        fault = item.detail.partition(";")[0]
        raise ConvertError(
            f"{path}: {fault}; it begins with {clip(record[:40])}, and a .json file holds an "
            "array of records, or one record a line"
        )
    yield item


def _lists_of_objects(source: str) -> list[tuple[str, int, int]]:
    """The key, start and end of each value of an object that is a list of objects.

    There are none where the text is not such an object alone.
    """
    found, end = [], source.find("{") + 1
    try:
        while source[start := _BETWEEN.match(source, end).end()] != "}":
            key, end = _DECODER.raw_decode(source, start)
            start = _BETWEEN.match(source, end).end()
            value, end = _DECODER.raw_decode(source, start)
            if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                found.append((key, start, end))
    except (ValueError, RecursionError, IndexError):
        return []
    return [] if source[start + 1 :].strip() else found


def _elements(text: io.TextIOBase, path: str, line: int) -> Iterator[Record | Reject]:
    """The records of an array, each held until it is known whether another shares its line."""
    shared = False
    found = chain(_sources(text, path, line), [("", 0)])
    for record, ((source, line), (_, following)) in enumerate(pairwise(found), start=1):
        shared_before, shared = shared, line == following
        location = Location(path, line, record, shared_before or shared)
        yield read_or_reject(location, _parse, _raw, source)


def _sources(text: io.TextIOBase, path: str, line: int) -> Iterator[tuple[str, int]]:
    """The source of each element, valid or not, and its line.

    `text` is what follows the opening bracket of the array, which is on `line`.
    """
    buffer, start, position = "", 0, 0  # where the element begins, and how far it is known
    depth = values = record = 0  # brackets that are open, and that were closed in the element
    while more := text.read(max(_CHUNK, len(buffer) - start)):
        buffer, position, start = buffer[start:] + more, position - start, 0
        while found := (_BRACKET if depth else _MARK).match(buffer, position):
            position = found.end()
            mark = buffer[position - 1]
            if mark in "[{" and not depth:
                try:  # much faster than a search for its brackets
                    position = _DECODER.raw_decode(buffer, position - 1)[1]
                    values += 1
                    continue
                except (ValueError, RecursionError):  # it is invalid, or goes on
                    pass
            if mark in "[{":
                depth += 1
            elif mark in "]}":
                depth -= 1
                values += depth == 0
            if depth > 0 or (depth == 0 and mark != ","):
                continue
            begin, line = _next(buffer, start, line)
            source = buffer[begin : position - 1].rstrip(_BLANK)
            is_one = not values or (values == 1 and source[0] in "[{" and source[-1] in "]}")
            if mark == "}" or not is_one:
                raise ConvertError(
                    f"{path}:{line}: expected ',' or ']' after record {record + 1}, which begins "
                    f"here ({clip(source)}); fix the array there"
                )
            if source or mark == ",":
                record += 1
                yield source, line
            line += _line_ends(buffer[begin:position])
            if mark == "]":
                if any(rest.strip() for rest in chain([buffer[position:]], text)):
                    raise ConvertError(
                        f"{path}: text follows the array that ends on line {line}; a .json file "
                        "holds one array"
                    )
                return
            start, values = position, 0
    _, line = _next(buffer, start, line)
    raise ConvertError(
        f"{path}: the array is unfinished: it breaks off on line {line} after record {record}; "
        "fetch the file again"
    )


def _next(source: str, start: int, line: int) -> tuple[int, int]:
    """Where and on which line what follows some white space begins."""
    begin = _SPACE.match(source, start).end()
    return begin, line + _line_ends(source[start:begin])


def _line_ends(text: str) -> int:
    """The line ends in a text, each CR, LF or both."""
    count = text.count("\n")
    if "\r" in text:
        count += text.count("\r") - text.count("\r\n")
    return count

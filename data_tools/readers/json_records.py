"""JSON Lines, each line parsed by itself, and JSON arrays, element by element in bounded memory.

A `.json` file may hold an array, JSON Lines, or one object around a list of records; its content
decides. Every record knows the line on which it starts.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from typing import Any

import jiter

from data_tools.readers.opening import (
    MARK,
    Items,
    check_length,
    check_text,
    line_ends,
    printable,
    read_or_reject,
)
from data_tools.record import BadRecord, ConvertError, Location, Record, Reject, clip

_CHUNK = 1 << 16
_BLANK = " \t\r\n"
_SPACE = re.compile(f"[{_BLANK}]*")
_BETWEEN = re.compile(r"[ \t\r\n:,]*")  # one key or value of an object and the next
# A string, also one that goes on after the text, or what may end an element outside of strings.
_MARK = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
_DECODER = json.JSONDecoder()
_INFINITE = (float("inf"), float("-inf"))
_NAN = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")|NaN', re.DOTALL)


def read_json_lines(text: Iterable[str], path: str, *_: object) -> Items:
    """Yield the records of an open text file whose line ends are untouched.

    Raises ConvertError for an array over several lines, none of which would be a record.
    """
    for item in read_lines(text, path):
        is_cut = isinstance(item, Reject) and "EOF while" in item.detail
        if is_cut and item.location.record == 1 and json.loads(item.raw).lstrip().startswith("["):
            fix = "save it as a .json file" if path == "-" else "rename it to .json"
            raise ConvertError(f"{path}: its content is a JSON array; {fix}")
        is_bad = path == "-" and isinstance(item, Reject) and item.reason == "bad_json"
        if is_bad and item.location.record == 1 and json.loads(item.raw).lstrip()[:1] not in "{[":
            fix = "save anything else as a file whose ending names it, such as raw.csv"
            raise ConvertError(f"{path}: standard input is JSON Lines; {fix}")
        yield item


def read_lines(lines: Iterable[str | bytes], path: str, first_line: int = 1) -> Items:
    """Yield the record of each line that is not blank; bytes are UTF-8."""
    record = 0
    for number, line in enumerate(lines, start=first_line):
        if line[:1] in (b"{", "{") or not _text(line).isspace():
            record += 1
            yield read_or_reject(Location(path, number, record), _parse, _raw, line)


def _text(source: str | bytes) -> str:
    return source if isinstance(source, str) else source.decode("utf-8", MARK)


def _raw(source: str | bytes) -> str:
    return printable(_text(source).rstrip("\r\n"))


def _parse(source: str | bytes) -> object:
    """The value of a JSON text; NaN, a missing number of pandas, is null. Raises BadRecord."""
    data = source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
    data = data.rstrip(b"\r\n")
    try:
        return loads(data)
    except BadRecord:
        check_text(_text(source), "the record")
        nulls = _NAN.sub(lambda found: found[1] or b"null", data)
        if nulls == data:
            raise
        return loads(nulls)


def loads(source: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises BadRecord: `bad_encoding` for a lone surrogate, `nul_byte` for an escaped NUL, and
    `bad_json` for everything else.
    """
    try:
        value = jiter.from_json(source, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        raise _fault(str(error)) from None
    found = [value]  # and what is in it, where JSON can write what no dataset can hold
    for item in found:
        kind = type(item)
        if kind is str:
            if "\0" in item:
                raise BadRecord("nul_byte", "a string holds a NUL character (\\u0000); remove it")
        elif kind is list:
            found += item
        elif kind is dict:
            found += item
            found += item.values()
        elif kind is float and item in _INFINITE:
            raise BadRecord("bad_json", "a number is too large; fix the record or remove it")
    return value


def _fault(message: str) -> BadRecord:
    if message.startswith(("unexpected end of hex escape", "lone leading surrogate")):
        return BadRecord(
            "bad_encoding",
            "a string holds a lone surrogate (\\ud800 to \\udfff), which is no text; write the "
            "character itself or both halves of the pair",
        )
    message = message.replace(" at line 1 column ", " at byte ").replace(
        " at line ", " at its line "
    )
    return BadRecord("bad_json", f"this is not valid JSON: {message}; fix the record or remove it")


def read_json(text: io.TextIOBase, path: str, notes: list[str], *_: object) -> Items:
    """Yield the records of a .json file. Raises ConvertError where it is no JSON or breaks off."""
    blank = ""
    while (first := text.read(1)).isspace():
        blank += first
    if first == "[":
        yield from _elements(text, path, 1 + line_ends(blank))
        return
    head = [*io.StringIO(blank + first + text.readline(), newline="")]
    for line in text:
        head.append(line)
        if not line.isspace():
            break
    filled = [line.rstrip() for line in head if not line.isspace()]
    # One of two lines may be damaged; an object over several lines opens something in its first.
    if len(filled) > 1 and filled[0][-1] not in "{[:" and any(map(_is_object, filled)):
        notes.append(f"{path}: read as JSON Lines, by its content")
        yield from read_json_lines(chain(head, text), path)
    elif first:
        yield from _unwrapped("".join(head) + text.read(), path, notes)


def _is_object(line: str) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        return isinstance(json.loads(line), dict)
    return False


def _unwrapped(source: str, path: str, notes: list[str]) -> Items:
    """The records of one object: the list that is exactly one of its values, or itself."""
    lists = _lists_of_objects(source)
    if [key for key, *_ in lists] == ["features", "rows"]:  # as the server of the Hub answers
        lists = lists[1:]
    if len(lists) == 1:
        key, start, stop = lists[0]
        notes.append(f"{path}: the records are the list under {key!r}")
        inside = io.StringIO(source[start + 1 : stop], newline="")
        yield from _elements(inside, path, 1 + line_ends(source[:start]), _parse_row)
        return
    record = source.strip(_BLANK)
    line = 1 + line_ends(source[: source.index(record)])
    item = read_or_reject(Location(path, line, 1), _parse, _raw, record)
    if isinstance(item, Reject) and item.reason == "bad_json":
        fault = item.detail.partition(";")[0]
        raise ConvertError(
            f"{path}: {fault}; it begins with {clip(record[:40])}, and a .json file holds an "
            "array of records, or one record a line"
        )
    rows = _rows(item.value) if isinstance(item, Record) else None
    if rows:
        notes.append(f"{path}: its object is read as a table of {len(rows):,} records")
        for number, row in enumerate(rows, start=1):
            yield Record(Location(path, None, number), row)
    else:
        yield item


def _rows(value: Any) -> list[dict] | None:
    """The records of an object that is a table: lists by column, or a form of pandas; else None."""
    match value:
        case {"columns": [*names], "data": [*rows]}:
            names = dict.fromkeys(map(str, names))
            is_table = all(isinstance(row, list) and len(row) == len(names) for row in rows)
            return [dict(zip(names, row, strict=True)) for row in rows] if is_table else None
        case {**columns} if {*map(type, columns.values())} == {dict}:
            keys = next(iter(columns.values())).keys()
            if all(map(str.isdecimal, columns)):
                return [*columns.values()]
            if all(map(str.isdecimal, keys)) and all(c.keys() == keys for c in columns.values()):
                return [{name: columns[name][at] for name in columns} for at in keys]
        case {**columns} if len(columns) > 1 and {*map(type, columns.values())} == {list}:
            firsts = [type(column[0]) for column in columns.values() if column]
            if len({*map(len, columns.values())}) == 1 and dict not in firsts:
                rows = zip(*columns.values(), strict=True)
                return [dict(zip(columns, row, strict=True)) for row in rows]
    return None


def _parse_row(source: str) -> object:
    """The record in a row as the Hub's server gives it; any other value. Raises BadRecord."""
    match _parse(source):
        case {"row_idx": _, "row": _, "truncated_cells": [*cut]} if cut:
            fix = "fetch the files themselves, with hf://datasets/OWNER/NAME"
            raise BadRecord("wrong_type", f"the server cut {', '.join(cut)} short; {fix}")
        case {"row_idx": _, "row": row}:
            return row
        case value:
            return value


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


def _elements(
    text: io.TextIOBase, path: str, line: int, parse: Callable[[str], object] = _parse
) -> Items:
    """The records of an array, each held until it is known whether another shares its line.

    `text` is what follows the opening bracket of the array, which is on `line`.
    """
    shared = False
    found = chain(_sources(text, path, line), [("", 0)])
    for record, ((source, line), (_, following)) in enumerate(pairwise(found), start=1):
        shared_before, shared = shared, line == following
        location = Location(path, line, record, shared_before or shared)
        yield read_or_reject(location, parse, _raw, source)


def _sources(text: io.TextIOBase, path: str, line: int) -> Iterator[tuple[str, int]]:
    """The source of each element, valid or not, and its line."""
    buffer, start, record = "", 0, 0
    while more := text.read(max(_CHUNK, len(buffer) - start)):
        check_length(len(buffer) - start, path)
        buffer, start = buffer[start:] + more, 0
        while (end := _end_of_element(buffer, start)) is not None:
            begin = _SPACE.match(buffer, start).end()
            line += line_ends(buffer[start:begin])
            source, mark = buffer[begin:end].rstrip(_BLANK), buffer[end]
            if mark not in ",]":
                raise ConvertError(
                    f"{path}:{line}: expected ',' or ']' after record {record + 1}, which begins "
                    f"here ({clip(source)}); fix the array there"
                )
            if source or mark == ",":
                record += 1
                yield source, line
            line += line_ends(buffer[begin:end])
            if mark == "]":
                if any(rest.strip() for rest in chain([buffer[end + 1 :]], text)):
                    raise ConvertError(
                        f"{path}: text follows the array that ends on line {line}; a .json file "
                        "holds one array"
                    )
                return
            start = end + 1
    line += line_ends(_SPACE.match(buffer, start).group())
    raise ConvertError(
        f"{path}: the array is unfinished: it breaks off on line {line} after record {record}; "
        "fetch the file again"
    )


def _end_of_element(buffer: str, start: int) -> int | None:
    """The offset of what follows the element at `start`; None where that is not in the buffer.

    It is a comma or a closing bracket, unless the element is valid.
    """
    begin = _SPACE.match(buffer, start).end()
    if buffer[begin : begin + 1] in ("[", "{"):
        try:  # much faster than a search for its brackets
            end = _SPACE.match(buffer, _DECODER.raw_decode(buffer, begin)[1]).end()
            return end if end < len(buffer) else None
        except (ValueError, RecursionError):  # it is invalid, or goes on
            pass
    depth = 0
    for found in _MARK.finditer(buffer, begin):
        mark = found.group()
        if mark in ("[", "{"):
            depth += 1
        elif depth == 0 and mark in (",", "]"):
            return found.start()
        elif mark in ("]", "}"):
            depth = max(0, depth - 1)
    return None

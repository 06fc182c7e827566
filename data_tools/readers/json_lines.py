"""JSON Lines: one record a line, each line parsed by itself; blank lines are no records."""

import json
from collections.abc import Callable, Iterable, Iterator

from data_tools import strict_json
from data_tools.readers.text import MARK, check_text, printable, read_or_reject
from data_tools.record import BadRecord, ConvertError, Location, Record, Reject


def read(text: Iterable[str], path: str, note: Callable[[str], None]) -> Iterator[Record | Reject]:
    """Yield the records of an open text file whose line ends are untouched.

    Raises ConvertError for an array over several lines, none of which would be a record.
    """
    for item in records((line.rstrip("\r\n") for line in text), path):
        if isinstance(item, Reject) and item.location.record == 1 and _opens_an_array(item):
            fix = "save it as a .json file" if path == "-" else "rename it to .json"
            raise ConvertError(f"{path}: its content is a JSON array; {fix}")
        yield item


def records(
    lines: Iterable[str | bytes], path: str, first_line: int = 1
) -> Iterator[Record | Reject]:
    """Yield the record of each line that is not blank; bytes are UTF-8."""
    record = 0
    for number, line in enumerate(lines, start=first_line):
        if line.startswith(b"{" if isinstance(line, bytes) else "{") or _text(line).strip():
            record += 1
            yield read_or_reject(Location(path, number, record), parse, line, raw)


def parse(source: str | bytes) -> object:
    """The value of a JSON text. Raises BadRecord."""
    try:
        return strict_json.loads(
            source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")
        )
    except BadRecord:
        check_text(_text(source), "the record")
        raise


def raw(source: str | bytes) -> str:
    """The source as a reject shows it."""
    return printable(_text(source).rstrip("\r\n"))


def _text(source: str | bytes) -> str:
    return source if isinstance(source, str) else source.decode("utf-8", MARK)


def _opens_an_array(first: Reject) -> bool:
    """Whether an array begins on the first line and does not end there."""
    if first.reason != "bad_json" or not first.raw.lstrip().startswith("["):
        return False
    try:
        json.loads(first.raw, strict=False)
    except (ValueError, RecursionError) as error:  # others are of an array that is complete
        return isinstance(error, json.JSONDecodeError)
    return False

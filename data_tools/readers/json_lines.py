"""JSON Lines: one record a line, each line judged alone; blank lines are no records."""

import json
from collections.abc import Iterable, Iterator

from data_tools import strict_json
from data_tools.readers.text import bad_strings, bad_text, printable
from data_tools.record import ConvertError, Fault, Place, Raw, Reject


def read(text, path: str, notes: list[str]) -> Iterator[Raw | Reject]:
    """Yield the records of `text`, an open text file whose line ends are untouched.

    Raises ConvertError for an array over several lines, none of which would be a record.
    """
    yield from records(_checked(text, path), path)


def records(lines: Iterable[str], path: str, before: int = 0) -> Iterator[Raw | Reject]:
    """The same of lines that are known to be JSON Lines and have some before them in the file."""
    record = 0
    for number, line in enumerate(lines, start=before + 1):
        if not line.isspace():
            record += 1
            yield parse(line, Place(path, number, record))


def _checked(text: Iterable[str], path: str) -> Iterator[str]:
    first = True
    for line in text:
        if first and not line.isspace():
            first = False
            if line.lstrip().startswith("[") and _breaks_off(line):
                mend = "save it as a .json file" if path == "-" else "rename it to .json"
                raise ConvertError(f"{path}: its content is a JSON array, {mend}")
        yield line


def _breaks_off(line: str) -> bool:
    try:
        json.loads(line, strict=False)
    except json.JSONDecodeError:
        return not bad_text(line, "the record")
    except (ValueError, RecursionError):  # complete, and judged by `parse`
        return False
    return False


def parse(source: str, place: Place, sound: bool = False) -> Raw | Reject:
    """One JSON value as a record, or what is wrong with it; `source` may end in a line end.

    `sound` says that it is known to be text.
    """
    if fault := None if sound else bad_text(source, "the record"):
        return Reject(place, fault, printable(source.rstrip("\r\n")))
    try:
        value = strict_json.loads(source)
    except (ValueError, RecursionError) as error:
        if source.endswith(("\r", "\n")):  # kept so far, since a huge line is costly to copy
            return parse(source.rstrip("\r\n"), place)
        return Reject(place, Fault("bad_json", strict_json.sentence(error)), source)
    if "\\u" in source and (fault := bad_strings(value)):
        return Reject(place, fault, source.rstrip("\r\n"))
    return Raw(place, value)

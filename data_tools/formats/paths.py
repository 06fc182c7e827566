"""Values in records by their paths, checks of what is found there, and JSON in texts.

A path is a field (`prompt`), a field of an object (`input.messages`), a field of every object in a
list (`answers[].text`), or a part of a list: its last entry (`messages[-1]`, which is in a list if
the path ends there) or all entries before the last (`messages[:-1]`). `instruction or messages` is
whichever of the two is not null.
"""

import json
import re
from ast import literal_eval
from collections.abc import Callable, Container
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

from data_tools.formats.label import is_null
from data_tools.readers.json_records import loads
from data_tools.record import BadRecord, clip

JSON_STARTS = "[{ \t\r\n"
"""What a list or an object in JSON may begin with, perhaps after white space."""
_WANTED = {str: "text", list: "a list", dict: "an object"}


class JsonCell(str):
    """A cell of a table that begins as JSON does: it may be a text, or the value that it holds."""

    @cached_property  # answers and their scores may be in one cell
    def parsed(self) -> object:
        """The list or object that the cell holds. Raises BadRecord."""
        return loads(self.encode("utf-8", "surrogatepass"))


@lru_cache
def steps(path: str) -> tuple[str, ...]:
    """The parts of a path, of which the first is the field of a record: `answers`, `[]`, `text`."""
    return tuple(re.findall(r"\[[^]]*\]|[^.\[]+", path))


def is_in(path: str, names: Container[str]) -> bool:
    """Whether a record with these field names may hold a value at the path."""
    return path in names or any(part in names for part in map(root, path.split(" or ")))


def root(path: str) -> str:
    """The field of a record that a path begins with."""
    return (*steps(path), "")[0]


def find(record: dict, path: str) -> tuple[Any, str]:
    """The value at a path without `[]` (None if missing), and where it is. Raises BadRecord."""
    if path in record:
        return record[path], path
    if " or " in path:
        parts = path.split(" or ")
        given = [part for part in parts if record.get(part) is not None]
        if len(given) > 1:
            detail = f"{' and '.join(given)} could both be meant; keep the right one"
            raise BadRecord("wrong_type", detail)
        path = (given or parts)[0]
    value: Any = record
    where = ""
    for step in steps(path):
        if step == "[:-1]":
            return check(value, list, where, "a list of messages")[:-1], where
        if step == "[-1]":
            last = check(value, list, where, "a list of messages")[-1:]
            where = f"the last of {where}"
            if path.endswith(step):
                return last, where
            value = last[0] if last else None
            continue
        value = check(value, dict, where or "the record").get(step)
        where = f"{where}.{step}" if where else step
    return value, where


def find_all(record: dict, path: str, if_null: str = "missing_field") -> list[tuple[Any, str]]:
    """The value at a path, with `[]` every value there, each with where it is. Raises BadRecord.

    `if_null` is the reason where there is no list.
    """
    if "[]" not in path:
        return [find(record, path)]
    path, _, field = path.partition("[]")
    entries, found = find(record, path)[0], []
    if not isinstance(entries, list | JsonCell) and is_null(entries):
        raise BadRecord(if_null, f"{path} is missing or null; it must be a list")
    for number, entry in enumerate(check(entries, list, path)):
        where = f"{path}[{number}]"
        value = check(entry, dict, where).get(field[1:]) if field else entry
        found.append((value, where + field))
    return found


def holds(value: object, field: str) -> bool:
    """Whether the value is an object with the field, or a list with such an object."""
    if isinstance(value, JsonCell):
        with suppress(BadRecord):
            value = parse_json(value, field)
    entries = value if isinstance(value, list) else [value]
    return any(isinstance(entry, dict) and field in entry for entry in entries)


def check(value: object, kind: type, where: str, wanted: str = "") -> Any:
    """The value where it is of this type, in a cell perhaps as JSON.

    Raises BadRecord, which says what was `wanted`.
    """
    if type(value) is JsonCell:
        value = str(value) if kind is str else parse_json(value, where)
    if isinstance(value, kind):
        return value
    wanted = wanted or _WANTED[kind]
    if isinstance(value, dict) and value.keys() == {"base64"}:
        detail = f"{where} holds bytes that do not decode; export that column as text"
        raise BadRecord("bad_encoding", detail)
    if value is None:
        raise BadRecord("missing_field", f"{where} is missing or null; it must be {wanted}")
    raise BadRecord("wrong_type", f"{where} is {clip(value)}; it must be {wanted}")


def may_be_json(value: object) -> bool:
    """Whether a value is a text that begins as a list or an object does in JSON."""
    is_likely = isinstance(value, str) and value[:1] in JSON_STARTS
    return is_likely and value.lstrip()[:1] in ("[", "{")


def parse_json(
    value: object, where: str, is_wanted: Callable[[object], bool] = lambda parsed: True
) -> object:
    """The list or object that a text holds as JSON, if it `is_wanted`; any other value as it is.

    Raises BadRecord where such JSON is unsound.
    """
    if not may_be_json(value):
        return value
    try:
        parsed = (value if isinstance(value, JsonCell) else JsonCell(value)).parsed
    except BadRecord as fault:
        with suppress(ValueError, RecursionError):  # of json.loads, which is lenient
            if is_wanted(json.loads(value)):
                raise BadRecord(fault.reason, f"{where}: {fault.detail}") from None
        return value
    return parsed if is_wanted(parsed) else value


def parse_literal(text: str) -> object:
    """The value that a text holds as JSON or as Python writes it; the text where it holds none."""
    with suppress(BadRecord):
        return loads(text.encode("utf-8", "surrogatepass"))
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return literal_eval(text)
    return text

"""Values in records by their paths, checks of what is found there, and JSON in texts.

A path is a field (`prompt`), a field of an object (`input.messages`), a field of every object in a
list (`answers[].text`), an entry of a list (`turns[0].text`), or a part of a list: its last entry
(`messages[-1]`, which is in a list if the path ends there) or all entries before the last
(`messages[:-1]`). `instruction or messages` is whichever of the two is not null.
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
from data_tools.record import BadRecord, as_json, clip, tidy_name

JSON_STARTS = "[{ \t\r\n"
"""What a list or an object in JSON may begin with, perhaps after white space."""
Column = str | tuple[str, ...]
"""A COLUMN of --map: a path, or a template, or a tuple of the tidy names of columns."""
_PATH = r"[^.,|{}\[\]]+(?:\.[^.,|{}\[\]]+|\[-?\d*\]|\[:-1\])*"
_COLUMN = re.compile(rf"{_PATH}|(?=.*\{{)(?:[^{{}}]|\{{(?:{_PATH})?\}})*", re.DOTALL)
_TEMPLATE = re.compile(r"\{([^{}]*)\}")
MESSAGES = re.compile(
    r"\s*(?:array\()?[\[\s]*\{.*?['\"](?:role|from|content|value|parts)['\"]\s*:", re.DOTALL
)
"""How a text begins that holds messages as JSON, Python or numpy write them."""
_UNREADABLE = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)
_WANTED = {str: "text", list: "a list", dict: "an object"}


class JsonCell(str):
    """A cell of a table that begins as JSON does: it may be a text, or the value that it holds."""

    @cached_property  # answers and their scores may be in one cell
    def parsed(self) -> object:
        """The list or object that the cell holds, as JSON or as Python writes it; else the cell.

        Raises BadRecord where it is not sound, or is none that JSON can hold.
        """
        try:
            return loads(self.encode("utf-8", "surrogatepass"))
        except BadRecord:
            with suppress(ValueError, RecursionError):  # of json.loads, which is lenient
                json.loads(self)
                raise
        with suppress(*_UNREADABLE):
            value = literal_eval(self)
            try:
                return loads(json.dumps(value).encode())
            except TypeError as error:
                detail = f"this holds what JSON cannot hold ({error}); fix the record"
                raise BadRecord("bad_json", detail) from None
        return self


@lru_cache
def steps(path: str) -> tuple[str, ...]:
    """The parts of a path, of which the first is the field of a record: `out`, `[0]`, `text`."""
    return tuple(re.findall(r"\[-?\d+\]|\[:-1\]|[^.\[\]]+", path))


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
        if step == "[-1]" and path.endswith(step):
            return check(value, list, where, "a list of messages")[-1:], f"the last of {where}"
        if step[0] == "[":
            number = int(step[1:-1])
            value = next(iter(check(value, list, where)[number:][:1]), None)
            where = f"the last of {where}" if number == -1 else f"{where}{step}"
        else:
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
    if not isinstance(entries, list) and is_null(entries):
        raise BadRecord(if_null, f"{path} is missing or null; it must be a list")
    for number, entry in enumerate(check(entries, list, path)):
        where = f"{path}[{number}]"
        value = find(check(entry, dict, where), field[1:])[0] if field else entry
        found.append((value, where + field))
    return found


def holds(value: object, field: str) -> bool:
    """Whether the value is an object with the field, or a list with such an object."""
    if isinstance(value, str):
        with suppress(BadRecord):
            value = parse_json(value, field)
    entries = value if isinstance(value, list) else [value]
    return any(isinstance(entry, dict) and field in entry for entry in entries)


def is_valid(column: str) -> bool:
    """Whether a COLUMN of --map is a path or a template."""
    return bool(_COLUMN.fullmatch(column))


def columns_of(column: Column) -> list[str]:
    """The columns that a COLUMN of --map is made of."""
    if not isinstance(column, str):
        return [*column]
    parts = _TEMPLATE.findall(column) if "{" in column else [column]
    return [tidy_name(root(part)) for part in parts if part.strip()]


def value_at(record: dict, column: Column) -> Any:
    """The value at a path, or the text that a template makes of columns; None where one is missing.

    `[]` gives the list of what every entry has there. Raises BadRecord where a template has a list
    or an object.
    """
    if not isinstance(column, str):
        return record.get(column[0])
    if "{" not in column:
        with suppress(BadRecord):
            own = root(column)
            found = find_all(record, tidy_name(own) + column[len(own) :])
            return [value for value, _ in found] if "[]" in column else found[0][0]
        return None
    values = {name: value_at(record, name) for name in _TEMPLATE.findall(column) if name.strip()}
    if None in values.values():
        return None
    if any(isinstance(value, list | dict) for value in values.values()):
        detail = f"{column} has a list or an object where it must have text"
        raise BadRecord("wrong_type", f"{detail}; use a path to a text in it")
    texts = {name: v if isinstance(v, str) else as_json(v) for name, v in values.items()}
    return _TEMPLATE.sub(lambda found: texts.get(found[1], ""), column.replace("\\n", "\n"))


def check(value: object, kind: type, where: str, wanted: str = "") -> Any:
    """The value where it is of this type; a list or an object perhaps in a text, as JSON.

    Raises BadRecord, which says what was `wanted`.
    """
    if isinstance(value, str):
        value = parse_json(value, where) if kind in (list, dict) else str(value)
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
    """The list or object that a text holds, if it `is_wanted`; any other value as it is.

    It may be JSON or as Python writes it. Raises BadRecord where it is not sound.
    """
    if not may_be_json(value):
        return value
    cell = value if isinstance(value, JsonCell) else JsonCell(value)
    try:
        parsed = cell.parsed
    except BadRecord as fault:
        for read in (json.loads, literal_eval):
            with suppress(*_UNREADABLE):
                if is_wanted(read(value)):
                    raise BadRecord(fault.reason, f"{where}: {fault.detail}") from None
        return value
    return parsed if parsed is not cell and is_wanted(parsed) else value


def is_blank(value: object) -> bool:
    """Whether a value, also one stored as text, holds nothing but nulls, empty texts and false."""
    if isinstance(value, str):
        with suppress(BadRecord):
            value = parse_json(value, "")
    if isinstance(value, list | dict):
        return all(map(is_blank, value.values() if isinstance(value, dict) else value))
    return is_null(value) if isinstance(value, str) else not value

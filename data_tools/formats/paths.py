"""Values in records by their paths, and checks of what is found there.

A path is a field (`prompt`), a field of an object (`input.messages`), a field of every object in a
list (`answers[].text`), the last entry of a list (`messages[-1]`) or all entries before the last
(`messages[:-1]`). `instruction or messages` is whichever of the two is not null.
"""

import re
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import Any

from data_tools.formats.label import is_null
from data_tools.record import BadRecord, clip


@lru_cache
def fields(path: str) -> tuple[str, ...]:
    """The fields of a record that a path begins with: several where it has alternatives."""
    return tuple(re.split(r"[.\[]", alternative)[0] for alternative in path.split(" or "))


def is_in(path: str, names: Container[str]) -> bool:
    """Whether a record with these field names may hold a value at the path."""
    return path in names or any(field in names for field in fields(path))


@lru_cache
def _steps(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[[^]]*\]|[^.\[]+", path))


def find(record: dict, path: str) -> tuple[Any, str]:
    """The value at a path without `[]` (None if missing), and where it is. Raises BadRecord."""
    if path in record:
        return record[path], path
    if " or " in path:
        path = given(record, path.split(" or "), (None,)) or path.split(" or ")[0]
    value: Any = record
    where = ""
    for step in _steps(path):
        if step == "[:-1]":
            return check_list(value, where, "a list of messages")[:-1], where
        if step == "[-1]":
            entries = check_list(value, where, "a list of messages")
            if not entries:
                raise BadRecord(
                    "bad_roles", f"{where} is empty; it must end with the assistant's answer"
                )
            where = f"the last of {where}"
            return check_object(entries[-1], where), where
        value = check_object(value, where or "the record").get(step)
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
    for number, entry in enumerate(check_list(entries, path)):
        where = f"{path}[{number}]"
        value = check_object(entry, where).get(field[1:]) if field else entry
        found.append((value, where + field))
    return found


def given(record: dict, names: Sequence[str], empty: tuple = (None, "")) -> str | None:
    """The one of the fields that is not empty, if any. Raises BadRecord for two."""
    found = [name for name in names if record.get(name) not in empty]
    if len(found) > 1:
        detail = f"{found[0]} and {found[1]} could both be meant; keep the right one"
        raise BadRecord("wrong_type", detail)
    return found[0] if found else None


def not_a(wanted: str, value: object, where: str) -> BadRecord:
    """The fault of a value that is missing or of the wrong type."""
    if value is None:
        return BadRecord("missing_field", f"{where} is missing or null; it must be {wanted}")
    return BadRecord("wrong_type", f"{where} is {clip(value)}; it must be {wanted}")


def check_text(value: object, where: str, wanted: str = "text") -> str:
    """The value where it is text. Raises BadRecord."""
    if not isinstance(value, str):
        raise not_a(wanted, value, where)
    return value


def check_list(value: object, where: str, wanted: str = "a list") -> list:
    """The value where it is a list. Raises BadRecord."""
    if not isinstance(value, list):
        raise not_a(wanted, value, where)
    return value


def check_object(value: object, where: str, wanted: str = "an object") -> dict:
    """The value where it is an object. Raises BadRecord."""
    if not isinstance(value, dict):
        raise not_a(wanted, value, where)
    return value

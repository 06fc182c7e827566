"""Values in records by their paths, checks of what is found there, and JSON in texts.

A path is a field (`prompt`), a field of an object (`input.messages`), a field of every object in a
list (`answers[].text`), or a part of a list: its last entry (`messages[-1]`) or all entries before
the last (`messages[:-1]`). `instruction or messages` is whichever of the two is not null.
"""

import json
import re
from collections.abc import Container
from contextlib import suppress
from functools import lru_cache
from typing import Any

from data_tools import strict_json
from data_tools.formats.label import is_null
from data_tools.record import BadRecord, clip

_WANTED = {str: "text", list: "a list", dict: "an object"}
_TURN = ({"role", "content"}, {"role", "tool_calls"}, {"from", "value"})


@lru_cache
def root(path: str) -> str:
    """The field of a record that a path begins with."""
    return re.split(r"[.\[]", path)[0]


def is_in(path: str, names: Container[str]) -> bool:
    """Whether a record with these field names may hold a value at the path."""
    return path in names or any(root(part) in names for part in path.split(" or "))


@lru_cache
def _steps(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[[^]]*\]|[^.\[]+", path))


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
    for step in _steps(path):
        if step == "[:-1]":
            return check(value, list, where, "a list of messages")[:-1], where
        if step == "[-1]":
            return check(value, list, where, "a list of messages")[-1:], f"the last of {where}"
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
        value = check(entry, dict, where).get(field[1:]) if field else entry
        found.append((value, where + field))
    return found


def check(value: object, kind: type, where: str, wanted: str = "") -> Any:
    """The value where it is of this type. Raises BadRecord, which says what was `wanted`."""
    if isinstance(value, kind):
        return value
    wanted = wanted or _WANTED[kind]
    if value is None:
        raise BadRecord("missing_field", f"{where} is missing or null; it must be {wanted}")
    raise BadRecord("wrong_type", f"{where} is {clip(value)}; it must be {wanted}")


def is_dialogue(value: object) -> bool:
    """Whether a value is a message or a list of messages."""
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(
        isinstance(turn, dict) and any(names <= turn.keys() for names in _TURN) for turn in turns
    )


def parse_json(value: object, where: str, only_dialogues: bool = False) -> object:
    """The list or object that a text holds as JSON; any other value as it is.

    With `only_dialogues`, only messages count. Raises BadRecord where such JSON is unsound.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        parsed = strict_json.loads(value.encode("utf-8", "surrogatepass"))
    except BadRecord as fault:
        with suppress(ValueError, RecursionError):  # of json.loads, which is lenient
            if is_dialogue(json.loads(value)) or not only_dialogues:
                raise BadRecord(fault.reason, f"{where}: {fault.detail}") from None
        return value
    return parsed if not only_dialogues or is_dialogue(parsed) else value

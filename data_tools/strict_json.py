"""JSON that means one thing: no key twice, no NaN, no number out of range, no endless nesting."""

import json
import math
from collections import Counter
from typing import Any

from data_tools.record import clip

MAX_DIGITS = 4300  # of a whole number: json, which writes the rejects, takes no longer one
MAX_DEPTH = 200  # real records nest below ten; json and its writer recurse once a level


def loads(source: str) -> Any:
    """The value of a JSON text. Raises ValueError or RecursionError, which `sentence` words."""
    if source.count("{") + source.count("[") > MAX_DEPTH:
        _check_depth(source)
    if source.startswith("\ufeff"):
        return json.loads(source)  # which refuses it, and says why
    return _DECODER.decode(source)


def sentence(error: Exception) -> str:
    """What is wrong with a JSON text, and the mend."""
    if isinstance(error, json.JSONDecodeError):
        return (
            f"this is not valid JSON: {error.msg} at character {error.pos + 1}; "
            "mend the record or leave it out"
        )
    return f"{error or 'nested too deeply'}; mend the record or leave it out"


def _unique(pairs: list) -> dict:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object, so its value is unclear")
    return value


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON value; write null or a number")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"the number {clip(digits)} has too many digits ({len(digits)})")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {clip(digits)} is too large")
    return value


def _check_depth(source: str) -> None:
    depth, inside, escaped = 0, False, False
    for char in source:
        if inside:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif char in "}]":
            depth -= 1


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_whole,
)

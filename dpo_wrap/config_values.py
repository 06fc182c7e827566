"""One value of a config against what its key admits: the value to use, or what is wrong with it."""

import datetime
import difflib
import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from dpo_wrap.library_fields import Kind

SPOKEN = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "null": "null",
}
LONGEST = 80
"""Letters of a value that a message shows."""
# YAML 1.1 reads these words as booleans; where a key's values are words, the word was meant.
WORDS_OF = {False: ("no", "off"), True: ("on", "yes")}


class Complaint(Exception):  # noqa: N818 - a fault of the data on its way to a list, not a failure
    """What is wrong with a value; always gathered, never shown as a traceback."""


@dataclass(frozen=True)
class Range:
    """The numbers that a key admits beyond its type, ends included unless `above` or `below`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    apart: tuple[float, ...] = ()
    """Values outside the range that have a meaning of their own."""

    def holds(self, number: float) -> bool:
        return number in self.apart or (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        ends = {
            "at least": self.least,
            "above": self.above,
            "at most": self.most,
            "below": self.below,
        }
        text = " and ".join(f"{word} {end:.12g}" for word, end in ends.items() if end is not None)
        return " or ".join([text, *(f"{value:g}" for value in self.apart)])


@dataclass(frozen=True)
class Reads:
    """The words of a key whose code reads one of these names (readers.py)."""

    names: tuple[str, ...]


GIVEN = object()
"""Stands for any value but null, false and empty text."""


def matches(value: Any, wanted: Any) -> bool:
    """Whether a value, or one of a list, is the one wanted; words are patterns, Ranges hold."""
    if isinstance(value, list):
        return wanted is GIVEN or any(
            matches(item, wanted) for item in value if not isinstance(item, list)
        )
    if wanted is GIVEN:
        return value is not None and value is not False and value != ""
    if isinstance(wanted, Range):
        return _is_count(value) and wanted.holds(value)
    if isinstance(value, str) and isinstance(wanted, str):
        return fnmatchcase(value, wanted)
    return type(value) is type(wanted) and value == wanted


def settle(value: Any, kind: Kind, limits: Range | None = None) -> Any:
    """The value as the key takes it; raises Complaint where it is none of the key's."""
    settled = _typed(value, kind)
    if limits:
        for number in _numbers(settled):
            if not limits.holds(number):
                raise Complaint(f"{number!r} is out of range; it must be {limits}")
    return settled


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The known name most like the word, whatever its case, or None where none is."""
    lower = {name.lower(): name for name in known}
    return next((lower[n] for n in difflib.get_close_matches(word.lower(), lower, n=1)), None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> list[int | float]:
    """The value where it is a number, else the numbers in its list or mapping."""
    inside = value.values() if isinstance(value, dict) else value
    inside = inside if isinstance(value, dict | list) else [value]
    return [item for item in inside if _is_count(item)]


def _typed(value: Any, kind: Kind) -> Any:
    if "any" in kind.names:
        return value
    if value is None and "null" in kind.names:
        return value
    if isinstance(value, bool):
        return _truth(value, kind)
    if isinstance(value, int | float):
        return _number(value, kind)
    if isinstance(value, str) and "str" in kind.names:
        return _word(value, kind)
    if isinstance(value, list) and "list" in kind.names:
        return [_typed(item, kind.element) if kind.element else item for item in value]
    if isinstance(value, dict) and "dict" in kind.names:
        return value
    if isinstance(value, str) and kind.names & {"int", "float"} and _is_number(value):
        raise Complaint(f"{_expected(kind)} expected, found {_found(value)}; remove the quotes")
    raise Complaint(f"{_expected(kind)} expected, found {_found(value)}")


def _truth(value: bool, kind: Kind) -> Any:
    if "bool" in kind.names:
        return value
    word = next((word for word in WORDS_OF[value] if word in kind.choices), None)
    if word is None:
        hint = "; put the word in quotes" if "str" in kind.names and not kind.choices else ""
        raise Complaint(f"{_expected(kind)} expected, found {_found(value)}{hint}")
    return word


def _number(value: int | float, kind: Kind) -> Any:
    if not kind.names & {"int", "float"}:
        hint = "; put it in quotes" if "str" in kind.names and not kind.choices else ""
        raise Complaint(f"{_expected(kind)} expected, found {_found(value)}{hint}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise Complaint(f"{_quoted(value)} is out of range; it must be below 2**63")
    if isinstance(value, float) and not math.isfinite(value):
        raise Complaint(f"a finite number expected, found {value}")
    if isinstance(value, float) and "float" not in kind.names:
        raise Complaint(f"{_expected(kind)} expected, found {value!r}")
    return value


def _word(value: str, kind: Kind) -> str:
    if kind.choices and not any(fnmatchcase(value, choice) for choice in kind.choices):
        like = nearest(value, kind.choices)
        hint = f"did you mean {like!r}? " if like else ""
        raise Complaint(f"{_quoted(value)} is unknown; {hint}known: {', '.join(kind.choices)}")
    return value


def _is_number(text: str) -> bool:
    try:
        # Python reads 1_000 as a number, YAML 1.2 does not.
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _expected(kind: Kind) -> str:
    if kind.choices:
        return f"one of {', '.join(kind.choices)}"
    # "a number" covers integers; null is worth naming only beside nothing else.
    names = kind.names - {"null"} - ({"int"} if "float" in kind.names else set())
    parts = [SPOKEN[name] for name in SPOKEN if name in names]
    if "list" in names and kind.element and "str" in kind.element.names:
        parts[parts.index("a list")] = "a list of texts"
    return " or ".join(parts)


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date):
        return f"the date {value}; put it in quotes"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return f"the text {_quoted(value)}" if isinstance(value, str) else _quoted(value)


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

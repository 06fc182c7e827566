"""One block of records through format and rules: pure, so that any worker can run it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from data_tools import rules
from data_tools.formats import FORMATS
from data_tools.formats.shape import Format, Meaning, tidy_keys
from data_tools.record import Fault, Pair, Place, Raw, Reject, clip


@dataclass(frozen=True)
class Task:
    """What to do with every record: its shape, what its labels mean, limits, columns to keep."""

    shape: Format
    meaning: Meaning
    limits: rules.Limits
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """One record after format and rules.

    `results` holds a `Pair` for each one that passed and a `Fault` for each that did not, `odd`
    beside it the warnings of each; where the record made no pair at all, `made` is 0 and
    `results` is the one fault that says why.
    """

    place: Place
    raw: Any
    made: int
    results: tuple[Pair | Fault, ...]
    odd: tuple[tuple[str, ...], ...] = ((),)
    kept: tuple[str | None, ...] = ()


def check(items: Iterable[Raw | Reject], task: Task) -> Iterator[Checked]:
    """Every record that was read, in order, with what became of it."""
    for item in items:
        if isinstance(item, Reject):
            yield Checked(item.place, item.raw, 0, (item.fault,))
            continue
        pairs = make_pairs(item.value, task)
        if isinstance(pairs, Fault):
            yield Checked(item.place, item.value, 0, (pairs,))
            continue
        source = str(item.place)
        results = tuple(rules.check(pair, source, task.limits) or pair for pair in pairs)
        odd = tuple(rules.warnings(r) if isinstance(r, Pair) else () for r in results)
        record = tidy_keys(item.value) if task.keep else item.value
        kept = tuple(_as_text(record.get(name)) for name in task.keep)
        yield Checked(item.place, item.value, len(pairs), results, odd, kept)


def make_pairs(value: Any, task: Task) -> list[Pair] | Fault:
    """The pairs of one record, or its fault; a stray record is told which shape it looks like."""
    if not isinstance(value, dict):
        return Fault("wrong_type", f"the record is {clip(value)}, not an object with fields")
    record = tidy_keys(value)
    pairs = task.shape.pairs(record, task.meaning)
    if isinstance(pairs, Fault) and not task.shape.matches(record):
        others = [name for name, shape in FORMATS.items() if shape.matches(record)]
        if others:
            return Fault(pairs.reason, f"{pairs.detail}; it looks like {' or '.join(others)}")
    return pairs


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)

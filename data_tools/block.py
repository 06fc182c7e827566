"""One block of records through format and rules: pure, so that any worker can run it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from data_tools import odd, rules, votes
from data_tools.agreement import Ballot
from data_tools.formats import FORMATS, fitting, flat
from data_tools.formats.cells import unfold
from data_tools.formats.repeats import without_prompt
from data_tools.formats.shape import Format, Meaning, tidy_key, tidy_keys
from data_tools.keys import judged_key, pair_key, prompt_key
from data_tools.record import Fault, Judged, Pair, Part, Place, Raw, Reject, clip, first_fault

MEDIA = ("images", "videos", "audios")
"""Fields whose content no pair can hold, in small letters."""


@dataclass(frozen=True)
class Task:
    """What to do with every record: its shape, what its labels mean, limits, columns to keep."""

    shape: Format
    meaning: Meaning
    limits: rules.Limits
    keep: tuple[str, ...] = ()
    annotators: str = "majority"
    mapping: tuple[tuple[str, str], ...] = ()  # what --map says, where the shape is its own

    def __reduce__(self):
        """A shape is made of functions, which do not travel; its name does, or its mapping."""
        return _task, (self.shape.name, *(getattr(self, f.name) for f in fields(self)[1:]))


def _task(name: str, *rest: Any) -> Task:
    mapping = rest[-1]
    return Task(flat.mapped(dict(mapping)) if mapping else FORMATS[name], *rest)


@dataclass(frozen=True, slots=True)
class Checked:
    """One record after format and rules, or what several records come to together.

    `results` holds a `Pair` for each one that passed, a `Fault` for each that did not, a `Part`
    for what waits for other records; `odd` beside it the warnings of each. Where the record made
    no pair and holds no part, `made` is 0 and `results` is the one fault that says why.
    `members` are the indexes of the records that take part, `places` where they stand; empty for
    the record alone.
    """

    place: Place
    raw: Any
    made: int
    results: tuple[Pair | Part | Fault, ...]
    odd: tuple[tuple[str, ...], ...] = ((),)
    kept: tuple[str | None, ...] = ()
    ballots: tuple[Ballot, ...] = ()
    members: tuple[int, ...] = ()
    places: tuple[Place, ...] = ()


def check(items: Iterable[Raw | Reject], task: Task, salt: bytes = b"") -> Iterator[Checked]:
    """Every record that was read, in order, with what became of it.

    `salt` tells these records from others of the same places, where places are counted from
    somewhere within a file.
    """
    for item in items:
        if isinstance(item, Reject):
            yield Checked(item.place, item.raw, 0, (item.fault,))
            continue
        parts = parts_of(item, task)
        if isinstance(parts, Fault):
            yield Checked(item.place, item.value, 0, (parts,), ballots=_ballots(item, task, salt))
            continue
        found, ballots = [], []
        for part in parts:
            if not isinstance(part, Judged):
                found.append(part)
                continue
            key, forward = judged_key(part)
            unit = key if part.across else key + salt + str(item.place).encode()
            ballots.append(Ballot(unit, part.votes, swapped=not forward))
            alone = not part.across or task.annotators == "each"
            found += votes.decide(part, task.annotators) if alone else [part]
        yield judge(item.place, item.value, found, task, kept(item.value, task), tuple(ballots))


def judge(
    place: Place,
    raw: Any,
    found: list[Pair | Part | Fault],
    task: Task,
    kept: tuple[str | None, ...] = (),
    ballots: tuple[Ballot, ...] = (),
) -> Checked:
    """What was found in one record, after the rules."""
    if all(isinstance(part, Fault) for part in found):
        return Checked(place, raw, 0, (first_fault(found),), ballots=ballots)
    results = tuple(ruled(part, place, task) for part in found)
    made = sum(isinstance(part, Pair | Fault) for part in found)
    return Checked(place, raw, made, results, warned(results), kept, ballots)


def ruled(part: Pair | Part | Fault, place: Place, task: Task) -> Pair | Part | Fault:
    """A pair, or the first rule that it breaks; parts and faults as they are."""
    if not isinstance(part, Pair):
        return part
    fault = rules.check(part, str(place), task.limits)
    if fault is not None and fault.reason == "excluded":
        return replace(fault, comparison=pair_key(part, prompt_key(part.prompt)))
    return fault or part


def warned(results: tuple) -> tuple[tuple[str, ...], ...]:
    """The warnings beside each result."""
    return tuple(odd.warnings(part) if isinstance(part, Pair) else () for part in results)


def parts_of(item: Raw, task: Task) -> list[Pair | Part | Fault] | Fault:
    """What one record holds, or its fault; a stray record is told which shape it looks like."""
    if not isinstance(item.value, dict):
        return Fault("wrong_type", f"the record is {clip(item.value)}, not an object with fields")
    record = tidy_keys(item.value)
    if item.cells:
        record = unfold(record, task.shape)
        if isinstance(record, Fault):
            return record
    for name, value in record.items():
        if name.casefold() in MEDIA and value not in (None, False, 0, "", "[]", [], {}):
            what = f"{name} beside the text cannot be trained on here; leave the record out"
            return Fault("wrong_type", what)
    parts = task.shape.pairs(record, task.meaning)
    if isinstance(parts, Fault) and not task.shape.matches(record) and (others := fitting(record)):
        return Fault(parts.reason, f"{parts.detail}; it looks like {' or '.join(others)}")
    if task.meaning.answers_repeat_prompt and isinstance(parts, list):
        return [without_prompt(part) for part in parts]
    return parts


def _ballots(item: Raw, task: Task, salt: bytes) -> tuple[Ballot, ...]:
    """What the annotators of a record said that is at fault as a whole."""
    if task.shape.votes is None or not isinstance(item.value, dict):
        return ()
    given = task.shape.votes(tidy_keys(item.value), task.meaning)
    return (Ballot(salt + str(item.place).encode(), given),) if given else ()


def kept(value: dict, task: Task) -> tuple[str | None, ...]:
    record = tidy_keys(value) if task.keep else value
    return tuple(as_text(record.get(tidy_key(name))) for name in task.keep)


def as_text(value: Any) -> str | None:
    """What is kept of a field beside the pair."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)

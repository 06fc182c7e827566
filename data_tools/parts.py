"""What became of one block of records, in files of its own between the two passes.

`NAME.numbers` holds what is counted of each pair that passed every rule of its own, `NAME.plain`
and `NAME.arrow` the texts of those that cannot simply be read again, `NAME.rest` what was rejected.
All are in the order of the records.
"""

import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

from data_tools.layout import SIDES, Layout, LayoutFinder, dump
from data_tools.odd import PAIR_WARNINGS, loose_key
from data_tools.record import Fault, Pair, Place
from data_tools.settle import Split, entry
from data_tools.side import size

_BITS = {code: 1 << bit for bit, code in enumerate(PAIR_WARNINGS)}
SLOTS = 1 << 32  # results of one record, in the order of everything in a block

NUMBERS = {
    "order": np.uint64,  # SLOTS times the record's index in its block, and the slot within it
    "line": np.uint32,  # 0 for none
    "record": np.uint32,
    "crowded": np.uint8,
    "start": np.uint64,  # bytes of its file before it; 0 where that is not known
    "length": np.uint32,  # bytes of it
    "again": np.uint8,  # 0 where its texts are stored, else which answer is the chosen one: 1, 2
    "odd": np.uint16,  # a bit for each of PAIR_WARNINGS
    "first_won": np.int8,  # -1 where the shape has no order of presentation
    "prompt_size": np.uint32,  # characters
    "chosen_size": np.uint32,
    "rejected_size": np.uint32,
    "in_test": np.uint8,  # whether the split's hash holds the prompt out
    "loose": np.uint64,  # the prompt's loose key
    "has_loose": np.uint8,  # whether it has one
}
"""Columns of numbers beside the sides of the pairs, none of them with nulls."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A fault with its place in the order of the block; `made` says that it is of a pair."""

    order: int
    place: Place
    fault: Fault
    raw: Any
    made: bool
    places: tuple[Place, ...] = ()


@dataclass
class Rest:
    """What a part holds beside its columns: the rejects, and what only some pairs have.

    `raws` are the records of all pairs as they were read, None where the input can be read again.
    `members` and `places` are those of pairs that several records make together, by their row.
    """

    rejected: list[Rejected] = field(default_factory=list)
    raws: list[Any] | None = None
    members: dict[int, tuple[int, ...]] = field(default_factory=dict)
    places: dict[int, tuple[Place, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Again:
    """How the texts of plain rows are read again: from which cells of their file."""

    file: str
    names: tuple[str, ...]
    delimiter: str
    prompt: int
    answers: tuple[int, int]
    keep: tuple[int | None, ...]


@dataclass
class Content:
    """One block: its pairs in numbers and columns, their entries for settling, and the rest.

    The texts of plain rows, prompt and answers in the order shown and what is kept, are read
    `again` or stand in `plain`; `columns` are those of all other pairs.
    """

    numbers: dict[str, np.ndarray]
    columns: dict[str, pa.Array]
    plain: dict[str, pa.Array]
    again: Again | None
    layout: Layout
    finder: LayoutFinder
    entries: bytes
    rest: Rest


def bits(codes: Iterable[str]) -> int:
    """The warnings of a pair as one number."""
    return sum(_BITS[code] for code in codes)


def gather(
    checked: Iterable[tuple[int, Any]], split: Split, keep: Sequence[str], again: bool
) -> Content:
    """The content of a block from its checked records and their indexes in it.

    `again` says that they can be read again.
    """
    finder, rest = LayoutFinder(), Rest(raws=None if again else [])
    pairs: list[Pair] = []
    entries, kept = bytearray(), []
    numbers: dict[str, list[int]] = {name: [] for name in NUMBERS}
    for index, found in checked:
        place = found.place
        for slot, (result, odd) in enumerate(zip(found.results, found.odd, strict=True)):
            order = index * SLOTS + slot
            if isinstance(result, Fault):
                made = found.made > 0
                rest.rejected.append(Rejected(order, place, result, found.raw, made, found.places))
                continue
            finder.add(result)
            sizes = [size(side) for side in (result.prompt, result.chosen, result.rejected)]
            made = entry(result, split)
            loose = loose_key(result.prompt)
            won = -1 if result.first_won is None else int(result.first_won)
            test = bool(made[15] & 2)
            where = (place.line or 0, place.record, place.crowded, 0, 0, 0)
            row = (order, *where, bits(odd), won, *sizes, test)
            for values, value in zip(
                numbers.values(), (*row, loose or 0, loose is not None), strict=True
            ):
                values.append(value)
            if found.members:
                rest.members[len(pairs)] = found.members
                rest.places[len(pairs)] = found.places
            if rest.raws is not None:
                rest.raws.append(found.raw)
            pairs.append(result)
            kept.append(found.kept)
            entries += made
    layout = finder.layout(tuple(keep))
    columns = {
        name: layout.array([getattr(pair, name) for pair in pairs], role) for name, role in SIDES
    }
    if layout.tools:
        columns["tools"] = pa.array([pair.tools for pair in pairs], pa.string())
    if layout.kwargs:
        texts = [dump(pair.chat_template_kwargs) for pair in pairs]
        columns["chat_template_kwargs"] = pa.array(texts, pa.string())
    for at, name in enumerate(keep):
        columns[f"keep {name}"] = pa.array([values[at] for values in kept], pa.string())
    counted = {name: np.array(numbers[name], kind) for name, kind in NUMBERS.items()}
    return Content(counted, columns, {}, None, layout, finder, bytes(entries), rest)


def merge(one: Content, other: Content) -> Content:
    """Two contents of one block in the order of its records: of plain rows, and of all others."""
    order = np.concatenate([content.numbers["order"] for content in (one, other)]).argsort()
    raws = None
    if one.rest.raws is not None:
        both = one.rest.raws + other.rest.raws
        raws = [both[row] for row in order.tolist()]
    numbers = {
        name: np.concatenate((one.numbers[name], other.numbers[name]))[order] for name in NUMBERS
    }
    entries = np.frombuffer(one.entries + other.entries, "V16")[order].tobytes()
    finder = LayoutFinder()
    finder.merge(one.finder)
    finder.merge(other.finder)
    return replace(
        other,
        numbers=numbers,
        plain=one.plain,
        again=one.again,
        finder=finder,
        entries=entries,
        rest=replace(other.rest, raws=raws),
    )


def write(content: Content, path: str) -> int:
    """Write the files, each whole before it has its name; returns their bytes."""
    size = 0
    for ending, value in (
        ("rest", (content.layout, _flat(content.rest))),
        ("numbers", (content.numbers, content.again)),
    ):
        with _named_when_whole(f"{path}.{ending}") as name, open(name, "wb") as file:
            pickle.dump(value, file, protocol=5)
            size += file.tell()
    for ending, columns in (("arrow", content.columns), ("plain", content.plain)):
        if not columns:
            continue
        batch = pa.record_batch(columns)
        with _named_when_whole(f"{path}.{ending}") as name, pa.OSFile(name, "wb") as file:
            with pa.ipc.new_file(file, batch.schema) as sink:
                sink.write_batch(batch)
            size += file.tell()
    return size


def _flat(rest: Rest) -> tuple:
    """The rest in plain tuples, which pickle several times faster than frozen objects."""
    rejected = [
        (r.order, *_numbers(r.place), r.fault.reason, r.fault.detail, r.raw, r.made, r.places)
        for r in rest.rejected
    ]
    return rejected, rest.raws, rest.members, rest.places


def _numbers(place: Place) -> tuple:
    return place.file, place.line, place.record, place.crowded


class _named_when_whole:  # noqa: N801 - read like the function of contextlib that it stands for
    def __init__(self, path: str):
        self.path, self.aside = path, f"{path}.{uuid4().hex}"

    def __enter__(self) -> str:
        return self.aside

    def __exit__(self, kind, *_: object) -> None:
        if kind is None:
            os.replace(self.aside, self.path)


class Part:
    """A part that was written; only what is asked for is read."""

    def __init__(self, path: str):
        self._path = path

    @cached_property
    def _counted(self) -> tuple[dict[str, np.ndarray], Again | None]:
        with open(f"{self._path}.numbers", "rb") as file:
            return pickle.load(file)

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """The columns of NUMBERS."""
        return self._counted[0]

    @property
    def again(self) -> Again | None:
        return self._counted[1]

    @cached_property
    def batch(self) -> pa.RecordBatch:
        """The texts of pairs that are not plain rows."""
        return self._read("arrow")

    @cached_property
    def plain(self) -> pa.RecordBatch:
        """The texts of plain rows, where they are stored."""
        return self._read("plain")

    def _read(self, ending: str) -> pa.RecordBatch:
        with pa.OSFile(f"{self._path}.{ending}") as file:
            return pa.ipc.open_file(file).get_batch(0)

    @cached_property
    def _rest(self) -> tuple[Layout, tuple]:
        with open(f"{self._path}.rest", "rb") as file:
            return pickle.load(file)

    @property
    def layout(self) -> Layout:
        return self._rest[0]

    @property
    def raws(self) -> list[Any] | None:
        return self._rest[1][1]

    @property
    def members(self) -> dict[int, tuple[int, ...]]:
        return self._rest[1][2]

    @property
    def places(self) -> dict[int, tuple[Place, ...]]:
        return self._rest[1][3]

    def rejected(self, lines: int, records: int) -> Iterator[Rejected]:
        """What the first pass rejected; the numbers are what stands before the block."""
        for order, file, line, record, crowded, reason, detail, raw, made, places in self._rest[1][
            0
        ]:
            place = Place(file, None if line is None else line + lines, record + records, crowded)
            yield Rejected(order, place, Fault(reason, detail), raw, made, places)

    def place(self, row: int, file: str, lines: int, records: int) -> Place:
        """Where a pair's record stands; the numbers are of lines and records before the block."""
        line, record, crowded = (self.numbers[name][row] for name in ("line", "record", "crowded"))
        place = Place(file, int(line) or None, int(record), bool(crowded))
        return place.moved(lines, records)

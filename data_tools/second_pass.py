"""The second pass, for some blocks in a row: their parts into one shard of each split.

Pure but for the files that it writes, so that any worker can run it, and run it again.
"""

import heapq
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_tools import writer
from data_tools.alike import AlikePrompts
from data_tools.columnar import delimited
from data_tools.figures import Figures
from data_tools.layout import SIDES, Layout
from data_tools.parts import SLOTS, Part, Rejected
from data_tools.readers import Stretch
from data_tools.record import Fault, Place
from data_tools.settle import CONTRADICTORY, DUPLICATE, TEST, TRAIN

_OPEN = 8  # parts that are held open, for pairs that name one in another part
_SPLITS = {"train": TRAIN, "test": TEST}


@dataclass(frozen=True)
class Block:
    """One block as the second pass needs it: its part, and what stands before it."""

    part: str
    file: str
    lines: int  # of its file before it
    records: int
    first: int  # number of its first pair
    pairs: int
    stretch: Stretch | None  # where its records can be read again

    def place(self, row: int) -> Place:
        return _part(self.part).place(row, self.file, self.lines, self.records)


@dataclass(frozen=True)
class Job:
    """A shard to write. `directory` is where; None where everything is only counted."""

    number: int
    blocks: Sequence[Block]
    verdicts: np.ndarray  # of all pairs of these blocks
    first: np.ndarray  # for each that is dropped, the number of its group's first pair
    again: dict[int, Place]  # kept pairs that --exclude-rows lists at another place, by number
    every: Sequence[Block]  # of the whole conversion, in which the first ones stand
    layout: Layout
    directory: str | None
    kind: str
    candidates: str  # a file of the loose keys of prompts that may be in test, sorted


@dataclass
class Done:
    """What one shard came to."""

    figures: Figures
    alike: AlikePrompts
    shards: dict[str, writer.Shard]
    rejects: str | None
    members: list[int] = field(default_factory=list)  # records that make kept pairs with others


def run(job: Job) -> Done:
    """Write one shard of each split and the rejects of its blocks, and count them."""
    done = Done(
        Figures("", "", [], {}), AlikePrompts(np.load(job.candidates, mmap_mode="r")), {}, None
    )
    at = dropped = 0
    with writer.ShardSink(job.directory, job.number, job.layout, job.kind) as sink:
        for block in job.blocks:
            verdicts = job.verdicts[at : at + block.pairs]
            count = int(np.count_nonzero(verdicts >= CONTRADICTORY))
            first = job.first[dropped : dropped + count]
            at, dropped = at + block.pairs, dropped + count
            _kept(block, verdicts, job, sink, done)
            for rejected in heapq.merge(
                _part(block.part).rejected(block.lines, block.records),
                _dropped(block, verdicts, first, job),
                key=attrgetter("order"),
            ):
                done.figures.reject(rejected.place, rejected.fault, rejected.made)
                sink.reject(rejected)
        done.shards, done.rejects = sink.close()
    return done


def _kept(block: Block, verdicts: np.ndarray, job: Job, sink: writer.ShardSink, done: Done) -> None:
    part = _part(block.part)
    alive = verdicts < CONTRADICTORY
    rows, in_test = np.flatnonzero(alive), verdicts[alive] == TEST
    numbers = {name: values[alive] for name, values in part.numbers.items()}
    done.figures.keep(numbers, in_test, lambda row: block.place(int(rows[row])))
    has = numbers["has_loose"].astype(bool)
    done.alike.add(numbers["loose"][has], in_test[has])
    data = lru_cache(1)(lambda: block.stretch.read())  # once, for both splits
    for split, verdict in _SPLITS.items() if job.directory is not None else ():
        chosen = verdicts == verdict
        if chosen.any():
            mine = {name: values[chosen] for name, values in part.numbers.items()}
            sink.keep(split, _table(_Chosen(part, chosen, mine, block, data), job.layout))
    for row in rows if job.again else ():
        if listed := job.again.get(block.first + int(row)):
            done.figures.notes.append(
                f"{block.place(int(row))}: kept, though the same pair is listed in --exclude-rows "
                f"as {listed}; list this place too, if neither is wanted"
            )
    if part.members:
        done.members += [m for row, ms in part.members.items() if alive[row] for m in ms]
    else:
        done.figures.converted += len(np.unique(numbers["order"] // SLOTS))


@dataclass(frozen=True)
class _Chosen:
    """Some pairs of a part: which, their numbers, their block and its bytes."""

    part: Part
    rows: np.ndarray  # of booleans, over all pairs of the part
    numbers: dict[str, np.ndarray]
    block: Block
    data: Callable[[], bytes]


def _table(some: _Chosen, now: Layout) -> pa.Table:
    """Some pairs of a part, their texts from where it keeps them or read again."""
    part, chosen, numbers = some.part, some.rows, some.numbers
    plain = numbers["again"] > 0
    pieces = []
    if plain.any():
        mine = {name: values[plain] for name, values in numbers.items()}
        pieces.append(_plain(some, mine, now))
    if not plain.all():
        stored = part.numbers["again"] == 0
        batch = part.batch if chosen[stored].all() else part.batch.filter(pa.array(chosen[stored]))
        pieces.append(_stored(batch, part.layout, now))
    columns = pieces[0]
    if len(pieces) > 1:
        order = pa.array(np.argsort(np.argsort(~plain, kind="stable")))
        columns = [pa.concat_arrays(both).take(order) for both in zip(*pieces, strict=True)]
    columns.insert(len(SIDES), _sources(numbers, some.block))
    return now.stored(columns)


def _plain(some: _Chosen, numbers: dict[str, np.ndarray], now: Layout) -> list[pa.Array]:
    """The columns of pairs whose texts are plain."""
    part, stretch = some.part, some.block.stretch
    none = pa.nulls(len(numbers["again"]), pa.string())
    if part.again is None:
        mine = some.rows[part.numbers["again"] > 0]
        prompt, one, other, *kept = part.plain.filter(pa.array(mine)).columns
    else:
        again = part.again
        starts = numbers["start"].astype(np.int64) - stretch.start
        stops = starts + numbers["length"]
        cells = delimited.texts(again, some.data(), starts, stops)
        prompt, (one, other) = cells[again.prompt], (cells[at] for at in again.answers)
        kept = [none if number is None else cells[number] for number in again.keep]
    won, text = pa.array(numbers["again"] == 1), Layout(False, {}, False, False)
    sides = prompt, pc.if_else(won, one, other), pc.if_else(won, other, one)
    columns = [now.fit(side, text, role) for side, (_, role) in zip(sides, SIDES, strict=True)]
    return columns + [none] * len(now.extras) + kept


def _stored(batch: pa.RecordBatch, before: Layout, now: Layout) -> list[pa.Array]:
    """The columns of pairs whose texts stand in their part."""
    columns = [now.fit(batch.column(name), before, role) for name, role in SIDES]
    for name in (*now.extras, *(f"keep {name}" for name in now.keep)):
        there = name in batch.schema.names
        columns.append(batch.column(name) if there else pa.nulls(len(batch), pa.string()))
    return columns


def _sources(numbers: dict[str, np.ndarray], block: Block) -> pa.Array:
    """`file:line`, or `file#record` where no line finds the record; as `str(Place)` has it."""
    by_line = (numbers["line"] > 0) & (numbers["crowded"] == 0)
    lines = numbers["line"].astype(np.int64) + block.lines
    records = numbers["record"].astype(np.int64) + block.records
    found = np.where(by_line, lines, records)
    marks = (
        pa.scalar(f"{block.file}:")
        if by_line.all()
        else pc.if_else(pa.array(by_line), f"{block.file}:", f"{block.file}#")
    )
    return pc.binary_join_element_wise(marks, pa.array(found).cast(pa.string()), "")


def _dropped(block: Block, verdicts: np.ndarray, first: np.ndarray, job: Job) -> Iterator[Rejected]:
    """The pairs that settling dropped, each with the record that it is of."""
    rows = np.flatnonzero(verdicts >= CONTRADICTORY)
    if not len(rows):
        return
    part = _part(block.part)
    raw = _raws(block, part, rows)
    orders = part.numbers["order"]
    for row, leader in zip(map(int, rows), map(int, first), strict=True):
        place, leader = block.place(row), _place_of(leader, job.every)
        fault = _fault(int(verdicts[row]), place, leader)
        places = part.places.get(row, ())
        yield Rejected(int(orders[row]), place, fault, raw(row), True, places)


def _fault(verdict: int, place: Place, first: Place) -> Fault:
    if verdict == DUPLICATE:
        return Fault("duplicate", f"the same pair stands at {first}, which is kept")
    where = "further on" if first == place else f"at {first} or beside it"
    return Fault(
        "contradictory",
        f"the same two answers to this prompt are also judged the other way, {where}; "
        "decide which is right and drop the other",
    )


def _raws(block: Block, part: Part, rows: np.ndarray) -> Callable[[int], Any]:
    """Each row's record as it was read."""
    if part.raws is not None:
        return part.raws.__getitem__
    lines, starts = part.numbers["line"][rows].tolist(), part.numbers["start"][rows].tolist()
    found = block.stretch.source(dict(zip(lines, starts, strict=True)))
    return lambda row: found[int(part.numbers["line"][row])]


def _place_of(number: int, every: Sequence[Block]) -> Place:
    block = every[bisect(every, number, key=attrgetter("first")) - 1]
    return block.place(number - block.first)


@lru_cache(_OPEN)
def _part(path: str) -> Part:
    return Part(path)


def first_alike(found: np.ndarray, verdicts: np.ndarray, every: Sequence[Block]) -> Place | None:
    """Where the first kept pair of test stands whose prompt's loose key is among `found`."""
    for block in every if len(found) else ():
        part = _part(block.part)
        mine = verdicts[block.first : block.first + block.pairs]
        alike = np.isin(part.numbers["loose"], found) & (part.numbers["has_loose"] == 1)
        rows = np.flatnonzero(alike & (mine == TEST))
        if len(rows):
            return block.place(int(rows[0]))
    return None

"""The second pass: the files of some blocks in a row become one shard of each split.

Pure except for the files that it writes under names of its own, so that any worker can run it.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from uuid import uuid4

import numpy as np
import pyarrow as pa

from data_tools import arrays, dataset
from data_tools.block_files import (
    SLOTS,
    RejectRow,
    as_json,
    locations,
    members_of,
    numbers_of,
    read,
    read_rejects,
)
from data_tools.dedupe import CONTRADICTORY, DUPLICATE, TEST, TRAIN
from data_tools.figures import Figures
from data_tools.near_duplicates import NearDuplicates
from data_tools.readers.blocks import Span, read_again
from data_tools.record import Location
from data_tools.schema import SIDES, Contents, Schema

_SPLITS = {"train": TRAIN, "test": TEST}


SHARD = 128_000_000  # bytes of block files that make one shard


@dataclass(frozen=True)
class CheckedBlock:
    """A block after the first pass.

    `records_before` is what the ordinals of its records count from in their file, `first_record`
    and `first_pair` count over the whole input. A `span` can be read again.
    """

    path: str
    file: str
    span: Span | None
    contents: Contents
    records_before: int
    first_record: int
    first_pair: int
    pairs: int

    def locations(
        self, batch: pa.RecordBatch, rows: Sequence[int] | slice = slice(None)
    ) -> list[Location]:
        found = locations(batch, self.file, rows)
        for location in found:
            location.record += self.records_before
        return found


@dataclass(frozen=True)
class ShardJob:
    """A shard to write; without a directory everything is only counted.

    `verdicts` are those of all pairs of these blocks, `first` for each dropped one the number of
    the first pair of its group, which is in a block of `leading`. `listed` are kept pairs that
    equal one listed in --exclude-rows, by their number. `candidates` is a file of the sorted
    near-duplicate keys that may be in test.
    """

    number: int
    blocks: Sequence[CheckedBlock]
    leading: Sequence[CheckedBlock]
    verdicts: np.ndarray
    first: np.ndarray
    listed: dict[int, str]
    schema: Schema
    directory: str | None
    kind: str
    candidates: str


@dataclass
class ShardResult:
    """What one shard came to; `converted` are the ordinals of records with a kept pair."""

    figures: Figures
    near_duplicates: NearDuplicates
    shards: dict[str, dataset.Shard] = field(default_factory=dict)
    rejects: str | None = None
    converted: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def ranges_of(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Which blocks make a shard together, as (start, stop)."""
    ranges, start, size = [], 0, 0
    for stop, more in enumerate(sizes, start=1):
        size += more
        if size >= SHARD or stop == len(sizes):
            ranges.append((start, stop))
            start, size = stop, 0
    return ranges


def run(job: ShardJob) -> ShardResult:
    """Write one shard of each split and the rejects of its blocks, and count both."""
    candidates = np.load(job.candidates, mmap_mode="r")
    result = ShardResult(Figures(), NearDuplicates(candidates))
    converted, at, dropped = [], 0, 0
    leaders = _leaders(job)
    name = f"{job.number:05d}-{uuid4().hex}"
    with dataset.ShardWriter(job.directory, name, job.schema, job.kind) as writer:
        for block in job.blocks:
            batch = read(f"{block.path}.pairs")
            verdicts = job.verdicts[at : at + block.pairs]
            count = int(np.count_nonzero(verdicts >= CONTRADICTORY))
            first = job.first[dropped : dropped + count].tolist()
            at, dropped = at + block.pairs, dropped + count
            where = block.locations(batch)
            converted.append(_keep(block, batch, verdicts, where, job, result, writer))
            for reject in heapq.merge(
                _rejects(block),
                _dropped(block, batch, verdicts, [leaders[pair] for pair in first], where),
                key=attrgetter("order"),
            ):
                result.figures.reject(reject)
                writer.reject(reject)
        result.shards, result.rejects = writer.finish()
    result.converted = np.unique(np.concatenate(converted)) if converted else None
    return result


def _keep(
    block: CheckedBlock,
    batch: pa.RecordBatch,
    verdicts: np.ndarray,
    where: Sequence[Location],
    job: ShardJob,
    result: ShardResult,
    writer: dataset.ShardWriter,
) -> np.ndarray:
    """Write and count the pairs that are kept; returns the ordinals of their records."""
    is_kept = verdicts < CONTRADICTORY
    rows, in_test = np.flatnonzero(is_kept), verdicts[is_kept] == TEST
    result.figures.keep(batch, rows, in_test, where)
    has_key = numbers_of(batch, "has_near_duplicate")[is_kept] == 1
    keys = numbers_of(batch, "near_duplicate")[is_kept]
    result.near_duplicates.add(keys[has_key], in_test[has_key])
    if job.directory is not None and len(rows):
        sources = arrays.strings([*map(str, where)])
        for split, verdict in _SPLITS.items():
            chosen = verdicts == verdict
            if chosen.any():
                some, found = batch, sources
                if not chosen.all():
                    mask = arrays.mask(chosen)
                    some, found = batch.filter(mask), sources.filter(mask)
                writer.keep(split, _table(some, found, block.contents.schema(()), job.schema))
    for number, source in sorted(job.listed.items()):
        if 0 <= (row := number - block.first_pair) < block.pairs and is_kept[row]:
            result.notes.append(
                f"{where[row]}: kept, though the same pair is listed in --exclude-rows as "
                f"{source}; list this place too, if neither is wanted"
            )
    members = members_of(batch)
    if members is not None:
        return np.array([member for row in rows for member in members[row]], np.int64)
    return block.first_record + numbers_of(batch, "order")[is_kept] // SLOTS


def _table(batch: pa.RecordBatch, sources: pa.Array, before: Schema, schema: Schema) -> pa.Table:
    """Some pairs of a block as rows of the dataset."""
    columns = [schema.convert_side(batch.column(name), before, role) for name, role in SIDES]
    columns.append(sources)
    for name in (*schema.extras, *(f"keep {name}" for name in schema.keep)):
        is_there = name in batch.schema.names
        columns.append(batch.column(name) if is_there else arrays.strings([None] * len(batch)))
    return schema.table(columns)


def _rejects(block: CheckedBlock) -> Iterator[RejectRow]:
    """What the first pass rejected."""
    for reject in read_rejects(block.path, block.file):
        reject.location.record += block.records_before
        yield reject


def _dropped(
    block: CheckedBlock,
    batch: pa.RecordBatch,
    verdicts: np.ndarray,
    leaders: Sequence[Location],
    where: Sequence[Location],
) -> Iterator[RejectRow]:
    """The pairs that deduplication dropped, as rejects; `leaders` are the first of their groups."""
    rows = np.flatnonzero(verdicts >= CONTRADICTORY).tolist()
    if not rows:
        return
    if block.span is None:
        column = batch.column("raw")
        raws = {row: column[row].as_py() for row in rows}
    else:
        lines = {row: where[row].line for row in rows}
        values = read_again(block.span, sorted(set(lines.values())))
        raws = {row: as_json(values[line]) for row, line in lines.items()}
    orders = numbers_of(batch, "order").tolist()
    shared = batch.column("shared") if "shared" in batch.schema.names else None
    for row, leader in zip(rows, leaders, strict=True):
        detail = _detail(int(verdicts[row]), where[row], leader)
        reason = "duplicate" if verdicts[row] == DUPLICATE else "contradictory"
        records = shared[row].as_py() if shared else None
        yield RejectRow(orders[row], where[row], reason, detail, raws[row], True, records)


def _detail(verdict: int, location: Location, first: Location) -> str:
    if verdict == DUPLICATE:
        return f"the same pair is at {first}, which is kept"
    where = "further on" if first == location else f"at {first} or next to it"
    return (
        f"the same two answers to this prompt are also judged the other way, {where}; "
        "decide which is right and remove the other"
    )


def _leaders(job: ShardJob) -> dict[int, Location]:
    """Where the first pair of each group is, by its number."""
    found, leaders = {}, np.unique(job.first)
    for block in job.leading:
        mine = leaders[(leaders >= block.first_pair) & (leaders < block.first_pair + block.pairs)]
        where = block.locations(read(f"{block.path}.pairs"), mine - block.first_pair)
        found |= zip(mine.tolist(), where, strict=True)
    return found


def first_near_duplicate(
    found: np.ndarray, verdicts: np.ndarray, blocks: Sequence[CheckedBlock]
) -> Location | None:
    """Where the first kept test pair is whose prompt's near-duplicate key is among `found`."""
    for block in blocks if len(found) else ():
        batch = read(f"{block.path}.pairs")
        mine = verdicts[block.first_pair : block.first_pair + block.pairs]
        matches = np.isin(numbers_of(batch, "near_duplicate"), found)
        matches &= numbers_of(batch, "has_near_duplicate") == 1
        rows = np.flatnonzero(matches & (mine == TEST))
        if len(rows):
            return block.locations(batch, rows[:1])[0]
    return None

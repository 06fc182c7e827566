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
from data_tools.readers.blocks import Span, read_again
from data_tools.record import Location
from data_tools.schema import SIDES, Schema

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
    schema: Schema
    records_before: int
    first_record: int
    first_pair: int
    pairs: int

    def locations(self, batch: pa.RecordBatch, rows: Sequence[int]) -> list[Location]:
        """Where the records of some pairs start."""
        found = locations(batch, self.file, rows)
        for location in found:
            location.record += self.records_before
        return found

    def verdicts(self, verdicts: np.ndarray) -> np.ndarray:
        """Those of this block among the verdicts of all pairs."""
        return verdicts[self.first_pair : self.first_pair + self.pairs]

    def sources(self, batch: pa.RecordBatch) -> list[str]:
        """The locations of all pairs as text."""
        lines = numbers_of(batch, "line")
        if lines.all() and not numbers_of(batch, "shares_line").any():
            return [f"{self.file}:{line}" for line in lines.tolist()]
        return [*map(str, self.locations(batch, range(self.pairs)))]


@dataclass(frozen=True)
class ShardJob:
    """A shard to write; without a directory everything is only counted.

    `verdicts` are those of all pairs of these blocks, `first` for each dropped one the number of
    the first pair of its group, which is in a block of `leading`. `listed` are kept pairs that
    equal one listed in --exclude-rows, by their number.
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


@dataclass
class ShardResult:
    """What one shard came to; `converted` are the ordinals of records with a kept pair."""

    figures: Figures = field(default_factory=Figures)
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
    result, leaders = ShardResult(), _leaders(job)
    converted, sizes, at, dropped = [], [], 0, 0
    name = f"{job.number:05d}-{uuid4().hex}"
    with dataset.ShardWriter(job.directory, name, job.schema, job.kind) as writer:
        for block in job.blocks:
            batch = read(f"{block.path}.pairs")
            verdicts = job.verdicts[at : at + block.pairs]
            count = int(np.count_nonzero(verdicts >= CONTRADICTORY))
            first = job.first[dropped : dropped + count].tolist()
            at, dropped = at + block.pairs, dropped + count
            converted.append(_keep(block, batch, verdicts, job, result, writer))
            is_kept = verdicts < CONTRADICTORY
            sizes.append([numbers_of(batch, f"{side}_size")[is_kept] for side, _ in SIDES])
            for reject in heapq.merge(
                _rejects(block),
                _dropped(block, batch, verdicts, [leaders[pair] for pair in first]),
                key=attrgetter("order"),
            ):
                result.figures.reject(reject)
                writer.reject(reject)
        result.shards, result.rejects = writer.finish()
    result.figures.add_sizes(*np.concatenate(sizes, axis=1))
    result.converted = np.unique(np.concatenate(converted))
    return result


def _keep(
    block: CheckedBlock,
    batch: pa.RecordBatch,
    verdicts: np.ndarray,
    job: ShardJob,
    result: ShardResult,
    writer: dataset.ShardWriter,
) -> np.ndarray:
    """Write and count the pairs that are kept; returns the ordinals of their records."""
    is_kept, sources = verdicts < CONTRADICTORY, block.sources(batch)
    rows = np.flatnonzero(is_kept)
    result.figures.keep(batch, rows, verdicts[rows] == TEST, sources)
    for split, verdict in _SPLITS.items() if job.directory and len(rows) else ():
        chosen, some, found = verdicts == verdict, batch, arrays.strings(sources)
        if not chosen.all():
            some, found = batch.filter(arrays.mask(chosen)), found.filter(arrays.mask(chosen))
        if len(some):
            writer.keep(split, _table(some, found, block.schema, job.schema))
    for number, source in sorted(job.listed.items()):
        if 0 <= (row := number - block.first_pair) < block.pairs and is_kept[row]:
            result.notes.append(
                f"{sources[row]}: kept, though the same pair is listed in --exclude-rows as "
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
    types = schema.arrow()
    typed = [column.cast(kind) for column, kind in zip(columns, types.types, strict=True)]
    return pa.Table.from_arrays(typed, schema=types)


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
) -> Iterator[RejectRow]:
    """The pairs that deduplication dropped, as rejects; `leaders` are the first of their groups."""
    rows = np.flatnonzero(verdicts >= CONTRADICTORY).tolist()
    if not rows:
        return
    where = block.locations(batch, rows)
    if block.span is None:
        raws = [batch.column("raw")[row].as_py() for row in rows]
    else:
        values = read_again(block.span, sorted({location.line for location in where}))
        raws = [as_json(values[location.line]) for location in where]
    orders = numbers_of(batch, "order")[rows].tolist()
    shared = batch.column("shared") if "shared" in batch.schema.names else None
    dropped = zip(rows, orders, where, leaders, raws, strict=True)
    for row, order, location, leader, raw in dropped:
        detail = _detail(int(verdicts[row]), location, leader)
        reason = "duplicate" if verdicts[row] == DUPLICATE else "contradictory"
        records = shared[row].as_py() if shared else None
        yield RejectRow(order, location, reason, detail, raw, True, records)


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


def alike_across_splits(
    blocks: Sequence[CheckedBlock], verdicts: np.ndarray
) -> tuple[int, str | None]:
    """How many prompts of test equal one of train except for case and punctuation.

    Also where the first of them is. Among a million train prompts, one matches by chance once in
    10^13.
    """
    in_test = [_near_duplicate_keys(block, verdicts, TEST) for block in blocks]
    tested = np.unique(np.concatenate(in_test))
    if not len(tested):
        return 0, None
    found = np.zeros(len(tested), bool)
    for block in blocks:
        keys = _near_duplicate_keys(block, verdicts, TRAIN)
        at = np.minimum(np.searchsorted(tested, keys), len(tested) - 1)
        found[at[tested[at] == keys]] = True
    alike = tested[found]
    for block, keys in zip(blocks, in_test, strict=True):
        if np.isin(keys, alike).any():
            batch = read(f"{block.path}.pairs")
            matches = np.isin(numbers_of(batch, "near_duplicate"), alike)
            row = np.flatnonzero(matches & (block.verdicts(verdicts) == TEST))[0]
            return len(alike), block.sources(batch)[row]
    return 0, None


def _near_duplicate_keys(block: CheckedBlock, verdicts: np.ndarray, verdict: int) -> np.ndarray:
    """The near-duplicate keys of the prompts of a block with this verdict."""
    keys = numbers_of(read(f"{block.path}.pairs"), "near_duplicate")
    return keys[(block.verdicts(verdicts) == verdict) & (keys > 0)]

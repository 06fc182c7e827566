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
from data_tools.block import BlockResult
from data_tools.block_files import (
    SLOTS,
    locations,
    members_of,
    numbers_of,
    read,
    read_rejects,
)
from data_tools.dedupe import CONTRADICTORY, DUPLICATE, TEST, TRAIN, Verdicts
from data_tools.figures import Figures
from data_tools.readers.blocks import read_again
from data_tools.record import Location, Reject, as_json
from data_tools.schema import SIDES, Schema

_SPLITS = {"train": TRAIN, "test": TEST}
SHARD = 128_000_000  # bytes of block files that make one shard


@dataclass(frozen=True)
class ShardJob:
    """A shard to write; without a directory everything is only counted.

    `verdicts` are those of all pairs of these blocks, `first` for each dropped one the number of
    the first pair of its group, which is in a block of `leading`. `listed` are kept pairs that
    equal one listed in --exclude-rows, by their number.
    """

    blocks: Sequence[BlockResult]
    leading: Sequence[BlockResult]
    verdicts: np.ndarray
    first: np.ndarray
    listed: dict[int, str]
    schema: Schema
    directory: str | None
    kind: str


@dataclass
class ShardResult:
    """What one shard came to; `converted` are the ordinals of records with a kept pair.

    `size` is that of the block files.
    """

    size: int
    figures: Figures = field(default_factory=Figures)
    shards: dict[str, dataset.Shard] = field(default_factory=dict)
    rejects: str | None = None
    converted: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def jobs(
    blocks: Sequence[BlockResult],
    verdicts: Verdicts,
    schema: Schema,
    directory: str | None,
    kind: str,
) -> Iterator[ShardJob]:
    """What to write, some blocks for each shard."""
    firsts = np.array([block.first_pair for block in blocks])
    start, size = 0, 0
    for stop, block in enumerate(blocks, start=1):
        size += block.files.size
        if size < SHARD and stop < len(blocks):
            continue
        pairs = range(blocks[start].first_pair, block.first_pair + block.files.pairs)
        own, first = verdicts.between(pairs.start, pairs.stop)
        leading = np.unique(np.searchsorted(firsts, first, side="right") - 1)
        yield ShardJob(
            blocks=blocks[start:stop],
            leading=[blocks[at] for at in leading],
            verdicts=own,
            first=first,
            listed={pair: source for pair, source in verdicts.listed.items() if pair in pairs},
            schema=schema,
            directory=directory,
            kind=kind,
        )
        start, size = stop, 0


def run(job: ShardJob) -> ShardResult:
    """Write one shard of each split and the rejects of its blocks, and count both."""
    result, leaders = ShardResult(sum(b.files.size for b in job.blocks)), _leaders(job)
    converted, sizes, at, dropped = [], [], 0, 0
    with dataset.ShardWriter(job.directory, uuid4().hex, job.schema, job.kind) as writer:
        for block in job.blocks:
            batch, pairs = read(f"{block.files.path}.pairs"), block.files.pairs
            verdicts = job.verdicts[at : at + pairs]
            count = int(np.count_nonzero(verdicts >= CONTRADICTORY))
            first = job.first[dropped : dropped + count].tolist()
            at, dropped = at + pairs, dropped + count
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
    block: BlockResult,
    batch: pa.RecordBatch,
    verdicts: np.ndarray,
    job: ShardJob,
    result: ShardResult,
    writer: dataset.ShardWriter,
) -> np.ndarray:
    """Write and count the pairs that are kept; returns the ordinals of their records."""
    is_kept, sources = verdicts < CONTRADICTORY, _sources(block, batch)
    rows = np.flatnonzero(is_kept)
    result.figures.keep(batch, rows, verdicts[rows] == TEST, sources)
    for split, verdict in _SPLITS.items() if job.directory and len(rows) else ():
        chosen, some, found = verdicts == verdict, batch, arrays.strings(sources)
        if not chosen.all():
            some, found = batch.filter(arrays.mask(chosen)), found.filter(arrays.mask(chosen))
        if len(some):
            writer.keep(split, _table(some, found, block.files.schema, job.schema))
    for number, source in sorted(job.listed.items()):
        if 0 <= (row := number - block.first_pair) < len(batch) and is_kept[row]:
            result.notes.append(
                f"{sources[row]}: kept, though the same pair is listed in --exclude-rows as "
                f"{source}; list this place too, if neither is wanted"
            )
    members = members_of(batch)
    if members is not None:
        return np.array([member for row in rows for member in members[row]], np.int64)
    return block.first_record + numbers_of(batch, "order")[is_kept] // SLOTS


def _locations(block: BlockResult, batch: pa.RecordBatch, rows: Sequence[int]) -> list[Location]:
    """Where the records of some pairs start."""
    found = locations(batch, block.block.file, rows)
    for location in found:
        location.record += block.records_before
    return found


def _sources(block: BlockResult, batch: pa.RecordBatch) -> list[str]:
    """The locations of all pairs of a block as text."""
    lines = numbers_of(batch, "line")
    if lines.all() and not numbers_of(batch, "shares_line").any():
        return [f"{block.block.file}:{line}" for line in lines.tolist()]
    return [*map(str, _locations(block, batch, range(len(batch))))]


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


def _rejects(block: BlockResult) -> Iterator[Reject]:
    """What the first pass rejected."""
    for reject in read_rejects(block.files.path, block.block.file):
        reject.location.record += block.records_before
        yield reject


def _dropped(
    block: BlockResult,
    batch: pa.RecordBatch,
    verdicts: np.ndarray,
    leaders: Sequence[Location],
) -> Iterator[Reject]:
    """The pairs that deduplication dropped, as rejects; `leaders` are the first of their groups."""
    rows = np.flatnonzero(verdicts >= CONTRADICTORY).tolist()
    if not rows:
        return
    where = _locations(block, batch, rows)
    if block.block.span is None:
        raws = [batch.column("raw")[row].as_py() for row in rows]
    else:
        values = read_again(block.block.span, sorted({location.line for location in where}))
        raws = [as_json(values[location.line]) for location in where]
    orders = numbers_of(batch, "order")[rows].tolist()
    shared = batch.column("shared") if "shared" in batch.schema.names else None
    dropped = zip(rows, orders, where, leaders, raws, strict=True)
    for row, order, location, leader, raw in dropped:
        detail = _detail(int(verdicts[row]), location, leader)
        reason = "duplicate" if verdicts[row] == DUPLICATE else "contradictory"
        records = shared[row].as_py() if shared else None
        yield Reject(location, reason, detail, raw, order, True, records)


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
        stop = block.first_pair + block.files.pairs
        mine = leaders[(leaders >= block.first_pair) & (leaders < stop)]
        batch = read(f"{block.files.path}.pairs")
        where = _locations(block, batch, mine - block.first_pair)
        found |= zip(mine.tolist(), where, strict=True)
    return found


def alike_across_splits(
    blocks: Sequence[BlockResult], verdicts: np.ndarray
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
            batch = read(f"{block.files.path}.pairs")
            matches = np.isin(numbers_of(batch, "near_duplicate"), alike)
            row = np.flatnonzero(matches & (_verdicts_of(block, verdicts) == TEST))[0]
            return len(alike), _sources(block, batch)[row]
    return 0, None


def _verdicts_of(block: BlockResult, verdicts: np.ndarray) -> np.ndarray:
    """Those of a block among the verdicts of all pairs."""
    return verdicts[block.first_pair : block.first_pair + block.files.pairs]


def _near_duplicate_keys(block: BlockResult, verdicts: np.ndarray, verdict: int) -> np.ndarray:
    """The near-duplicate keys of the prompts of a block with this verdict."""
    keys = numbers_of(read(f"{block.files.path}.pairs"), "near_duplicate")
    return keys[(_verdicts_of(block, verdicts) == verdict) & (keys > 0)]

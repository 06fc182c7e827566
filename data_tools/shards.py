"""The second pass: the files of some blocks in a row become one shard of each split.

Pure except for the files that it writes under names of its own, so that any worker can run it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import numpy as np
import pyarrow as pa

from data_tools import arrays
from data_tools.block import BlockResult
from data_tools.block_files import keys_of, numbers_of, read, read_rejects
from data_tools.dataset import Shard, ShardWriter
from data_tools.dedupe import CONTRADICTORY, DUPLICATE, LEAKED, SPLITS, TEST, TRAIN, Verdicts
from data_tools.figures import Figures
from data_tools.readers.blocks import read_again
from data_tools.record import Location, Reject, as_json
from data_tools.schema import SIDES, Schema

_REASONS = {  # with the detail; the place is that of the first pair of the group
    CONTRADICTORY: (
        "contradictory",
        "the same two answers to this prompt are also judged the other way; the first of these "
        "pairs is at {}; decide which is right and remove the others",
    ),
    DUPLICATE: ("duplicate", "the same pair is at {}, which is kept"),
    LEAKED: ("leaked", "its prompt is in test, at {}; remove one of them from the data"),
}
SHARD = 128_000_000  # bytes of block files that make one shard


@dataclass(frozen=True)
class ShardJob:
    """The blocks of one shard.

    `verdicts` are those of all their pairs, `first` for each dropped one the number of the first
    pair of its group, which is in a block of `leading`.
    """

    blocks: Sequence[BlockResult]
    leading: Sequence[BlockResult]
    verdicts: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class ShardResult:
    """What one shard came to; `converted` are the ordinals of records with a kept pair."""

    shard: Shard
    figures: Figures
    converted: np.ndarray
    size: int  # bytes of the block files


def jobs(blocks: Sequence[BlockResult], verdicts: Verdicts) -> Iterator[ShardJob]:
    """What to write, some blocks for each shard."""
    firsts = np.array([block.first_pair for block in blocks])
    start, size = 0, 0
    for stop, block in enumerate(blocks, start=1):
        size += block.files.size
        if size < SHARD and stop < len(blocks):
            continue
        pairs = blocks[start].first_pair, block.first_pair + block.files.pairs
        own, first = verdicts.between(*pairs)
        leading = np.unique(np.searchsorted(firsts, first, side="right") - 1)
        yield ShardJob(blocks[start:stop], [blocks[at] for at in leading], own, first)
        start, size = stop, 0


def run(job: ShardJob, schema: Schema, directory: str | None, kind: str) -> ShardResult:
    """Write the files of a shard and count what is in them; without a directory only count."""
    path = os.path.join(directory, uuid4().hex) if directory else None
    figures, leaders = Figures(), _leaders(job)
    converted, at = [], 0
    with ShardWriter(path, schema, kind) as writer:
        for block in job.blocks:
            batch, verdicts = _pairs(block), job.verdicts[at : at + block.files.pairs]
            at += block.files.pairs
            rows = np.flatnonzero(verdicts < CONTRADICTORY)
            figures.keep(batch, verdicts)
            converted.append(_records(block, batch, rows))
            for split, verdict in SPLITS.items() if directory else ():
                own = np.flatnonzero(verdicts == verdict)
                if len(own):
                    writer.keep(split, _table(batch, own, block.files.schema, schema))
            rejects = read_rejects(block.files.path)
            rejects += _dropped(block, batch, verdicts, leaders)
            for reject in sorted(rejects, key=lambda reject: reject.location.record):
                reject.location.record += block.records_before
                figures.reject(reject)
                writer.reject(reject)
    size = sum(block.files.size for block in job.blocks)
    return ShardResult(writer.finish(), figures, np.unique(np.concatenate(converted)), size)


def _pairs(block: BlockResult) -> pa.RecordBatch:
    return read(f"{block.files.path}.pairs")


def _records(block: BlockResult, batch: pa.RecordBatch, rows: np.ndarray) -> np.ndarray:
    """The ordinals of the records of some pairs in the whole input."""
    if "members" not in batch.schema.names:  # each pair is of one record
        return block.first_record + numbers_of(batch, "record")[rows]
    members = batch.column("members").take(arrays.numbers(rows, np.int64)).to_pylist()
    return np.array([ordinal for text in members for ordinal in json.loads(text)], np.int64)


def _table(batch: pa.RecordBatch, rows: np.ndarray, before: Schema, schema: Schema) -> pa.Table:
    """Some pairs of a block as rows of the dataset; `before` is the schema of the block."""
    if len(rows) < len(batch):
        batch = batch.take(arrays.numbers(rows, np.int64))
    columns = [schema.convert_side(batch.column(name), before, role) for name, role in SIDES]
    types = schema.arrow()
    for name in types.names[len(columns) :]:
        stored = f"keep {name}" if name in schema.keep else name
        is_there = stored in batch.schema.names
        columns.append(batch.column(stored) if is_there else arrays.strings([None] * len(batch)))
    typed = [
        column if column.type == kind else column.cast(kind)  # casting is slow to import
        for column, kind in zip(columns, types.types, strict=True)
    ]
    return pa.Table.from_arrays(typed, schema=types)


def _dropped(
    block: BlockResult, batch: pa.RecordBatch, verdicts: np.ndarray, leaders: Iterator[str]
) -> Iterator[Reject]:
    """The pairs that deduplication dropped; `leaders` gives the source of each one's leader."""
    rows = np.flatnonzero(verdicts >= CONTRADICTORY)
    if not len(rows):
        return
    numbers = (numbers_of(batch, name)[rows].tolist() for name in ("line", "record", "shares_line"))
    where = [
        Location(block.block.file, line or None, record, bool(shares_line))
        for line, record, shares_line in zip(*numbers, strict=True)
    ]
    if block.block.span is None:
        raws = [batch.column("raw")[row].as_py() for row in rows]
    else:
        values = read_again(block.block.span, sorted({location.line for location in where}))
        raws = [as_json(values[location.line]) for location in where]
    shared = batch.column("shared") if "shared" in batch.schema.names else None
    for row, location, raw in zip(rows, where, raws, strict=True):
        reason, detail = _REASONS[verdicts[row]]
        records = shared[row].as_py() if shared else None
        yield Reject(location, reason, detail.format(next(leaders)), raw, True, records)


def _leaders(job: ShardJob) -> Iterator[str]:
    """The source of the first pair in the group of each dropped pair."""
    found, leaders = {}, np.unique(job.first)
    for block in job.leading:
        stop = block.first_pair + block.files.pairs
        mine = leaders[(leaders >= block.first_pair) & (leaders < stop)]
        sources = (
            _pairs(block).column("source").take(arrays.numbers(mine - block.first_pair, np.int64))
        )
        found |= zip(mine.tolist(), sources.to_pylist(), strict=True)
    return (found[pair] for pair in job.first.tolist())


def alike_across_splits(
    blocks: Sequence[BlockResult], verdicts: np.ndarray, figures: Figures
) -> None:
    """Warn of prompts of test that equal one of train except for case and punctuation.

    Among a million train prompts, one matches by chance once in 10^13.
    """

    def keys(block: BlockResult, split: int) -> np.ndarray:
        """The near-duplicate key of each pair, 0 where it is not in the split."""
        found = numbers_of(_pairs(block), "near_duplicate")
        return np.where(_own(block, verdicts) == split, found, 0)

    tested = np.unique(np.concatenate([np.unique(keys(block, TEST)) for block in blocks]))
    is_alike = np.zeros(len(tested), bool)
    for block in blocks if tested.any() else ():
        found = keys(block, TRAIN)
        at = np.minimum(np.searchsorted(tested, found), len(tested) - 1)
        is_alike[at[tested[at] == found]] = True
    alike = np.setdiff1d(tested[is_alike], [0])
    for block in blocks if len(alike) else ():
        rows = np.flatnonzero(np.isin(keys(block, TEST), alike))
        if len(rows):
            source = _pairs(block).column("source")[rows[0]].as_py()
            figures.warn("alike_across_splits", len(alike), source)
            return


def _own(block: BlockResult, verdicts: np.ndarray) -> np.ndarray:
    """The verdicts on the pairs of a block, of those on all pairs."""
    return verdicts[block.first_pair : block.first_pair + block.files.pairs]


def kept_though_excluded(blocks: Sequence[BlockResult], verdicts: np.ndarray) -> Iterator[str]:
    """A note on each kept pair that equals one that --exclude-rows left out elsewhere."""
    excluded: dict[bytes, str] = {}  # sources by the key of the pair; the first one counts
    for block in blocks:
        excluded = dict(block.files.excluded) | excluded
    for block in blocks if excluded else ():
        batch = _pairs(block)
        keys, sources = keys_of(batch), batch.column("source")
        is_kept = _own(block, verdicts) < CONTRADICTORY
        for row in np.flatnonzero(is_kept & np.isin(keys.view("S16"), [*excluded])):
            yield (
                f"{sources[row]}: kept, though the same pair is listed in "
                f"--exclude-rows as {excluded[keys[row].tobytes()]}; list this place too, if "
                "neither is wanted"
            )

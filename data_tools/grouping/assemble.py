"""Makes pairs of rows that several records share: what a worker runs between the two passes."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import uuid4

import pyarrow as pa

from data_tools.block import Block, Task
from data_tools.block_files import (
    BlockFiles,
    RejectRow,
    Row,
    as_json,
    locations,
    numbers_of,
    pairs_of,
    read,
    read_rejects,
    write_pairs,
    write_rejects,
)
from data_tools.readers.blocks import read_again
from data_tools.record import Pair, Side, as_messages
from data_tools.schema import SIDES, Schema

RowRef = tuple[str, int]
"""A row of the pending file of a block, by the path of the block's files."""

_OPEN = 16  # pending files that are held open


@dataclass(frozen=True, slots=True)
class Assembly:
    """A pair to make of rows of several files, or a fault to report; see `groups.Outcome`.

    `home` is the row whose record it is reported at, `members` the records that take part.
    """

    order: int
    home: RowRef
    members: tuple[int, ...]
    shared: str | None
    made: int
    fault: tuple[str, str] | None
    prompt: tuple[RowRef, ...]
    chosen: tuple[RowRef, int]
    rejected: tuple[RowRef, int]
    first_won: bool | None


@dataclass(frozen=True)
class GroupedBlock:
    """The files of a block with pending rows, and what these come to."""

    files: BlockFiles
    block: Block
    found: Sequence[Assembly]


def run(grouped: GroupedBlock, schemas: dict[str, Schema], task: Task, folder: str) -> BlockFiles:
    """Write the files of a block again, with pairs and rejects in place of its pending rows.

    `schemas` are those of every pending file by its path.
    """
    path = os.path.join(folder, uuid4().hex)
    own = grouped.files.path
    batch = _pending(own)
    where, raws = locations(batch, grouped.block.file), _raws(grouped, batch)
    stored = _stored(grouped.found, schemas)
    kept = [batch.column(f"keep {name}").to_pylist() for name in task.keep]
    rejects, rows = read_rejects(own, grouped.block.file), []
    for found in grouped.found:
        at = found.home[1]
        if found.fault is not None:
            raw = as_json(raws[at])
            rejects.append(
                RejectRow(found.order, where[at], *found.fault, raw, found.made > 0, found.shared)
            )
            continue
        values = tuple(column[at] for column in kept)
        pair = _pair(found, stored)
        rows.append(
            Row(found.order, where[at], pair, values, raws[at], found.members, found.shared)
        )
    more = task.keep, grouped.block.span is None
    files, failed = write_pairs(path, rows, task.limits, task.split, *more)
    files.size += write_rejects(path, rejects + failed)
    return files


@lru_cache(_OPEN)
def _pending(path: str) -> pa.RecordBatch:
    return read(f"{path}.pending")


def _raws(grouped: GroupedBlock, batch: pa.RecordBatch) -> dict[int, object]:
    """The records of the rows at which something is reported, as they were read."""
    wanted = sorted({found.home[1] for found in grouped.found})
    if grouped.block.span is None:
        column = batch.column("raw").to_pylist()
        return {at: json.loads(column[at]) for at in wanted}
    lines = numbers_of(batch, "line").tolist()
    values = read_again(grouped.block.span, sorted({lines[at] for at in wanted}))
    return {at: values[lines[at]] for at in wanted}


def _stored(found: Sequence[Assembly], schemas: dict[str, Schema]) -> dict[RowRef, Pair]:
    """The sides of all rows that pairs are made of."""
    wanted: dict[str, set[int]] = {}
    for each in found:
        if each.fault is None:
            for path, row in (each.home, *each.prompt, each.chosen[0], each.rejected[0]):
                wanted.setdefault(path, set()).add(row)
    stored = {}
    for path, rows in wanted.items():
        some = sorted(rows)
        pairs = pairs_of(_pending(path), some, schemas[path])
        stored |= {(path, row): pair for row, pair in zip(some, pairs, strict=True)}
    return stored


def _pair(found: Assembly, stored: dict[RowRef, Pair]) -> Pair:
    home = stored[found.home]
    if found.prompt == (found.home,):
        prompt: Side = home.prompt
    else:
        prompt = [message for ref in found.prompt for message in stored[ref].prompt]
    answers = (getattr(stored[ref], SIDES[side][0]) for ref, side in (found.chosen, found.rejected))
    sides = (prompt, *answers)
    if not all(isinstance(side, str) for side in sides):
        sides = tuple(as_messages(s, role) for s, (_, role) in zip(sides, SIDES, strict=True))
    first_won = home.first_won if found.first_won is None else found.first_won
    return Pair(*sides, first_won, home.tools, home.chat_template_kwargs)

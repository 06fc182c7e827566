"""Makes pairs of rows that several records share: what a worker runs between the two passes."""

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, groupby
from uuid import uuid4

import pyarrow as pa

from data_tools.block import Block, Task
from data_tools.block_files import (
    SLOTS,
    BlockFiles,
    Row,
    locations,
    numbers_of,
    pairs_of,
    read,
    read_rejects,
    write_pairs,
    write_rejects,
)
from data_tools.grouping.groups import Groups
from data_tools.grouping.outcomes import Outcome, outcomes
from data_tools.readers.blocks import read_again
from data_tools.record import Pair, Reject, as_json, as_messages
from data_tools.schema import SIDES

_SHARED = 1 << 31  # results that a record has alone come before those that it shares


def run(number: int, groups_path: str, task: Task, folder: str) -> tuple[BlockFiles, int]:
    """Write the files of a block again, with pairs and rejects in place of its pending rows.

    Also returns how many pairs these made.
    """
    groups, path = _open(groups_path), os.path.join(folder, uuid4().hex)
    block, own = groups.blocks[number].block, groups.blocks[number].files.path
    start, stop = groups.starts[number : number + 2]
    found = outcomes(groups, range(start, stop), task)
    homes = [outcome.rows[0] - start for outcome in found]
    batch = read(f"{own}.pending")
    where, orders = locations(batch, block.file), numbers_of(batch, "order").tolist()
    raws, stored = _raws(block, batch, sorted({*homes})), _stored(found, groups)
    kept = [batch.column(f"keep {name}").to_pylist() for name in task.keep]
    rejects, rows = read_rejects(own, block.file), []
    for count, (at, outcome) in enumerate(zip(homes, found, strict=True)):
        row_of = dict(zip(groups.of("member", outcome.rows), outcome.rows, strict=True))
        order, shared = orders[at], _shared(groups, [*row_of.values()])
        if outcome.fault or outcome.made:  # pairs of the record alone were counted before
            order = order // SLOTS * SLOTS + _SHARED + count
        if fault := outcome.fault:
            reject = (where[at], fault.reason, fault.detail, as_json(raws[at]))
            rejects.append(Reject(*reject, order, outcome.made > 0, shared))
            continue
        values, pair = tuple(column[at] for column in kept), _pair(outcome, stored)
        rows.append(Row(order, where[at], pair, values, raws[at], tuple(row_of), shared))
    options = task.limits, task.split, task.keep
    files, failed = write_pairs(path, rows, *options, with_raw=block.span is None)
    files.size += write_rejects(path, rejects + failed)
    return files, sum(outcome.made for outcome in found)


@lru_cache(1)
def _open(path: str) -> Groups:
    return Groups(path)


def _raws(block: Block, batch: pa.RecordBatch, wanted: Sequence[int]) -> dict[int, object]:
    """The records of some rows of a block, as they were read."""
    if block.span is None:
        column = batch.column("raw")
        return {at: json.loads(column[at].as_py()) for at in wanted}
    lines = numbers_of(batch, "line").tolist()
    values = read_again(block.span, sorted({lines[at] for at in wanted}))
    return {at: values[lines[at]] for at in wanted}


def _stored(found: Sequence[Outcome], groups: Groups) -> dict[int, Pair]:
    """The sides of all rows that pairs are made of."""
    wanted: set[int] = set()
    for each in found:
        if each.fault is None:
            wanted |= {each.rows[0], *each.prompt, each.chosen[0], each.rejected[0]}
    stored = {}
    for number, of_block in groupby(sorted(wanted), groups.block_of):
        path, start, rows = groups.blocks[number].files.path, groups.starts[number], [*of_block]
        pairs = pairs_of(read(f"{path}.pending"), [row - start for row in rows])
        stored |= zip(rows, pairs, strict=True)
    return stored


def _pair(found: Outcome, stored: dict[int, Pair]) -> Pair:
    home, prompts = stored[found.rows[0]], [stored[row].prompt for row in found.prompt]
    prompt = prompts[0] if len(prompts) == 1 else [*chain.from_iterable(prompts)]
    answers = (getattr(stored[row], SIDES[side][0]) for row, side in (found.chosen, found.rejected))
    sides = (prompt, *answers)
    if not all(isinstance(side, str) for side in sides):
        sides = tuple(as_messages(s, role) for s, (_, role) in zip(sides, SIDES, strict=True))
    first_won = home.first_won if found.first_won is None else found.first_won
    return Pair(*sides, first_won, home.tools, home.chat_template_kwargs)


def _shared(groups: Groups, rows: Sequence[int]) -> str | None:
    """The records of these rows, which share a reject, as JSON; None where there is only one.

    Where they are in several files, their ordinals alone do not identify them.
    """
    if len(rows) < 2:
        return None
    shared = f'"records": {groups.of("record", rows)}'
    if len({groups.file_of(row) for row in rows}) > 1:
        places = [str(groups.locate(row)) for row in rows]
        shared += f', "sources": {json.dumps(places, ensure_ascii=False)}'
    return shared

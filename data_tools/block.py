"""One block of records through reader, format and checks: what a worker runs in the first pass.

Pure except for the files that it writes under a name of its own, so that a worker that is lost
can be replaced by another.
"""

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from uuid import uuid4

from data_tools import annotators, keys
from data_tools.annotators import Ballot
from data_tools.block_files import (
    SLOTS,
    BlockFiles,
    RejectRow,
    Row,
    Storage,
    as_json,
    write_pairs,
    write_pending,
    write_rejects,
)
from data_tools.checks import Limits
from data_tools.dedupe import Split
from data_tools.formats import FORMATS
from data_tools.formats.format import Format, ReadOptions
from data_tools.formats.mapping import mapped
from data_tools.formats.reader import FormatReader
from data_tools.readers.blocks import Span, SpanReader
from data_tools.record import (
    BadRecord,
    LabeledComparison,
    Location,
    Pair,
    Pending,
    Reject,
    Result,
    ScoredAnswer,
    Side,
    TreeMessage,
    as_messages,
    first_by_reason,
)


@dataclass(frozen=True)
class Task:
    """What to do with every record. The format is named, since it holds functions."""

    format: str
    mapping: tuple[tuple[str, str], ...]  # of --map, where the format is its own
    options: ReadOptions
    annotators: str
    limits: Limits
    keep: tuple[str, ...]
    split: Split

    def find_format(self) -> Format:
        return mapped(dict(self.mapping)) if self.mapping else FORMATS[self.format]


@dataclass(frozen=True)
class Block:
    """Some records of one file in a row: a span to read, or records that were read already."""

    file: str
    size: int  # bytes of the file, for the progress bar
    span: Span | None = None
    records: tuple[bytes, ...] = ()  # pickled lists, where there is no span


@dataclass(slots=True)
class PendingRow:
    """What grouping needs of one result of a grouped block.

    `key` says what it belongs together with, `value` what is known of it (see `grouping`). Pairs
    and faults of a record have no key.
    """

    order: int
    location: Location
    kind: type | None = None
    key: bytes = b""
    value: tuple = ()


@dataclass
class BlockResult:
    """What became of a block.

    `stop` is the offset at which the last record of its span ended. The driver fills in
    `first_record`, the records of the whole input before the block, and `records_before`, what the
    ordinals of its records count from in their file.
    """

    block: Block
    files: BlockFiles
    records: int = 0
    made: int = 0
    stop: int = 0
    ballots: list[Ballot] = field(default_factory=list)
    pending: list[PendingRow] = field(default_factory=list)
    first_record: int = 0
    records_before: int = 0


def run(block: Block, task: Task, folder: str) -> BlockResult:
    """Read and check the records of a block, and write its files to `folder`."""
    path = os.path.join(folder, uuid4().hex)
    result = BlockResult(block, BlockFiles(path))
    rejects: list[RejectRow] = []
    rows = [*_read(block, task, result, rejects)]
    storage = Storage(task.keep, raw=block.span is None)
    if any(not isinstance(row.result, Pair) for row in rows):
        result.pending = _pending(rows)
        sides = [replace(row, result=_sides(row.result)) for row in rows]
        result.files = write_pending(path, sides, storage)
    else:
        result.files, failed = write_pairs(path, rows, task.limits, task.split, storage)
        rejects += failed
    result.files.size += write_rejects(path, rejects)
    return result


def _read(block: Block, task: Task, result: BlockResult, rejects: list[RejectRow]) -> Iterator[Row]:
    """What the records come to, one by one; those that come to nothing are added to `rejects`."""
    reader = FormatReader(task.find_format(), task.options, task.keep)
    if block.span:
        records = SpanReader(block.span)
    else:
        records = chain.from_iterable(map(pickle.loads, block.records))
    votes: list[LabeledComparison] = []
    for index, record in enumerate(records):
        order, location = index * SLOTS, record.location
        result.records += 1
        if isinstance(record, Reject):
            raw = as_json(record.raw)
            rejects.append(RejectRow(order, location, record.reason, record.detail, raw, False))
            continue
        try:
            results, kept = reader.read(record)
        except BadRecord as fault:
            if fault.votes:
                result.ballots.append(_ballot(location, 0, fault.votes))
            raw = as_json(record.value)
            rejects.append(RejectRow(order, location, fault.reason, fault.detail, raw, False))
            continue
        if isinstance(results[0], LabeledComparison | BadRecord):
            results = _decided(results, task.annotators, location, result.ballots, votes)
        faults = [found for found in results if isinstance(found, BadRecord)]
        if len(faults) == len(results):
            results, made = [first_by_reason(faults)], 0
        else:
            made = sum([isinstance(found, Pair | BadRecord) for found in results])
        result.made += made
        for slot, found in enumerate(results):
            if not isinstance(found, BadRecord):
                yield Row(order + slot, location, found, kept, record.value)
                continue
            raw = as_json(record.value)
            reject = (order + slot, location, found.reason, found.detail, raw, made > 0)
            rejects.append(RejectRow(*reject))
    if block.span:
        result.stop = records.stop
    for comparison, (key, forward) in zip(votes, _comparison_keys(votes), strict=True):
        result.ballots.append(Ballot(key, comparison.votes, swapped=not forward))


def _decided(
    results: list[Result],
    mode: str,
    location: Location,
    ballots: list[Ballot],
    votes: list[LabeledComparison],
) -> list[Result]:
    """The results with each comparison decided, unless other records may hold votes on it.

    The votes are added to `ballots`, or to `votes` where they need the key of the comparison.
    """
    decided: list[Result] = []
    for slot, found in enumerate(results):
        if not isinstance(found, LabeledComparison):
            decided.append(found)
            continue
        if found.across_records:
            votes.append(found)
        else:
            ballots.append(_ballot(location, slot, found.votes))
        is_final = not found.across_records or mode == "each"
        decided += annotators.decide(found, mode) if is_final else [found]
    return decided


def _ballot(location: Location, slot: int, votes: tuple) -> Ballot:
    """The votes on a comparison that no other record has."""
    where = f"{location.file}#{location.line}#{location.record}#{slot}"
    return Ballot(keys.digest(where.encode()), votes)


def _comparison_keys(comparisons: list[LabeledComparison]) -> list[tuple[bytes, bool]]:
    """The key of each comparison, and whether its first answer comes first in the key."""
    return [
        keys.comparison_key(prompt, first, second, extras)
        for prompt, first, second, extras in zip(
            _digests([c.prompt for c in comparisons], "user"),
            _digests([c.first for c in comparisons], "assistant"),
            _digests([c.second for c in comparisons], "assistant"),
            [keys.extras_key(c.tools, c.chat_template_kwargs) for c in comparisons],
            strict=True,
        )
    ]


def _digests(sides: list[Side], role: str) -> list[bytes]:
    if not all(isinstance(side, str) for side in sides):
        sides = [as_messages(side, role) for side in sides]
    return keys.Column(sides, role).digests


def _sides(result: Pair | Pending) -> Pair:
    """What is pending, stored like a pair."""
    if isinstance(result, Pair):
        return result
    if isinstance(result, TreeMessage):
        return Pair([result.message], [], [])
    extras = {"tools": result.tools, "chat_template_kwargs": result.chat_template_kwargs}
    if isinstance(result, ScoredAnswer):
        return Pair(result.prompt, result.answer, "", **extras)
    return Pair(result.prompt, result.first, result.second, **extras)


def _pending(rows: list[Row]) -> list[PendingRow]:
    """What grouping needs to know of each result."""
    comparisons = [r.result for r in rows if isinstance(r.result, LabeledComparison)]
    scored = [r.result for r in rows if isinstance(r.result, ScoredAnswer)]
    comparison_keys = iter(_comparison_keys(comparisons))
    prompts = iter(_digests([answer.prompt for answer in scored], "user"))
    pending = []
    for row in rows:
        found, result = PendingRow(row.order, row.location), row.result
        if isinstance(result, LabeledComparison):
            found.key, forward = next(comparison_keys)
            found.kind, found.value = LabeledComparison, (result.votes, forward)
        elif isinstance(result, ScoredAnswer):
            extras = keys.extras_key(result.tools, result.chat_template_kwargs)
            found.key = keys.digest(next(prompts) + extras)
            found.kind, found.value = ScoredAnswer, (result.score, result.graded)
        elif isinstance(result, TreeMessage):
            found.key = keys.digest(result.key.encode())
            parent = None if result.parent is None else keys.digest(result.parent.encode())
            is_answer = result.message["role"] == "assistant"
            found.kind, found.value = TreeMessage, (parent, result.rank, is_answer)
        pending.append(found)
    return pending

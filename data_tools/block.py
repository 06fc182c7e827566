"""One block of records through reader, format and checks: what a worker runs in the first pass.

Pure except for the files that it writes under a name of its own, so that a worker that is lost
can be replaced by another.
"""

import math
import os
import pickle
from dataclasses import dataclass, field, replace
from itertools import chain
from uuid import uuid4

from data_tools import annotators, keys
from data_tools.annotators import Ballot
from data_tools.block_files import (
    SLOTS,
    BlockFiles,
    Row,
    write_pairs,
    write_pending,
    write_rejects,
)
from data_tools.checks import Limits
from data_tools.dedupe import Split
from data_tools.formats import FORMATS
from data_tools.formats.format import Format, ReadOptions
from data_tools.formats.plans import mapped
from data_tools.formats.reader import FormatReader
from data_tools.readers.blocks import Span, read_span
from data_tools.record import (
    BadRecord,
    LabeledComparison,
    Location,
    Pair,
    Record,
    Reject,
    Result,
    ScoredAnswer,
    Side,
    TreeMessage,
    as_json,
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


@dataclass
class BlockResult:
    """What became of a block, whose `records` are gone and whose span ends with its last record.

    The driver fills in how many records of the whole input and of the file, and how many pairs, are
    before the block.
    """

    block: Block
    files: BlockFiles
    records: int = 0
    made: int = 0
    ballots: list[Ballot] = field(default_factory=list)
    first_record: int = 0
    records_before: int = 0
    first_pair: int = 0


def run(block: Block, task: Task, folder: str) -> BlockResult:
    """Read and check the records of a block, and write its files to `folder`."""
    found, number, span = _Collected(task), -1, block.span
    if span:
        records, stop = read_span(span)
        span = replace(span, stop=stop)
    else:
        records = chain.from_iterable(map(pickle.loads, block.records))
    for number, record in enumerate(records):
        found.add(number * SLOTS, record)
    path, rows, with_raw = os.path.join(folder, uuid4().hex), found.rows, span is None
    pending = [type(row.result) for row in rows if type(row.result) is not Pair]
    voted, ballots = found.ballots()
    if pending:
        entries = _entries(rows, voted)
        files, failed = write_pending(path, rows, entries, task.keep, with_raw), []
        files.pending = pending[0]
    else:
        options = task.limits, task.split, task.keep
        files, failed = write_pairs(path, rows, *options, with_raw)
    files.size += write_rejects(path, found.rejects + failed)
    return BlockResult(Block(block.file, block.size, span), files, number + 1, found.made, ballots)


class _Collected:
    """What the records of a block come to: rows, rejects, ballots, and how many pairs were made."""

    def __init__(self, task: Task):
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []
        self.made = 0
        self._reader = FormatReader(task.find_format(), task.options, task.keep)
        self._mode = task.annotators
        self._ballots: list[Ballot] = []
        self._shared: list[LabeledComparison] = []  # whose ballots need the comparison's key

    def add(self, order: int, record: Record | Reject) -> None:
        """Add what a record comes to; `order` is the first slot of its results."""
        location = record.location
        if isinstance(record, Reject):
            record.order = order
            self.rejects.append(record)
            return
        try:
            results, kept = self._reader.read(record)
        except BadRecord as fault:
            if fault.votes:
                self._ballots.append(_ballot(location, 0, fault.votes))
            self._reject(order, record, fault, False)
            return
        if len(results) == 1 and type(results[0]) is Pair:
            self.made += 1
            self.rows.append(Row(order, location, results[0], kept, record.value))
            return
        results = self._decided(results, location)
        faults = [found for found in results if isinstance(found, BadRecord)]
        if len(faults) == len(results):
            self._reject(order, record, first_by_reason(faults), False)
            return
        made = sum([isinstance(found, Pair | BadRecord) for found in results])
        self.made += made
        for slot, found in enumerate(results):
            if isinstance(found, BadRecord):
                self._reject(order + slot, record, found, made > 0)
            else:
                self.rows.append(Row(order + slot, location, found, kept, record.value))

    def _reject(self, order: int, record: Record, fault: BadRecord, made: bool) -> None:
        reject = (record.location, fault.reason, fault.detail, as_json(record.value))
        self.rejects.append(Reject(*reject, order, made))

    def _decided(self, results: list[Result], location: Location) -> list[Result]:
        """The results with comparisons decided, unless other records may hold votes on them."""
        decided: list[Result] = []
        for slot, found in enumerate(results):
            if not isinstance(found, LabeledComparison):
                decided.append(found)
                continue
            if found.across_records:
                self._shared.append(found)
            else:
                self._ballots.append(_ballot(location, slot, found.votes))
            is_final = not found.across_records or self._mode == "each"
            decided += annotators.decide(found, self._mode) if is_final else [found]
        return decided

    def ballots(self) -> tuple[list[tuple[bytes, bool]], list[Ballot]]:
        """The keys of the comparisons that wait for other records, and the ballots on all."""
        keys = _comparison_keys(self._shared)
        shared = [
            Ballot(key, comparison.votes, swapped=not forward)
            for comparison, (key, forward) in zip(self._shared, keys, strict=True)
        ]
        return keys, self._ballots + shared


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


def _entries(rows: list[Row], voted: list[tuple[bytes, bool]]) -> list[tuple]:
    """The entry of each row, whose result becomes a pair that holds its sides.

    `voted` are the keys of the comparisons among the results.
    """
    scored = [r.result for r in rows if isinstance(r.result, ScoredAnswer)]
    prompts, voted = iter(_digests([answer.prompt for answer in scored], "user")), iter(voted)
    entries = []
    for row in rows:
        result, entry = row.result, (b"", b"", 0.0, False)
        if isinstance(result, TreeMessage):
            parent = b"" if result.parent is None else keys.digest(result.parent.encode())
            rank = math.nan if result.rank is None else result.rank
            is_answer = result.message["role"] == "assistant"
            entry = (keys.digest(result.key.encode()), parent, rank, is_answer)
            row.result = Pair([result.message], [], [])
        elif not isinstance(result, Pair):
            extras = (result.tools, result.chat_template_kwargs)
            if isinstance(result, ScoredAnswer):
                key = keys.digest(next(prompts) + keys.extras_key(*extras))
                entry = (key, b"", result.score, result.graded)
                row.result = Pair(result.prompt, result.answer, "", None, *extras)
            else:
                ((name, won),) = result.votes  # a record that others may join has one annotator
                key, forward = next(voted)
                value = -1 if won is None else won if forward else 1 - won
                entry = (key, keys.digest(name.encode()), value, forward)
                row.result = Pair(result.prompt, result.first, result.second, None, *extras)
        entries.append(entry)
    return entries

"""One block of records through reader, format and checks: what a worker runs in the first pass.

Pure except for the files that it writes under a name of its own, so that a worker that is lost
can be replaced by another.
"""

import math
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from uuid import uuid4

from data_tools import annotators, block_files, keys
from data_tools.annotators import Agreement
from data_tools.block_files import BlockFiles, Row
from data_tools.checks import Limits
from data_tools.formats import FORMATS
from data_tools.formats.format import Format, ReadOptions
from data_tools.formats.mapping import mapped
from data_tools.formats.reader import FormatReader
from data_tools.readers.blocks import Span, read_span
from data_tools.record import (
    REASONS,
    BadRecord,
    LabeledComparison,
    Pair,
    Record,
    Reject,
    Result,
    ScoredAnswer,
    TreeMessage,
    as_json,
)
from data_tools.splits import Split


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

    The driver fills in how many pairs are before the block, and what to add to the number of a
    record for its number in the file (`records_before`) and its ordinal in the whole input
    (`first_record`). The first record of a span has number 1.
    """

    block: Block
    files: BlockFiles
    records: int = 0
    made: int = 0
    columns: set[str] = field(default_factory=set)  # that were read
    unread: Counter = field(default_factory=Counter)  # records with a value, by other columns
    agreement: Agreement = field(default_factory=Agreement)
    first_record: int = 0
    records_before: int = 0
    first_pair: int = 0


def run(block: Block, task: Task, folder: str) -> BlockResult:
    """Read and check the records of a block, and write its files to `folder`."""
    found, span = _Collected(task), block.span
    if span:
        records, stop = read_span(span)
        span = replace(span, stop=stop)
    else:
        records = chain.from_iterable(map(pickle.loads, block.records))
    for record in records:
        found.add(record)
    compared = _compared(found.keyed)
    for result, (key, forward) in zip(found.keyed, compared, strict=True):
        if isinstance(result, LabeledComparison):
            found.agreement.add(result.votes, key, not forward)
    path, rows, failed = os.path.join(folder, uuid4().hex), found.rows, []
    if kinds := {type(row.result) for row in rows} - {Pair}:
        compared = iter(compared)
        entries = [_entry(row.result, compared) for row in rows]
        files = block_files.write_pending(path, rows, entries)
        files.pending = kinds.pop()
    else:
        options = task.limits, task.split, task.keep
        files, failed = block_files.write_pairs(path, rows, *options, with_raw=span is None)
    files.size += block_files.write_rejects(path, found.rejects + failed)
    block, reader = Block(block.file, block.size, span), found.reader
    counts = found.records, found.made, reader.columns, reader.unread
    return BlockResult(block, files, *counts, found.agreement)


class _Collected:
    """What the records of a block come to: how many there are, how many pairs were made of them ...

    `keyed` are the comparisons and answers that need a key, since other records may be about the
    same; `agreement` has all votes but those on them.
    """

    def __init__(self, task: Task):
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []
        self.records = self.made = 0
        self.agreement = Agreement()
        self.keyed: list[LabeledComparison | ScoredAnswer] = []
        self.reader = FormatReader(task.find_format(), task.options, task.keep)
        self._mode = task.annotators

    def add(self, record: Record | Reject) -> None:
        """Add what a record comes to."""
        self.records += 1
        if isinstance(record, Reject):
            self.rejects.append(record)
            return
        try:
            results, kept = self.reader.read(record)
        except BadRecord as fault:
            if fault.votes:
                self.agreement.add(fault.votes)
            self._reject(record, fault, False)
            return
        if len(results) == 1 and type(results[0]) is Pair:
            self.made += 1
            self.rows.append(Row(record.location, results[0], kept, record.value))
            return
        results = self._decided(results)
        faults = [found for found in results if isinstance(found, BadRecord)]
        if len(faults) == len(results):
            self._reject(record, min(faults, key=lambda f: REASONS.index(f.reason)), False)
            return
        made = sum([isinstance(found, Pair | BadRecord) for found in results])
        self.made += made
        for found in results:
            if isinstance(found, BadRecord):
                self._reject(record, found, made > 0)
            else:
                self.rows.append(Row(record.location, found, kept, record.value))

    def _reject(self, record: Record, fault: BadRecord, made: bool) -> None:
        reject = (record.location, fault.reason, fault.detail, as_json(record.value))
        self.rejects.append(Reject(*reject, made))

    def _decided(self, results: list[Result]) -> list[Result]:
        """The results with comparisons decided, unless other records may hold votes on them."""
        decided: list[Result] = []
        for found in results:
            if isinstance(found, LabeledComparison):
                if found.across_records:
                    self.keyed.append(found)
                else:
                    self.agreement.add(found.votes)
                decided += annotators.decide(found, self._mode)
            else:
                if isinstance(found, ScoredAnswer):
                    self.keyed.append(found)
                decided.append(found)
        return decided


def _compared(results: list[LabeledComparison | ScoredAnswer]) -> list[tuple[bytes, bool]]:
    """The key of each comparison or prompt, and whether the first answer comes first in it."""
    pairs = []
    for found in results:
        is_judged = isinstance(found, LabeledComparison)
        answers = (found.first, found.second) if is_judged else ("", "")
        extras = (found.tools, found.chat_template_kwargs)
        pairs.append(Pair(found.prompt, *answers, None, *extras))
    return block_files.comparison_keys(pairs, block_files.columns_of(pairs))


def _entry(result: Result, compared: Iterator[tuple[bytes, bool]]) -> tuple:
    """The first fields of ENTRY for a result; `compared` gives its key, where it needs one."""
    if isinstance(result, Pair):
        return b"", b"", 0.0, False
    if isinstance(result, TreeMessage):
        parent = b"" if result.parent is None else keys.digest(result.parent.encode())
        rank = math.nan if result.rank is None else result.rank
        is_answer = result.message["role"] == "assistant"
        return keys.digest(result.key.encode()), parent, rank, is_answer
    key, forward = next(compared)
    if isinstance(result, ScoredAnswer):
        return key, b"", result.score, result.graded
    ((name, won),) = result.votes  # a record that others may join has one annotator
    value = -1 if won is None else won if forward else 1 - won
    return key, keys.digest(name.encode()), value, forward

"""One block of records through reader, format and checks: what a worker runs in the first pass.

Pure except for the files that it writes under a name of its own, so that a worker that is lost
can be replaced by another.
"""

import os
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from uuid import uuid4

from data_tools import annotators, block_files
from data_tools.annotators import Agreement
from data_tools.block_files import BlockFiles, Row
from data_tools.checks import Limits
from data_tools.formats import FORMATS
from data_tools.formats.format import Format, ReadOptions
from data_tools.formats.mapping import mapped
from data_tools.formats.paths import Column
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
)
from data_tools.splits import Split


@dataclass(frozen=True)
class Task:
    """What to do with every record. The format is named, since it holds functions."""

    format: str
    mapping: tuple[tuple[str, Column], ...]  # of --map, where the format is its own
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
    columns: set[str] = field(default_factory=set)  # that were read
    unread: Counter = field(default_factory=Counter)  # records with a value, by other columns
    agreement: Agreement = field(default_factory=Agreement)
    first_record: int = 0
    records_before: int = 0
    first_pair: int = 0


def run(block: Block, task: Task, folder: str) -> BlockResult:
    """Read and check the records of a block, and write its files to `folder`."""
    span = block.span
    if span:
        records, stop = read_span(span)
        span = replace(span, stop=stop)
    else:
        records = chain.from_iterable(map(pickle.loads, block.records))
    reader, agreement = FormatReader(task.find_format(), task.options, task.keep), Agreement()
    rows, rejects, count = [], [], 0
    for record in records:
        count += 1
        if isinstance(record, Reject):
            rejects.append(record)
            continue
        results, kept = _read(record, reader, task.annotators, agreement)
        has_pairs = len(results) > 1 or not isinstance(results[0], BadRecord)
        for found in results:
            rows.append(Row(record.location, found, kept, record.value, has_pairs))
    files = write(rows, rejects, task, folder, with_raw=span is None)
    block = Block(block.file, block.size, span)
    return BlockResult(block, files, count, reader.columns, reader.unread, agreement)


def _read(
    record: Record, reader: FormatReader, mode: str, agreement: Agreement
) -> tuple[list[Result], tuple[str | None, ...]]:
    """What the comparisons of a record come to, or its one fault, and its columns of --keep.

    A comparison is decided unless other records may hold votes on it.
    """
    try:
        results, kept = reader.read(record)
    except BadRecord as fault:
        agreement.add(annotators.one_each(fault.votes))
        return [fault.copy()], ()
    found: list[Result] = []
    for result in results:
        if isinstance(result, LabeledComparison) and not result.across_records:
            agreement.add(annotators.one_each(result.votes))
            found += annotators.decide(result, mode)
        else:
            found.append(result)
    if all([isinstance(result, BadRecord) for result in found]):
        found = [min(found, key=lambda fault: REASONS.index(fault.reason))]
    return found, kept


def write(
    rows: Sequence[Row], rejects: Sequence[Reject], task: Task, folder: str, with_raw: bool
) -> BlockFiles:
    """Write what the records of a block come to, as pairs unless any waits for other records."""
    path = os.path.join(folder, uuid4().hex)
    faults = [row.reject(*row.result.args) for row in rows if isinstance(row.result, BadRecord)]
    rows = [row for row in rows if not isinstance(row.result, BadRecord)]
    if any(not isinstance(row.result, Pair) for row in rows):
        files, failed = block_files.write_pending(path, rows), []
    else:
        options = task.limits, task.split, task.keep
        files, failed = block_files.write_pairs(path, rows, *options, with_raw)
    files.made = files.pairs + sum([reject.made for reject in faults + failed])
    files.size += block_files.write_rejects(path, [*rejects, *faults, *failed])
    return files

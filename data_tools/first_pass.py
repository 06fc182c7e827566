"""The first pass, for one block: its records through format and rules, into a part of its own.

Pure but for the files that it writes, so that any worker can run it, and run it again.
"""

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

from data_tools import block, parts, readers
from data_tools.agreement import Ballot
from data_tools.columnar import delimited, json_lines, lane, probe, records
from data_tools.layout import LayoutFinder
from data_tools.record import Fault, Part, Place, Raw, Reject
from data_tools.settle import Split


@dataclass(frozen=True)
class Records:
    """A block that was read already: records of one file, pickled."""

    file: str
    pickled: tuple[bytes, ...] = ()
    size: int = 0  # bytes of the file that were read for it
    before = 0  # lines; the records know their places

    def read(self) -> Iterator[Raw | Reject]:
        for piece in self.pickled:
            yield from pickle.loads(piece)


Source = Records | readers.Stretch


@dataclass
class Told:
    """What is known of a block after the first pass; the rest stands in its part."""

    source: Source
    path: str  # of the part
    records: int = 0
    lines: int = 0
    stop: int = 0  # where the records ended, which may be past the stretch that was asked for
    made: int = 0
    pairs: int = 0
    entries: bytes = b""
    size: int = 0  # bytes of the part, and of what is read again for it
    finder: LayoutFinder = field(default_factory=LayoutFinder)
    ballots: list[Ballot] = field(default_factory=list)
    excluded: list[tuple[tuple[bytes, bool], Place]] = field(default_factory=list)
    loose_in_test: bytes = b""
    waiting: list[block.Checked] | None = None  # what must be gathered before it can be settled


def run(source: Source, task: block.Task, split: Split, folder: str, waits: bool) -> Told:
    """Check a block and write its part.

    Where a record waits for others, or `waits` says that some may, all are handed over instead.
    """
    told = Told(source, os.path.join(folder, uuid4().hex))
    if not waits and (fast := _columnar(told, task, split)):
        return fast
    salt = b""
    if isinstance(source, readers.Stretch):
        items = source.open()
        salt = f"{source.file}:{source.start}:".encode()
    else:
        items = source.read()
    checked = list(block.check(items, task, salt))
    told.records = len(checked)
    if isinstance(source, readers.Stretch):
        told.lines, told.stop = items.lines, items.stop
    if waits or any(isinstance(part, Part) for found in checked for part in found.results):
        _note(told, checked)
        told.waiting = checked
        return told
    return finish(told, checked, task, split, isinstance(source, readers.Stretch))


def _columnar(told: Told, task: block.Task, split: Split) -> Told | None:
    """The same through the fast lane; None where the block has no plain records for it."""
    source = told.source
    if not probe.may_be_plain(task):
        return None
    if not isinstance(source, readers.Stretch):
        items = list(source.read())
        made = records.table(items, task)
        found = made and lane.Found(*made, len(items), 0, 0)
    elif source.head is None:
        found = json_lines.read(source, source.read(), task)
    else:
        found = delimited.read(source, source.read())
    again = isinstance(source, readers.Stretch)
    lane_found = found and lane.content(found.table, found.others, source.file, task, split, again)
    if not lane_found:
        return None
    content, checked = lane_found
    told.records, told.lines, told.stop = found.records, found.lines, found.stop
    _note(told, checked)
    told.made += len(found.table.order) - (len(checked) - len(found.others))
    return store(told, content)


def _note(told: Told, checked: list[block.Checked]) -> None:
    told.ballots = [ballot for found in checked for ballot in found.ballots]
    told.made = sum(found.made for found in checked)
    told.excluded = [
        (result.comparison, found.place)
        for found in checked
        for result in found.results
        if isinstance(result, Fault) and result.comparison
    ]


def finish(
    told: Told, checked: list[block.Checked], task: block.Task, split: Split, again: bool = False
) -> Told:
    """Write what was checked to the part; `again` says that its records can be read again."""
    _note(told, checked)
    return store(told, parts.gather(enumerate(checked), split, task.keep, again))


def store(told: Told, content: parts.Content) -> Told:
    told.entries, told.finder = content.entries, content.finder
    told.pairs = len(content.entries) // 16
    numbers = content.numbers
    in_test = (numbers["in_test"] == 1) & (numbers["has_loose"] == 1)
    told.loose_in_test = numbers["loose"][in_test].tobytes()
    again = int(numbers["length"].sum()) if content.again else 0
    told.size = parts.write(content, told.path) + again
    return told

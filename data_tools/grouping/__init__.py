"""Groups what several records hold of one thing: votes, rated answers, messages of a tree.

Keys and numbers are held for every row, never texts. `blocks` gives, for each block, what its
rows come to with those of other blocks; `grouping.assemble` makes pairs of them.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_tools.block import Block, BlockResult
from data_tools.block_files import SLOTS, BlockFiles
from data_tools.grouping.assemble import Assembly, GroupedBlock, RowRef
from data_tools.grouping.groups import Outcome
from data_tools.grouping.judgements import Judgements
from data_tools.grouping.ratings import Ratings
from data_tools.grouping.tree import Tree
from data_tools.record import LabeledComparison, Location, ScoredAnswer, TreeMessage

_OWN = 1 << 31  # results that a record has alone come before those that it shares
_KINDS = (LabeledComparison, ScoredAnswer, TreeMessage)


class Grouper:
    """Takes the pending rows of all blocks in order, then gives what they come to."""

    def __init__(self, annotators: str, pairs: str, min_margin: float):
        self._groups = [
            Judgements(annotators, self.locate),
            Ratings(pairs, min_margin),
            Tree(pairs, self.locate),
        ]
        self._blocks: list[_BlockRows] = []
        # Of each row: its block, where its record is, and which groups it belongs to, if any.
        self._block, self._order = array("I"), array("Q")
        self._line, self._record, self._shares_line = array("Q"), array("Q"), bytearray()
        self._kind = array("b")

    def add(self, result: BlockResult) -> None:
        """Note the pending rows of the next block, if it has any."""
        if not result.pending:
            return
        rows = _BlockRows(result.block, result.files, result.first_record, len(self._order))
        self._blocks.append(rows)
        for pending in result.pending:
            location, kind = pending.location, -1
            if pending.kind is not None:
                kind = _KINDS.index(pending.kind)
                self._groups[kind].add(len(self._order), pending.key, pending.value)
            self._kind.append(kind)
            self._block.append(len(self._blocks) - 1)
            self._order.append(pending.order)
            self._line.append(location.line or 0)
            self._record.append(location.record + result.records_before)
            self._shares_line.append(location.shares_line)

    def locate(self, row: int) -> Location:
        """Where the record of a row starts."""
        file = self._blocks[self._block[row]].block.file
        line = self._line[row] or None
        return Location(file, line, self._record[row], bool(self._shares_line[row]))

    def blocks(self) -> Iterator[GroupedBlock]:
        """For each block what its rows come to; rows of other blocks are named by their files."""
        entries = [0] * len(self._groups)
        for groups in self._groups:
            groups.finish()
        starts = [block.start for block in self._blocks] + [len(self._order)]
        for block, stop in zip(self._blocks, starts[1:], strict=True):
            found: list[Assembly] = []
            for row in range(block.start, stop):
                kind, order = self._kind[row], self._order[row]
                if kind < 0:
                    own = Outcome([row], 0, None, [row], (row, 1), (row, 2))
                    found.append(self._assembly(own, order))
                    continue
                rows = self._groups[kind].rows
                while entries[kind] < len(rows) and rows[entries[kind]] == row:
                    for outcome in self._groups[kind].outcomes(entries[kind]):
                        shared_order = order // SLOTS * SLOTS + _OWN + len(found)
                        found.append(self._assembly(outcome, shared_order))
                    entries[kind] += 1
            yield GroupedBlock(block.files, block.block, tuple(found))

    def _assembly(self, outcome: Outcome, order: int) -> Assembly:
        rows = [*dict.fromkeys(outcome.rows)]
        members, where = {}, {}
        for row in rows:
            block = self._blocks[self._block[row]]
            member = block.first_record + self._order[row] // SLOTS
            members.setdefault(member, None)
            where.setdefault(member, self.locate(row))
        return Assembly(
            order=order,
            home=self._ref(rows[0]),
            members=tuple(members),
            shared=_shared([*where.values()]),
            made=outcome.made,
            fault=outcome.fault and (outcome.fault.reason, outcome.fault.detail),
            prompt=tuple(map(self._ref, outcome.prompt)),
            chosen=(self._ref(outcome.chosen[0]), outcome.chosen[1]),
            rejected=(self._ref(outcome.rejected[0]), outcome.rejected[1]),
            first_won=outcome.first_won,
        )

    def _ref(self, row: int) -> RowRef:
        block = self._blocks[self._block[row]]
        return block.files.path, row - block.start


@dataclass(frozen=True)
class _BlockRows:
    """A block, the records of the whole input before it, and the number of its first row."""

    block: Block
    files: BlockFiles
    first_record: int
    start: int


def _shared(where: Sequence[Location]) -> str | None:
    """The records that share a reject, as a piece of JSON; None where there is only one.

    Where they are in several files, their ordinals alone do not identify them.
    """
    if len(where) < 2:
        return None
    shared = f'"records": {[location.record for location in where]}'
    if len({location.file for location in where}) > 1:
        shared += f', "sources": {json.dumps([*map(str, where)], ensure_ascii=False)}'
    return shared

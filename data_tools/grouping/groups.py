"""Which pending rows belong together: judgements of one comparison, answers to one prompt.

Rows are numbered over all blocks. Some bytes of each are held, no texts.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from data_tools.annotators import Agreement
from data_tools.block import BlockResult
from data_tools.record import Location, TreeMessage, as_json

NONE = -1  # in place of a row


@dataclass(frozen=True)
class Links:
    """The links of each message of a tree, as numbers of rows.

    `first` is the first row with the row's id, which alone counts, `up` that of the message before
    it. `is_above` tells whether answers that are compared are below the row.
    """

    first: np.ndarray
    up: np.ndarray
    is_above: np.ndarray


class Groups:
    """The pending rows of some blocks; those with one key are a group, of which the first leads.

    `annotators` are the names of those who judged, by their digests; `agreement` is theirs.
    """

    def __init__(self, blocks: Sequence[BlockResult], agreement: Agreement):
        self.blocks, self.agreement, self.links = blocks, agreement, None
        self.annotators: dict[int, str] = {}
        self.starts = [0, *accumulate(len(block.files.entries) for block in blocks)]
        self._entries = np.concatenate([block.files.entries for block in blocks])
        self._paths = [block.files.path for block in blocks]  # the driver gives blocks new files
        for block in blocks:
            self.annotators |= block.files.annotators
            block.files.entries = None  # which are here
        key = self._entries["key"]
        if blocks[0].files.pending is TreeMessage:
            key, self.links = _tree(self._entries)
        self._order = np.argsort(key, kind="stable")
        key = key[self._order]
        starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]) | (key == 0))
        stops = np.append(starts[1:], len(key))
        leaders = self._order[starts]
        by_leader = np.argsort(leaders)
        self._leaders = leaders[by_leader]
        self._starts, self._stops = starts[by_leader], stops[by_leader]

    def led_in(self, number: int) -> Iterator[list[int]]:
        """The groups whose first row is in a block, each with its rows in order."""
        low, high = np.searchsorted(self._leaders, self.starts[number : number + 2])
        bounds = self._starts[low:high].tolist(), self._stops[low:high].tolist()
        for start, stop in zip(*bounds, strict=True):
            yield self._order[start:stop].tolist()

    def of(self, name: str, rows: Sequence[int]) -> list:
        """The values of a field of ENTRY for some rows."""
        return self._entries[name][rows].tolist()

    def block_of(self, row: int) -> int:
        """The number of the block that a row is in."""
        return bisect(self.starts, row) - 1

    def _block(self, row: int) -> BlockResult:
        return self.blocks[self.block_of(row)]

    def place(self, row: int) -> tuple[str, int]:
        """The path of a row's block, and where in PATH.pending the row is."""
        return self._paths[self.block_of(row)], self._entries["offset"][row].item()

    def locate(self, row: int) -> Location:
        """Where the record of a row starts."""
        block, (*_, line, record, shares_line, _) = self._block(row), self._entries[row].item()
        return Location(block.block.file, line or None, block.records_before + record, shares_line)

    def records(self, rows: Sequence[int]) -> tuple[tuple[int, ...], str | None]:
        """The records of some rows: their ordinals in the whole input, and as a piece of JSON.

        There is no JSON for one record. Where they are in several files, their ordinals there alone
        do not identify them.
        """
        numbers = zip(rows, self.of("record", rows), strict=True)
        found = {self._block(row).first_record + number: row for row, number in numbers}
        if len(found) == 1:
            return tuple(found), None
        locations = [self.locate(row) for row in found.values()]
        shared = f'"records": {[location.record for location in locations]}'
        if len({location.file for location in locations}) > 1:
            shared += f', "sources": {as_json([*map(str, locations)])}'
        return tuple(found), shared


def _tree(entries: np.ndarray) -> tuple[np.ndarray, Links]:
    """The key of the group of each message, and its links; a group are the replies to one message.

    A message that is no assistant's reply, or has the id of an earlier one, is in no group.
    """
    parent, size = entries["other"], len(entries)
    ids, first_of = np.unique(entries["key"], return_index=True)

    def first_with(wanted: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return np.where(ids[at] == wanted, first_of[at], NONE)

    first, up = first_with(entries["key"]), first_with(parent)
    is_reply = entries["flag"] & (parent != 0) & (first == np.arange(size))
    asked, replies = np.unique(parent[is_reply], return_counts=True)
    is_above, above = np.zeros(size, bool), first_with(asked[replies > 1])
    while len(above):
        above = above[above != NONE]
        above = above[~is_above[above]]
        is_above[above] = True
        above = np.unique(up[above])
    return np.where(is_reply, parent, 0), Links(first, up, is_above)

"""Which pending rows belong together: judgements of one comparison, answers to one prompt.

Rows are numbered over all blocks. Some bytes of each are held, no texts.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from data_tools.block import BlockResult
from data_tools.block_files import ENTRY
from data_tools.record import Location, TreeMessage, as_json

NONE = -1  # in place of a row


@dataclass(frozen=True)
class Links:
    """The links of each message of a tree, as numbers of rows.

    `first` is the first row with the row's id, which alone counts, `up` that of the message before
    it, `end` the last one going up, or one of a circle. `is_above` tells whether answers that are
    compared are below the row.
    """

    first: np.ndarray
    up: np.ndarray
    end: np.ndarray
    is_above: np.ndarray


class Groups:
    """The pending rows of some blocks; those with one `leader`, its first row, are a group."""

    def __init__(self, blocks: Sequence[BlockResult]):
        entries = [np.memmap(f"{block.files.path}.entries", ENTRY, "r") for block in blocks]
        self.blocks, self.starts = blocks, [0, *accumulate(map(len, entries))]
        self._entries = np.asarray(np.concatenate(entries))
        del entries  # which are mapped into memory
        self._paths = [block.files.path for block in blocks]  # the driver gives blocks new files
        self.links = None
        key = self._entries["key"]
        if blocks[0].files.pending is TreeMessage:
            leader, self.links = _tree(key, self._entries["other"], self._entries["flag"])
        else:
            leader = np.where(key == b"", np.arange(len(key)), _leader(key))
        self._order = np.argsort(leader, kind="stable")
        self._bounds = np.flatnonzero(np.diff(leader[self._order], prepend=-1, append=-1))
        self._leaders = self._order[self._bounds[:-1]]

    def led_in(self, number: int) -> Iterator[list[int]]:
        """The groups whose first row is in a block, each with its rows in order."""
        low, high = np.searchsorted(self._leaders, self.starts[number : number + 2])
        for start, stop in pairwise(self._bounds[low : high + 1].tolist()):
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


def _leader(values: np.ndarray) -> np.ndarray:
    """Of each row the first row that has the same value."""
    _, first, numbers = np.unique(values, return_index=True, return_inverse=True)
    return first[numbers]


def _tree(
    key: np.ndarray, parent_key: np.ndarray, is_answer: np.ndarray
) -> tuple[np.ndarray, Links]:
    """The leader of each message and its links; a group are the replies to one message."""
    rows = np.arange(len(key))
    ids, numbers = np.unique(np.concatenate((key, parent_key)), return_inverse=True)
    own, parent = numbers[: len(key)], numbers[len(key) :]
    first_of = np.full(len(ids), NONE)
    first_of[own[::-1]] = rows[::-1]  # the first row is written last
    has_parent = parent_key != b""
    up = np.where(has_parent, first_of[parent], NONE)
    is_reply = is_answer & has_parent & (first_of[own] == rows)
    leader = _leader(np.where(is_reply, parent, len(ids) + rows))
    is_compared = np.bincount(leader)[leader] > 1
    is_above = np.zeros(len(key), bool)
    is_above[up[is_compared & (up != NONE)]] = True
    end = np.where(up == NONE, rows, up)
    for _ in range(len(key).bit_length()):  # each time, `end` is twice as far up
        is_above[end[is_above]] = True
        end = end[end]
    return leader, Links(first_of[own], up, end, is_above)

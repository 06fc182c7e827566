"""Which pending rows belong together: found for all blocks at once, read by every worker.

Rows are numbered over all blocks. What is known of them are columns of numbers, each in a file that
is mapped into memory, so nobody holds them.
"""

import os
import pickle
from bisect import bisect
from collections.abc import Sequence
from contextlib import ExitStack
from uuid import uuid4

import numpy as np

from data_tools.block import BlockResult
from data_tools.block_files import ENTRY, SLOTS, entries_of, numbers_of, read
from data_tools.record import Location, TreeMessage

NONE = -1  # in place of a row

Columns = dict[str, np.ndarray]
"""A value of every row, by name. Besides those of ENTRY, of `_place` and of `_tree`:

`sorted` has the rows of one group next to each other, each group in order; those of a row's own
group are there from its `start` to its `stop`, which are equal for a row without a key.
"""


class Groups:
    """The rows that `write` has written to files at `path`."""

    def __init__(self, path: str):
        with open(f"{path}.blocks", "rb") as file:
            self.blocks, self.starts, kinds = pickle.load(file)
        self.columns: Columns = {
            name: np.asarray(np.memmap(f"{path}.{name}", kind, "r")) for name, kind in kinds.items()
        }

    def of(self, name: str, rows: Sequence[int] | range) -> list:
        """The values of a column for some rows."""
        if isinstance(rows, range):
            return self.columns[name][rows.start : rows.stop].tolist()
        return self.columns[name][rows].tolist()

    def number_of(self, row: int) -> int:
        """The number of the block that a row is in."""
        return bisect(self.starts, row) - 1

    def file_of(self, row: int) -> str:
        """The file that a row comes from."""
        return self.blocks[self.number_of(row)].block.file

    def locate(self, row: int) -> Location:
        """Where the record of a row starts."""
        line, record, shares_line = (self.of(name, [row])[0] for name in _LOCATION)
        return Location(self.file_of(row), line or None, record, bool(shares_line))


_LOCATION = ("line", "record", "shares_line")


def write(results: Sequence[BlockResult], folder: str) -> str:
    """Group the pending rows of these blocks; returns the path for `Groups`."""
    path = os.path.join(folder, uuid4().hex)
    starts, kinds = [0], {}
    with ExitStack() as stack:
        files = {}
        for result in results:
            batch = read(f"{result.files.path}.pending")
            entries = entries_of(batch)
            columns = {name: entries[name] for name in ENTRY.names}
            columns |= {name: numbers_of(batch, name) for name in _LOCATION}
            columns["record"] = columns["record"] + result.records_before
            columns["member"] = result.first_record + numbers_of(batch, "order") // SLOTS
            for name, values in columns.items():
                if name not in files:
                    files[name] = stack.enter_context(open(f"{path}.{name}", "wb"))
                    kinds[name] = values.dtype
                values.tofile(files[name])
            starts.append(starts[-1] + len(batch))
    key, other = (np.fromfile(f"{path}.{name}", kinds[name]) for name in ("key", "other"))
    if results[0].files.pending is TreeMessage:
        columns = _tree(key, other, np.fromfile(f"{path}.flag", kinds["flag"]))
    else:
        columns = _by_number(np.unique(key, return_inverse=True)[1])
        columns["stop"] = np.where(key == b"", columns["start"], columns["stop"])
    for name, values in columns.items():
        values.tofile(f"{path}.{name}")
        kinds[name] = values.dtype
    with open(f"{path}.blocks", "wb") as file:
        pickle.dump((results, starts, kinds), file)
    return path


def _by_number(numbers: np.ndarray) -> Columns:
    """The columns of groups that have these numbers, all of them from 0 on."""
    counts = np.bincount(numbers)
    stops = np.cumsum(counts)
    columns = {
        "sorted": np.argsort(numbers, kind="stable"),
        "start": (stops - counts)[numbers],
        "stop": stops[numbers],
    }
    return {name: values.astype(np.uint32) for name, values in columns.items()}


def _tree(key: np.ndarray, parent_key: np.ndarray, is_answer: np.ndarray) -> Columns:
    """The columns of messages, whose groups are the assistant's replies to one message.

    `first` is the first row with the row's id, which alone counts, `up` that of the message before
    it, `end` the last one going up; where the way up is a circle, one of its rows. `is_orphan`
    tells whether there is no row with the parent's id, `is_above` whether answers that are compared
    are below the row.
    """
    rows = np.arange(len(key))
    ids, numbers = np.unique(np.concatenate((key, parent_key)), return_inverse=True)
    own, parent = numbers[: len(key)], numbers[len(key) :]
    first_of = np.full(len(ids), NONE)
    first_of[own[::-1]] = rows[::-1]  # the first row is written last
    has_parent = parent_key != b""
    up = np.where(has_parent, first_of[parent], NONE)
    is_reply = is_answer & has_parent & (first_of[own] == rows)
    columns = _by_number(np.unique(np.where(is_reply, parent, len(ids) + rows), False, True)[1])
    is_above = np.zeros(len(key), bool)
    is_compared = columns["stop"] - columns["start"] > 1
    is_above[up[is_compared & (up != NONE)]] = True
    end = np.where(up == NONE, rows, up)
    for _ in range(len(key).bit_length()):  # each time, `end` is twice as far up
        is_above[end[is_above]] = True
        end = end[end]
    links = {"first": first_of[own], "up": up, "end": end, "is_above": is_above}
    return columns | links | {"is_orphan": has_parent & (up == NONE)}

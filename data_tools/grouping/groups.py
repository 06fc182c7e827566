"""Which pending rows belong together: found for all blocks at once, read by every worker.

Rows are numbered over all blocks. What is known of them are columns of numbers, each in a file that
is mapped into memory, so nobody holds them.
"""

import os
import pickle
from bisect import bisect
from collections.abc import Sequence
from uuid import uuid4

import numpy as np

from data_tools.block import BlockResult
from data_tools.block_files import ENTRY, SLOTS, entries_of, numbers_of, read
from data_tools.record import Location, TreeMessage

NONE = -1  # in place of a row

_LOCATION = ("line", "record", "shares_line")

Columns = dict[str, np.ndarray]  # a value of each row, by name


class Groups:
    """The rows that `write` has written to files at `path`.

    Their columns are those of ENTRY and of their locations, and `member`, the ordinal of the record
    in the whole input; `_grouped` and `_tree` add some.
    """

    def __init__(self, path: str):
        with open(f"{path}.blocks", "rb") as file:
            self.blocks, self.starts, kinds = pickle.load(file)
        self.columns: Columns = {
            name: np.asarray(np.memmap(f"{path}.{name}", kind, "r")) for name, kind in kinds.items()
        }

    def of(self, name: str, rows: Sequence[int] | slice) -> list:
        """The values of a column for some rows."""
        return self.columns[name][rows].tolist()

    def block_of(self, row: int) -> int:
        """The number of the block that a row is in."""
        return bisect(self.starts, row) - 1

    def file_of(self, row: int) -> str:
        """The file that a row comes from."""
        return self.blocks[self.block_of(row)].block.file

    def locate(self, row: int) -> Location:
        """Where the record of a row starts."""
        line, record, shares_line = (self.columns[name][row].item() for name in _LOCATION)
        return Location(self.file_of(row), line or None, record, bool(shares_line))


def write(results: Sequence[BlockResult], folder: str) -> str:
    """Group the pending rows of these blocks; returns the path for `Groups`."""
    path = os.path.join(folder, uuid4().hex)
    starts, kinds = [0], {}
    for result in results:
        columns = _columns(result)
        kinds |= _append(path, columns)
        starts.append(starts[-1] + len(columns["key"]))
    key = np.fromfile(f"{path}.key", kinds["key"])
    if results[0].files.pending is TreeMessage:
        more = (np.fromfile(f"{path}.{name}", kinds[name]) for name in ("other", "flag"))
        columns = _tree(key, *more)
    else:
        columns = _grouped(key)
        columns["stop"] = np.where(key == b"", columns["start"], columns["stop"])
    kinds |= _append(path, columns)
    with open(f"{path}.blocks", "wb") as file:
        pickle.dump((results, starts, kinds), file)
    return path


def _append(path: str, columns: Columns) -> dict[str, np.dtype]:
    """Write values of some more rows; returns their types."""
    for name, values in columns.items():
        with open(f"{path}.{name}", "ab") as file:
            values.tofile(file)
    return {name: values.dtype for name, values in columns.items()}


def _columns(result: BlockResult) -> Columns:
    """What is known of the rows of one block."""
    batch = read(f"{result.files.path}.pending")
    entries = entries_of(batch)
    columns = {name: entries[name] for name in ENTRY.names}
    columns |= {name: numbers_of(batch, name) for name in _LOCATION}
    columns["record"] = columns["record"] + result.records_before
    return columns | {"member": result.first_record + numbers_of(batch, "order") // SLOTS}


def _grouped(values: np.ndarray) -> Columns:
    """The columns of groups of rows that have the same value.

    `sorted` has the rows of one group next to each other, each group in order. Those of a row's own
    group are there from its `start` to its `stop`, which are equal for a row without a key.
    """
    numbers = np.unique(values, return_inverse=True)[1]
    counts = np.bincount(numbers)
    stops = np.cumsum(counts)
    columns = {
        "sorted": np.argsort(numbers, kind="stable"),
        "start": (stops - counts)[numbers],
        "stop": stops[numbers],
    }
    return {name: rows.astype(np.uint32) for name, rows in columns.items()}


def _tree(key: np.ndarray, parent_key: np.ndarray, is_answer: np.ndarray) -> Columns:
    """The columns of messages, whose groups are the assistant's replies to one message.

    `first` is the first row with the row's id, which alone counts, `up` that of the message before
    it, `end` the last one going up, or one of a circle. `is_orphan` tells whether no row has the
    parent's id, `is_above` whether answers that are compared are below the row.
    """
    rows = np.arange(len(key))
    ids, numbers = np.unique(np.concatenate((key, parent_key)), return_inverse=True)
    own, parent = numbers[: len(key)], numbers[len(key) :]
    first_of = np.full(len(ids), NONE)
    first_of[own[::-1]] = rows[::-1]  # the first row is written last
    has_parent = parent_key != b""
    up = np.where(has_parent, first_of[parent], NONE)
    is_reply = is_answer & has_parent & (first_of[own] == rows)
    columns = _grouped(np.where(is_reply, parent, len(ids) + rows))
    is_compared = columns["stop"] - columns["start"] > 1
    is_above = np.zeros(len(key), bool)
    is_above[up[is_compared & (up != NONE)]] = True
    end = np.where(up == NONE, rows, up)
    for _ in range(len(key).bit_length()):  # each time, `end` is twice as far up
        is_above[end[is_above]] = True
        end = end[end]
    links = {"first": first_of[own], "up": up, "end": end, "is_above": is_above}
    return columns | links | {"is_orphan": has_parent & (up == NONE)}

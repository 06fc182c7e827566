"""Records that were parsed one by one as columns: what is alike in most of them taken together.

A side may be a text, or the one message of its role that says the same; a record that holds
anything else in its place is left to the row-wise lane.
"""

from collections.abc import KeysView, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools import block
from data_tools.columnar import probe
from data_tools.columnar.lane import Items, Table
from data_tools.record import Raw, Reject

_MESSAGE = {"role", "content"}
_LOOK = 50  # records by which it is told what is usual


def table(
    items: Sequence[Raw | Reject],
    task: block.Task,
    starts: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
) -> tuple[Table, Items] | None:
    """The records that are like the most as a table, the others by their index; None without any.

    `starts` and `lengths` are bytes of their file before each, and of each, where that is known.
    """
    usual = _usual(items, task)
    kinds = probe.kinds(tuple(usual.value), task) if usual else None
    if kinds is None:
        return None
    names, empty = usual.value.keys(), "" if usual.cells else None
    shells = {name: probe.shell(usual.value[name]) for name in kinds.texts}
    texts: dict[str, list[str]] = {name: [] for name in shells}
    kept: list[list[str | None]] = [[] for _ in task.keep]
    labels: list[Any] = []
    plain, others = [], []
    for at, item in enumerate(items):
        found = _texts(item, usual.cells, names, shells)
        if found is None or any(item.value[name] != empty for name in kinds.others):
            others.append((at, item))
            continue
        plain.append(at)
        for column, text in zip(texts.values(), found, strict=True):
            column.append(text)
        for column, text in zip(kept, block.kept(item.value, task), strict=True):
            column.append(text)
        labels.append(item.value[kinds.labels[0]] if kinds.labels else None)
    rows = np.array(plain, np.int64)
    zeros = np.zeros(len(rows), np.int64)
    made = Table(
        names=tuple(names),
        shells=shells,
        columns={name: pa.array(column, pa.string()) for name, column in texts.items()},
        order=rows,
        lines=np.array([items[at].place.line or 0 for at in plain], np.int64),
        crowded=np.array([items[at].place.crowded for at in plain], bool),
        starts=zeros if starts is None else np.array(starts, np.int64)[rows],
        lengths=zeros if lengths is None else np.array(lengths, np.int64)[rows],
        cells=usual.cells,
        empty=empty,
        raws=lambda wanted: [items[plain[at]] for at in wanted.tolist()],
        labelled=lambda name: _numbered(labels),
        records=np.array([items[at].place.record for at in plain], np.int64),
        kept=[pa.array(column, pa.string()) for column in kept],
    )
    return made, others


def _usual(items: Sequence[Raw | Reject], task: block.Task) -> Raw | None:
    """A record that is like the most of the first ones."""
    alike: dict[tuple, list[Raw]] = {}
    for item in items[:_LOOK]:
        if isinstance(item, Raw) and isinstance(item.value, dict):
            kinds = probe.kinds(tuple(item.value), task)
            sides = [item.value[name] for name in kinds.texts] if kinds else []
            key = (item.cells, *item.value, *map(type, sides), *map(probe.shell, sides))
            alike.setdefault(key, []).append(item)
    return max(alike.values(), key=len)[0] if alike else None


def _texts(
    item: Raw | Reject, cells: bool, names: KeysView, shells: dict[str, str | None]
) -> list[str] | None:
    """The texts of a record that is like the usual one; None where it is not."""
    value = item.value if isinstance(item, Raw) and item.cells == cells else None
    if not isinstance(value, dict) or value.keys() != names:
        return None
    found = []
    for name, role in shells.items():
        side = value[name]
        if role is not None:
            if type(side) is not list or len(side) != 1 or type(side[0]) is not dict:
                return None
            (message,) = side
            if message.keys() != _MESSAGE or message["role"] != role:
                return None
            side = message["content"]
        if type(side) is not str:
            return None
        found.append(side)
    return found


def _numbered(values: list[Any]) -> tuple[np.ndarray, list[Any]]:
    """Each value by its number among those that differ; `1` and `true` do."""
    numbers: dict[Any, int] = {}
    keyed = [(type(value), value if isinstance(value, str) else repr(value)) for value in values]
    found = [numbers.setdefault(key, len(numbers)) for key in keyed]
    first = dict(zip(reversed(found), reversed(values), strict=True))
    return np.array(found, np.int64), [first[number] for number in range(len(numbers))]

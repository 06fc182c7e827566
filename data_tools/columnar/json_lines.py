"""A stretch of JSON Lines as columns: every line parsed, what is alike in most taken together.

`readers.json_lines` parses and rejects. A side may be a text, or the one message of its role that
says the same; a line that holds anything else in its place is left to the row-wise lane.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from data_tools import block
from data_tools.columnar import probe
from data_tools.columnar.lane import Found, Table
from data_tools.columnar.texts import has_lone_returns, is_text
from data_tools.readers import Stretch, json_lines
from data_tools.record import Place, Raw, Reject

_MESSAGE = {"role", "content"}
_LOOK = 50  # records by which it is told what is usual


def read(stretch: Stretch, data: bytes, task: block.Task) -> Found | None:
    """The records of a stretch whose bytes are `data`; None where only the definition can tell."""
    if b"\0" in data or has_lone_returns(data) or not is_text(data):
        return None
    items, starts, stops = _items(stretch, data)
    first = _usual(items, task)
    kinds = probe.kinds(tuple(first), task) if first else None
    if kinds is None:
        return None
    shells = {name: probe.shell(first[name]) for name in kinds.texts}
    texts: dict[str, list[str]] = {name: [] for name in shells}
    labels: list[Any] = []
    kept: list[list[str | None]] = [[] for _ in task.keep]
    plain, others = [], []
    for at, item in enumerate(items):
        found = _texts(item, first.keys(), shells, kinds)
        if found is None:
            others.append((at, item))
            continue
        plain.append(at)
        for column, text in zip(texts.values(), found, strict=True):
            column.append(text)
        for column, text in zip(kept, block.kept(item.value, task), strict=True):
            column.append(text)
        labels.append(item.value[kinds.labels[0]] if kinds.labels else None)
    rows = np.array(plain, np.int64)
    table = Table(
        names=tuple(first),
        shells=shells,
        columns={name: pa.array(column, pa.string()) for name, column in texts.items()},
        order=rows,
        lines=np.array([items[at].place.line for at in plain], np.int64),
        starts=np.array(starts, np.int64)[rows] + stretch.start,
        lengths=(np.array(stops, np.int64) - np.array(starts, np.int64))[rows],
        cells=False,
        empty=None,
        raws=lambda wanted: [items[plain[at]] for at in wanted.tolist()],
        labelled=lambda name: _numbered(labels),
        kept=[pa.array(column, pa.string()) for column in kept],
    )
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    return Found(table, others, len(items), lines, stretch.stop)


def _items(stretch: Stretch, data: bytes) -> tuple[list[Raw | Reject], list[int], list[int]]:
    """Every record with the offsets between which its line stands."""
    items, starts, stops, start = [], [], [], 0
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        text, stop = line.decode(), start + len(line)
        if not text.isspace():
            place = Place(stretch.file, number + (stretch.before or 0), len(items) + 1)
            items.append(json_lines.parse(text, place, sound=True))
            starts.append(start)
            stops.append(stop)
        start = stop
    return items, starts, stops


def _usual(items: list[Raw | Reject], task: block.Task) -> dict | None:
    """A record that is like the most of the first ones."""
    alike: dict[tuple, list[dict]] = {}
    for item in items[:_LOOK]:
        if isinstance(item, Raw) and isinstance(item.value, dict):
            kinds = probe.kinds(tuple(item.value), task)
            sides = [item.value[name] for name in kinds.texts] if kinds else []
            key = (*item.value, *map(type, sides), *map(probe.shell, sides))
            alike.setdefault(key, []).append(item.value)
    return max(alike.values(), key=len)[0] if alike else None


def _texts(
    item: Raw | Reject, names: Any, shells: dict[str, str | None], kinds: probe.Kinds
) -> list[str] | None:
    """The texts of a record that is like the first one; None where it is not."""
    value = item.value if isinstance(item, Raw) else None
    if not isinstance(value, dict) or value.keys() != names:
        return None
    if any(value[name] is not None for name in kinds.others):
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

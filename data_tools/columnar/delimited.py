"""A stretch of CSV or TSV as columns: rows found by their quotes, cells by Arrow's own parser.

`readers.delimited` is the definition. A row whose quotes are not plainly as RFC 4180 has them is
read by it, since a lenient parser alters text in silence.
"""

import codecs
import io
from functools import partial

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from data_tools import parts
from data_tools.columnar.lane import Found, Items, Table
from data_tools.columnar.texts import has_lone_returns, is_text, where
from data_tools.readers import Stretch, delimited
from data_tools.readers.stretches import Ahead
from data_tools.record import ConvertError, Place, Raw, Reject

_QUOTE, _CR, _LF = b'"\r\n'
_PIECE = 1 << 20  # bytes that Arrow parses at a time, unless a row is longer


def read(stretch: Stretch, data: bytes) -> Found | None:
    """The rows of a stretch whose bytes are `data`; None where only the definition can tell."""
    if b"\0" in data or has_lone_returns(data):
        return None
    walk = _Walk(stretch, data)
    walk.run()
    starts, stops = walk.rows()
    if not is_text(data):
        return None
    names = stretch.head.names
    columns, ragged = _parsed(data, starts, stops, len(names), stretch.head.delimiter)
    good = np.ones(len(starts), bool)
    good[ragged] = False
    if np.count_nonzero(good) != len(columns[0]):
        return None
    lines = np.searchsorted(walk.newlines, starts) + 1 + (stretch.before or 0)
    order, others = _numbered(starts, walk.items)
    for at in ragged:
        source = data[starts[at] : stops[at]].decode()
        if source.isspace():
            return None
        others.append((int(order[at]), _row(source, stretch, int(lines[at]), int(order[at]))))
    starts, stops, lines, order = (values[good] for values in (starts, stops, lines, order))
    if stretch.head.delimiter.isspace():
        bare = [at for at, text in enumerate(columns[0].to_pylist()) if not text.strip()]
        if any(data[starts[at] : stops[at]].decode().isspace() for at in bare):
            return None

    def raws(rows: np.ndarray) -> list[Raw | Reject]:
        cells = zip(*(column.take(pa.array(rows)).to_pylist() for column in columns), strict=True)
        return [record(row, texts) for row, texts in zip(rows.tolist(), cells, strict=True)]

    def record(row: int, texts: tuple[str, ...]) -> Raw | Reject:
        place = Place(stretch.file, int(lines[row]), int(order[row]) + 1)
        if texts[0].strip() != names[0]:
            return Raw(place, dict(zip(names, texts, strict=True)), cells=True)
        source = data[starts[row] : stops[row]].decode()  # the header again, perhaps
        return delimited.row(list(texts), source, names, place)

    table = Table(
        names=names,
        shells=dict.fromkeys(names),
        columns=dict(zip(names, columns, strict=True)),
        order=order,
        records=order + 1,
        crowded=np.zeros(len(order), bool),
        lines=lines,
        starts=starts + stretch.start,
        lengths=stops - starts,
        cells=True,
        empty="",
        raws=raws,
        again=partial(parts.Again, stretch.file, names, stretch.head.delimiter),
        labelled=lambda name: _encoded(columns[names.index(name)]),
    )
    return Found(table, others, len(order) + len(others), walk.lines, walk.stop)


def texts(again: parts.Again, data: bytes, starts: np.ndarray, stops: np.ndarray) -> list[pa.Array]:
    """The cells of plain rows, which stand between these offsets of `data`.

    Raises ConvertError where they are not there any more.
    """
    try:
        columns, ragged = _parsed(data, starts, stops, len(again.names), again.delimiter)
    except pa.ArrowInvalid:
        columns, ragged = [[]], []
    if ragged or len(columns[0]) != len(starts):
        raise ConvertError(f"{again.file}: changed while it was read; convert it again", 1)
    return columns


def _encoded(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    found = column.dictionary_encode()
    return found.indices.to_numpy(), found.dictionary.to_pylist()


def _row(source: str, stretch: Stretch, line: int, index: int) -> Raw | Reject:
    """One row whose quotes are sound, read by the definition."""
    lines = delimited.Lines(io.StringIO(source, newline=""))
    (item,) = delimited.Rows(lines, stretch.head, stretch.file)
    return _at(item, Place(stretch.file, line, index + 1))


def _parsed(
    data: bytes, starts: np.ndarray, stops: np.ndarray, width: int, delimiter: str
) -> tuple[list[pa.Array], list[int]]:
    """The columns of the rows that have a cell for each, and which rows have not."""
    names = [str(number) for number in range(width)]
    if not len(starts):
        return [pa.array([], pa.string()) for _ in names], []
    breaks = np.flatnonzero(starts[1:] != stops[:-1])
    firsts, lasts = starts[[0, *(breaks + 1)]], stops[[*breaks, -1]]
    view = memoryview(data)
    pieces = [view[a:b] for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True)]
    if pieces[0][:3] == codecs.BOM_UTF8:  # the text of a cell, which Arrow would take for a mark
        pieces.insert(0, codecs.BOM_UTF8)
    ragged = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        ragged.append(row.number - 1)
        return "skip"

    longest = int((stops - starts).max())
    table = arrow_csv.read_csv(
        pa.BufferReader(pieces[0] if len(pieces) == 1 else b"".join(pieces)),
        arrow_csv.ReadOptions(
            use_threads=False, column_names=names, block_size=max(_PIECE, 2 * longest)
        ),
        arrow_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    return [
        pa.concat_arrays(table[name].chunks or [pa.array([], pa.string())]) for name in names
    ], ragged


def _numbered(
    starts: np.ndarray, items: list[tuple[int, Raw | Reject]]
) -> tuple[np.ndarray, Items]:
    """The index of every row in the stretch, and the same for records that were read by hand.

    `items` are these by the offset at which each starts.
    """
    offsets = np.array([at for at, _ in items], np.int64)
    order = np.arange(len(starts)) + np.searchsorted(offsets, starts)
    numbers = np.arange(len(items)) + np.searchsorted(starts, offsets)
    others = []
    for number, (_, item) in zip(numbers.tolist(), items, strict=True):
        place = Place(item.place.file, item.place.line, number + 1)
        others.append((number, _at(item, place)))
    return order, others


def _at(item: Raw | Reject, place: Place) -> Raw | Reject:
    if isinstance(item, Reject):
        return Reject(place, item.fault, item.raw)
    return Raw(place, item.value, item.cells)


class _Walk:
    """Finds the rows of a stretch: plain ones by the parity of their quotes, others by reading.

    Whether a quote opens or closes a cell hangs on how many stand before it. Each time that a row
    was read by hand, the count begins anew; both ways of counting are worked out once.
    """

    def __init__(self, stretch: Stretch, data: bytes):
        self._stretch, self._data = stretch, data
        self._bytes = np.frombuffer(data, np.uint8)
        self.newlines = where(self._bytes, lambda part: part == _LF)
        self._quotes = where(self._bytes, lambda part: part == _QUOTE)
        self._before = np.searchsorted(self._quotes, self.newlines)  # quotes before each newline
        self._ways: list[tuple[np.ndarray, np.ndarray] | None] = [None, None]
        self._starts: list[np.ndarray] = []
        self._stops: list[np.ndarray] = []
        self.items: list[tuple[int, Raw | Reject]] = []
        self.lines = len(self.newlines) + (not data.endswith(b"\n"))
        self.stop = stretch.stop

    def run(self) -> None:
        at, ahead = 0, Ahead(self._stretch)
        with ahead:
            while at < len(self._data):
                bad, ends = self._way(int(np.searchsorted(self._quotes, at)) & 1)
                first_bad = bad[np.searchsorted(bad, at)] if at <= bad[-1] else len(self._data)
                one, other = np.searchsorted(ends, (at, first_bad))
                if other > one:
                    stops = ends[one:other] + 1
                    self._stops.append(stops)
                    self._starts.append(np.concatenate(([at], stops[:-1])))
                    at = int(stops[-1])
                if at < len(self._data):
                    at = self._by_hand(ahead, at, int(first_bad))

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Where plain rows start and stop, without blank lines."""
        none = np.empty(0, np.int64)
        starts, stops = (np.concatenate([none, *found]) for found in (self._starts, self._stops))
        bare = stops - starts == 1
        bare |= (stops - starts == 2) & (
            self._bytes[np.minimum(starts, len(self._bytes) - 1)] == _CR
        )
        return starts[~bare], stops[~bare]

    def _way(self, parity: int) -> tuple[np.ndarray, np.ndarray]:
        """Quotes that cannot be what they are, and newlines that end a row.

        Quotes of this parity open a cell. A row too short to be one counts as a quote that cannot
        be, at its newline; past the last such place stands one beyond the data.
        """
        if self._ways[parity] is None:
            data, quotes = self._bytes, self._quotes
            ends = self.newlines[(self._before & 1) == parity]
            delimiter = ord(self._stretch.head.delimiter)
            opening, closing = quotes[parity::2], quotes[1 - parity :: 2]
            prior = data[np.maximum(opening, 1) - 1]
            fine = (opening == 0) | (prior == delimiter) | (prior == _LF) | (prior == _QUOTE)
            last = len(data) - 1
            after = data[np.minimum(closing + 1, last)]
            good = (closing == last) | (after == delimiter) | (after == _LF)
            good |= (after == _CR) | (after == _QUOTE)
            bare = ends[np.diff(ends, prepend=-1) <= len(self._stretch.head.names)]
            blank = (data[np.maximum(bare, 1) - 1] == _LF) | (bare == 0)
            blank |= (data[np.maximum(bare, 1) - 1] == _CR) & (data[np.maximum(bare, 2) - 2] == _LF)
            short = bare[~blank]
            bad = np.sort(np.concatenate((opening[~fine], closing[~good], short)))
            self._ways[parity] = np.append(bad, len(data)), ends
        return self._ways[parity]

    def _by_hand(self, ahead: Ahead, at: int, past: int) -> int:
        """Read rows from `at` on until the one that holds `past` is done; returns where that is."""
        before = int(np.searchsorted(self.newlines, at))
        for line, item, done in ahead.rows(at, before, self.lines):
            self.items.append((int(self.newlines[line - 1]) + 1 if line else 0, item))
            if done > self.lines:  # the row goes on beyond the stretch
                self.lines, self.stop = done, ahead.end_of_line(done)
            if done >= self.lines:
                break
            at = int(self.newlines[done - 1]) + 1
            if at > past and not ahead.hopeless:
                return at
        return len(self._data)

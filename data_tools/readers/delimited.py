"""CSV and TSV: every cell is text, every row knows its line, a broken row affects no other.

The quoting is that of RFC 4180, checked strictly: a lenient parser alters text silently. After a
row that cannot be read, reading continues at the very next line.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, tee

from data_tools.readers.opening import Items, check_text, printable, read_or_reject
from data_tools.record import BadRecord, ConvertError, Location

_NAMES = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
DELIMITERS = {".csv": (",", *_NAMES), ".tsv": ("\t",)}
"""What may separate the cells of a file, by its ending; the first is the expected one."""


@dataclass(frozen=True)
class Head:
    """The header row: the names of the columns (none in a file without rows), and how many lines
    of the file precede the first row.
    """

    names: tuple[str, ...]
    delimiter: str
    lines: int


def read(text: Iterator[str], path: str, notes: list[str], delimiters: tuple[str, ...]) -> "Rows":
    """The rows of a file, whose header shows which of the delimiters it has."""
    head = read_head(text, path, delimiters)
    if head.delimiter != delimiters[0]:
        notes.append(f"{path}: cells are separated by {_NAMES[head.delimiter]}")
    return Rows(head, path, text, head.lines + 1)


def read_head(text: Iterator[str], path: str, delimiters: tuple[str, ...]) -> Head:
    """The header of a file, whose other lines are left.

    Raises ConvertError where it cannot be read, or two columns have one name.
    """
    blank = 0
    for first in text:
        if not first.isspace():
            break
        blank += 1
    else:
        return Head((), delimiters[0], blank)
    expected, where = delimiters[0], f"{path}:{blank + 1}"
    delimiter = expected if expected in first else max(delimiters, key=first.count)
    cells, lines = next(_rows(chain([first], text), delimiter))
    if isinstance(cells, csv.Error):
        raise ConvertError(f"{where}: the header row cannot be read ({cells}); fix its quotes")
    names = tuple(cell.strip() for cell in cells)
    check_names(names, where)
    return Head(names, delimiter, blank + len(lines))


def check_names(names: Sequence[str], where: str) -> None:
    """Raise ConvertError where names of columns are no text, or two have one name, or none."""
    try:
        check_text(" ".join(names), "the header")
    except BadRecord as fault:
        raise ConvertError(f"{where}: {fault.detail}") from None
    for name, count in Counter(names).items():
        if count > 1:
            what = f"the column {name!r} appears" if name else "columns without a name appear"
            raise ConvertError(f"{where}: {what} {count} times; rename them so that each is clear")


@dataclass
class Rows:
    """The rows below a header: those that begin in the first `until` of the lines.

    The first line is number `first_line` of the file; the first `sound` lines are known to hold
    nothing but text. `number` counts the lines of the rows that were read.
    """

    head: Head
    path: str
    lines: Iterable[str]
    first_line: int
    until: int = sys.maxsize
    sound: int = 0
    number: int = 0

    def __iter__(self) -> Items:
        names, record = self.head.names, 0
        for cells, lines in _rows(iter(self.lines), self.head.delimiter):
            line = self.first_line + self.number
            self.number += len(lines)
            if not lines[0].isspace():  # as a row of several lines never is
                record += 1
                location, row = Location(self.path, line, record), (cells, names)
                check = self.number > self.sound
                yield read_or_reject(location, _values, _raw, lines, *row, check, is_text=True)
            if self.number >= self.until:
                return


def _rows(
    source: Iterator[str], delimiter: str
) -> Iterator[tuple[list[str] | csv.Error, list[str]]]:
    """The cells and lines of each row; of one that cannot be read why, and its first line only.

    A row goes on to a next line only inside quotes. So a line within a row that broke breaks any
    other row that goes on over it; trying again each time would take quadratic time.
    """
    csv.field_size_limit(sys.maxsize)  # an answer may be longer than the default 131,072
    read_cells = partial(csv.reader, delimiter=delimiter, strict=True)
    lines = source
    while True:
        ahead, behind = tee(lines)
        reader, done = read_cells(ahead), 0
        try:
            for cells in reader:
                yield cells, list(islice(behind, reader.line_num - done))
                done = reader.line_num
            return
        except csv.Error:
            first, *within = islice(behind, reader.line_num - done)
        for line in (first, *within[:-1]):
            try:
                yield next(read_cells([line])), [line]
            except csv.Error as error:
                yield error, [line]
        lines = chain(within[-1:], source)


def _values(
    lines: list[str], cells: list[str] | csv.Error, names: tuple[str, ...], check: bool
) -> dict[str, str]:
    """The row as a record. Raises BadRecord."""
    if check:
        check_text("".join(lines), "the row")
    if isinstance(cells, csv.Error):
        raise BadRecord(
            "ragged_row",
            f"a quoted cell is not closed, or text follows its closing quote ({cells}); double "
            "the quotes inside a quoted cell",
        )
    fix = "quote cells that hold the delimiter, or fill the missing ones"
    return row_record(names, cells, "the row", fix)


def row_record(names: Sequence[str], cells: list[str], row: str, fix: str) -> dict[str, str]:
    """The cells of a row of any table as a record. Raises BadRecord."""
    if len(cells) != len(names):
        counts = f"{row} has {len(cells)} cells where the header has {len(names)}"
        raise BadRecord("ragged_row", f"{counts}; {fix}")
    if cells[0].strip() == names[0] and [cell.strip() for cell in cells] == [*names]:
        detail = f"{row} repeats the header and is no record; join tables without it"
        raise BadRecord("wrong_type", detail)
    return dict(zip(names, cells, strict=True))


def _raw(lines: list[str]) -> str:
    return printable("".join(lines).rstrip("\r\n"))

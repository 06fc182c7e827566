"""CSV and TSV: every cell is text, every row knows its line, a broken row affects no other.

The quoting is that of RFC 4180, checked strictly: a lenient parser alters text silently. After a
row that cannot be read, reading continues at the very next line.
"""

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, tee

from data_tools.readers.opening import Items, check_text, printable, read_or_reject
from data_tools.record import BadRecord, ConvertError, Location, clip

_NAMES = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SEPARATOR = re.compile(r'"?sep=([^\w"\r\n])"?[\r\n]*', re.IGNORECASE)  # a first line of Excel's
HEAD = 20  # rows among which a header is looked for
AHEAD = 200  # lines of them at most, and of what is above the header
DELIMITERS = {".csv": (",", *_NAMES), ".tsv": ("\t",)}
"""What may separate the cells of a file, by its ending; the first is the expected one."""


@dataclass(frozen=True)
class Head:
    """The header row: the names of the columns (none in a file without rows), how many lines of the
    file precede the first row, and how many cells at its end each of the first rows lacks.
    """

    names: tuple[str, ...]
    delimiter: str
    lines: int
    missing: int = 0


def read(
    text: Iterator[str],
    path: str,
    notes: list[str],
    row: int | None,
    *_: object,
    delimiters: tuple[str, ...],
) -> "Rows":
    """The rows of a file, whose header shows which of the delimiters it has."""
    ahead: list[str] = []
    try:
        ahead += islice(text, AHEAD + (row or 0))
    except Exception as error:  # of a compressed file that breaks off, raised after its last line
        text = _failing(error)
    head = read_head(ahead, path, delimiters, row, notes)
    return Rows(head, path, chain(ahead[head.lines :], text), head.lines + 1)


def _failing(error: Exception) -> Iterator[str]:
    raise error
    yield


def read_head(
    lines: list[str], path: str, delimiters: tuple[str, ...], row: int | None, notes: list[str]
) -> Head:
    """The header in the first lines of a file: in the line `row`, or found below titles.

    Raises ConvertError where it cannot be read, or two columns have one name.
    """
    filled = (at for at, line in enumerate(lines) if not line.isspace())
    above = row - 1 if row else next(filled, len(lines))
    if named := _SEPARATOR.fullmatch("".join(lines[above : above + 1])):
        delimiter, above = named[1], above + 1
    else:
        shown = next((line for line in lines[above:] if any(map(line.count, delimiters))), "")
        delimiter = delimiters[0] if delimiters[0] in shown else max(delimiters, key=shown.count)
    if delimiter != delimiters[0]:
        name = _NAMES.get(delimiter, repr(delimiter))
        notes.append(f"{path}: cells are separated by {name}")
    rows = [*islice(_rows(iter(lines[above:]), delimiter), HEAD)]
    if not rows and row:
        raise ConvertError(f"{path}: --header-row {row}: there is no such row")
    if not rows:
        return Head((), delimiter, above)
    # A row that cannot be read is no title.
    cells = [["?"] * 99 if isinstance(found, csv.Error) else found for found, _ in rows]
    at = 0 if row else header_at(cells, path, notes, most=1)
    above += sum(len(lines) for _, lines in rows[:at])
    if isinstance(rows[at][0], csv.Error):
        why = f"the header row cannot be read ({rows[at][0]}); fix its quotes"
        raise ConvertError(f"{path}:{above + 1}: {why}")
    names = tuple(cell.strip() for cell in cells[at])
    check_names(names, f"{path}:{above + 1}")
    missing = missing_cells(names, [*filter(None, cells[at + 1 :])], path, notes)
    return Head(names, delimiter, above + len(rows[at][1]), missing)


def header_at(rows: Sequence[list[str]], path: str, notes: list[str], most: int = HEAD) -> int:
    """The position of the header in the first rows of a table, below titles and empty rows.

    A title has fewer cells than most rows have, and at most `most`.
    """
    widths = [max((at for at, cell in enumerate(r, 1) if cell.strip()), default=0) for r in rows]
    usual = Counter(width for width in widths if width)
    limit = min(most, max(usual, key=lambda width: (usual[width], width), default=1) - 1)
    at = next((at for at, width in enumerate(widths) if width > limit), 0)
    if any(widths[:at]):
        found = clip(", ".join(rows[at]))
        notes.append(f"{path}: {found} is read as the header; --header-row names another row")
    return at


def missing_cells(
    names: Sequence[str], rows: Sequence[list[str]], path: str, notes: list[str]
) -> int:
    """How many cells at the end of the header no row has: at least two rows show that."""
    width = max(map(len, rows), default=0)
    if len(rows) < 2 or not 1 < width < len(names):
        return 0
    notes.append(f"{path}: {', '.join(names[width:])} are empty: no row has these cells")
    return len(names) - width


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

    The first line is number `first_line` of the file. `number` counts the lines of the rows that
    were read.
    """

    head: Head
    path: str
    lines: Iterable[str]
    first_line: int
    until: int = sys.maxsize
    number: int = 0

    def __iter__(self) -> Items:
        names, missing, record = self.head.names, self.head.missing, 0
        for cells, lines in _rows(iter(self.lines), self.head.delimiter):
            line = self.first_line + self.number
            self.number += len(lines)
            if not lines[0].isspace():  # as a row of several lines never is
                record += 1
                location = Location(self.path, line, record)
                if missing and isinstance(cells, list) and len(cells) == len(names) - missing:
                    cells += [""] * missing
                yield read_or_reject(location, _values, _raw, lines, cells, names, is_text=True)
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
    lines: list[str], cells: list[str] | csv.Error, names: tuple[str, ...]
) -> dict[str, str]:
    """The row as a record. Raises BadRecord."""
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

"""XLSX: one sheet as a table whose every cell is text, as in the same sheet saved as CSV.

A record is identified by its ordinal, and a reject also names the row of the sheet. Rows are read
one by one, but openpyxl holds all distinct texts of the workbook in memory.
"""

import contextlib
import datetime
import re
import warnings
import zipfile
from collections.abc import Iterator
from itertools import chain, islice
from typing import BinaryIO

from data_tools.readers.delimited import HEAD, check_names, header_at, missing_cells, row_record
from data_tools.readers.opening import Items, check_text, check_unpacked, read_or_reject
from data_tools.record import BadRecord, ConvertError, Location, clip

_MOST_ROWS = 1_048_576  # of a sheet in this format
_MOST_BYTES = 4 * 2**30  # of an unpacked workbook, whose texts are held in memory
# How the format escapes what XML cannot hold. Escapes of other characters were typed by somebody.
_ESCAPE = re.compile("_x00([01][0-9A-Fa-f])_")


def read(
    binary: BinaryIO, path: str, notes: list[str], header_row: int | None, sheet: str | None
) -> Items:
    """Yield the rows below the header. Raises ConvertError for damage or an unknown sheet."""
    import openpyxl

    # Of styles and the like, which are no data.
    warnings.filterwarnings("ignore", module="openpyxl")
    try:
        with zipfile.ZipFile(binary) as archive:
            check_unpacked(archive, _MOST_BYTES)
        book = openpyxl.load_workbook(binary, read_only=True)
        with contextlib.closing(book):
            rows = _rows(_sheet(book, path, notes, sheet), header_row or 1)
            yield from _records(rows, path, notes, header_row is None)
    except ConvertError:
        raise
    except Exception as error:  # openpyxl's parsers raise many kinds for damage
        raise ConvertError(
            f"{path}: this is no readable spreadsheet, or it is damaged "
            f"({' '.join(str(error).split()) or type(error).__name__}); save it as .xlsx again"
        ) from None


def _sheet(book, path: str, notes: list[str], name: str | None):
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    names = ", ".join(map(repr, sheets))
    if not sheets:
        raise ValueError("it holds no sheet of cells")
    if name is None:
        first = name = next(iter(sheets))
        if len(sheets) > 1:
            name = next((title for title, sheet in sheets.items() if _is_table(sheet)), first)
            which = "the first" if name == first else repr(name)
            notes.append(f"{path}: of the sheets {names} {which} is read; --sheet names another")
    if name not in sheets:
        raise ConvertError(f"{path}: --sheet {name}: no such sheet; there are {names}")
    return sheets[name]


def _is_table(sheet) -> bool:
    """Whether a sheet has a second column, which one with nothing but a title has not."""
    return any(len(cells) > 1 for _, cells in islice(_rows(sheet, 1), HEAD))


class _Formula(str):
    """The text of a formula."""


def _rows(sheet, first: int) -> Iterator[tuple[int, list[str]]]:
    """The number and cells of every row that is not empty, without the empty cells at its end."""
    sheet.reset_dimensions()  # the size in the file is often wrong, and would cut rows off
    for number, found in enumerate(sheet.iter_rows(first), start=first):
        if number > _MOST_ROWS:  # a damaged number, up to which openpyxl makes up rows
            raise ValueError(f"a row is below the last that a sheet can have, {_MOST_ROWS:,}")
        cells = [_text(cell.value, cell.data_type) for cell in found]
        while cells and not cells[-1].strip():
            cells.pop()
        if cells:
            yield number, cells


def _text(value: object, kind: str) -> str:
    match value:
        case None:
            return ""
        case _ if kind == "f":
            return _Formula(getattr(value, "text", value))
        case str():
            return _ESCAPE.sub(lambda m: chr(int(m[1], 16)), value)
        case bool():
            return str(value).upper()
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
    return str(value)


def _records(
    rows: Iterator[tuple[int, list[str]]], path: str, notes: list[str], search: bool
) -> Items:
    """The rows below the header, which is the first row or else found in the first ones."""
    head = [*islice(rows, HEAD)]
    if not head and not search:
        raise ConvertError(f"{path}: --header-row: the sheet has no such row")
    above = header_at([cells for _, cells in head], path, notes) if search else 0
    at, names = head[above] if head else (0, [])
    head = head[above + 1 :]
    names = [name.strip() for name in names]
    check_names(names, f"{path}: row {at}")
    missing_cells(names, [cells for _, cells in head], path, notes)
    for record, (number, cells) in enumerate(chain(head, rows), start=1):
        location = Location(path, None, record)
        yield read_or_reject(location, _values, list, cells, names, number, is_text=True)


def _values(cells: list[str], names: list[str], number: int) -> dict[str, str]:
    """The cells of a row as a record. Raises BadRecord."""
    check_text("".join(cells), "a cell", "type that cell again")
    if formula := next((cell for cell in cells if isinstance(cell, _Formula)), None):
        fix = "paste the values of its column over it"
        raise BadRecord("wrong_type", f"row {number} holds the formula {clip(formula)}; {fix}")
    fix = "name that column in the header, or empty its cells"
    padded = cells + [""] * (len(names) - len(cells))
    return row_record(names, padded, f"row {number}", fix)

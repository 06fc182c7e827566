"""XLSX: one sheet as a table whose every cell is text, as in the same sheet saved as CSV.

A record is identified by its ordinal, and a reject also names the row of the sheet. Rows are read
one by one, but openpyxl holds all distinct texts of the workbook in memory.
"""

import contextlib
import datetime
import re
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from data_tools.readers.delimited import check_names, row_record
from data_tools.readers.opening import Items, check_text, read_or_reject
from data_tools.record import BadRecord, ConvertError, Location

_MOST_ROWS = 1_048_576  # of a sheet in this format
# How the format escapes what XML cannot hold. Escapes of other characters were typed by somebody.
_ESCAPE = re.compile("_x00([01][0-9A-Fa-f])_")


def read(binary: BinaryIO, path: str, notes: list[str], sheet: str | None) -> Items:
    """Yield the rows below the header. Raises ConvertError for damage or an unknown sheet."""
    import openpyxl

    # Of styles and the like, which are no data.
    warnings.filterwarnings("ignore", module="openpyxl")
    try:
        book = openpyxl.load_workbook(binary, read_only=True, data_only=True)
        with contextlib.closing(book):
            yield from _records(_rows(_sheet(book, path, notes, sheet)), path)
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
        name = next(iter(sheets))
        if len(sheets) > 1:
            notes.append(f"{path}: of the sheets {names} the first is read; --sheet names another")
    if name not in sheets:
        raise ConvertError(f"{path}: --sheet {name}: no such sheet; there are {names}")
    return sheets[name]


def _rows(sheet) -> Iterator[tuple[int, list[str]]]:
    """The number and cells of every row that is not empty, without the empty cells at its end."""
    sheet.reset_dimensions()  # the size in the file is often wrong, and would cut rows off
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        if number > _MOST_ROWS:  # a damaged number, up to which openpyxl makes up rows
            raise ValueError(f"a row is below the last that a sheet can have, {_MOST_ROWS:,}")
        cells = [_text(value) for value in values]
        while cells and not cells[-1].strip():
            cells.pop()
        if cells:
            yield number, cells


def _text(value: object) -> str:
    match value:
        case None:
            return ""
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


def _records(rows: Iterator[tuple[int, list[str]]], path: str) -> Items:
    at, names = next(rows, (0, []))
    names = [name.strip() for name in names]
    check_names([name for name in names if name], f"{path}: row {at}")
    for record, (number, cells) in enumerate(rows, start=1):
        location = Location(path, None, record)
        yield read_or_reject(location, _values, list, cells, names, number, is_text=True)


def _values(cells: list[str], names: list[str], number: int) -> dict[str, str]:
    """The cells of a row as a record. Raises BadRecord."""
    check_text("".join(cells), "a cell", "type that cell again")
    fix = "name that column in the header, or empty its cells"
    padded = cells + [""] * (len(names) - len(cells))
    value = row_record(names, padded, f"row {number}", fix)
    if names.count("") > 1:  # one column may have no name, as pandas writes its index
        del value[""]
        if any(cell.strip() for name, cell in zip(names, padded, strict=True) if not name):
            raise BadRecord("ragged_row", f"row {number} has a cell under no name; {fix}")
    return value

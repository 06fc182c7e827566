"""XLSX: one sheet as a table whose every cell is text, as in the same sheet saved as CSV.

A record is identified by its ordinal, and a reject also names the row of the sheet. Rows are read
one by one, but openpyxl holds all distinct texts of the workbook in memory.
"""

import contextlib
import datetime
import re
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO

from data_tools.readers.delimited import check_header, row_record
from data_tools.readers.opening import check_values, read_or_reject
from data_tools.record import ConvertError, Location, Record, Reject

_MOST_ROWS = 1_048_576  # of a sheet in this format
# How the format escapes what XML cannot hold. Escapes of other characters were typed by somebody.
_ESCAPE = re.compile("_x00([01][0-9A-Fa-f])_")


def read(
    binary: BinaryIO, path: str, note: Callable[[str], None], sheet: str | None
) -> Iterator[Record | Reject]:
    """Yield the rows below the header. Raises ConvertError for damage or an unknown sheet."""
    import openpyxl

    # Of styles and the like, which are no data.
    warnings.filterwarnings("ignore", module="openpyxl")
    try:
        book = openpyxl.load_workbook(binary, read_only=True, data_only=True)
        with contextlib.closing(book):
            yield from _records(_rows(_sheet(book, path, note, sheet)), path)
    except ConvertError:
        raise
    except Exception as error:  # openpyxl's parsers raise many kinds for damage
        raise ConvertError(
            f"{path}: this is no readable spreadsheet, or it is damaged "
            f"({' '.join(str(error).split()) or type(error).__name__}); save it as .xlsx again"
        ) from None


def _sheet(book, path: str, note: Callable[[str], None], name: str | None):
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    names = ", ".join(map(repr, sheets))
    if not sheets:
        raise ValueError("it holds no sheet of cells")
    if name is None:
        name = next(iter(sheets))
        if len(sheets) > 1:
            note(f"{path}: of the sheets {names} the first is read; --sheet names another")
    if name not in sheets:
        raise ConvertError(f"{path}: --sheet {name}: no such sheet; there are {names}")
    return sheets[name]


def _rows(sheet) -> Iterator[tuple[int, list[str]]]:
    """The number and cells of every row that is not empty, without the empty cells at its end."""
    sheet.reset_dimensions()  # the size in the file is often wrong, and would cut rows off
    last = 0
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_text(value) for value in values]
        while cells and not cells[-1].strip():
            cells.pop()
        if cells:
            last = number
            yield number, cells
        elif number - last > _MOST_ROWS:  # a damaged row number, up to which openpyxl makes up rows
            raise ValueError(f"more empty rows are below row {last} than a sheet can have")


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


def _records(rows: Iterator[tuple[int, list[str]]], path: str) -> Iterator[Record | Reject]:
    at, names = next(rows, (0, []))
    names = [name.strip() for name in names]
    check_header([name for name in names if name], f"{path}: row {at}")
    nameless = [i for i, name in enumerate(names) if not name]
    for record, (number, cells) in enumerate(rows, start=1):
        if len(nameless) > 1 and any(cells[i].strip() for i in nameless if i < len(cells)):
            raise ConvertError(
                f"{path}: row {at}: columns without a name appear {len(nameless)} times in the "
                f"header, with data under them in row {number}; name them so that each is clear"
            )
        location = Location(path, None, record)
        yield read_or_reject(location, _values, list, cells, names, number, is_text=True)


def _values(cells: list[str], names: list[str], number: int) -> dict[str, str]:
    """The cells of a row as a record. Raises BadRecord."""
    check_values(cells)
    padded = cells + [""] * (len(names) - len(cells))
    fix = "name that column in the header, or empty its cells"
    value = row_record(names, padded, f"row {number}", fix)
    if names.count("") > 1:  # one column may have no name, as pandas writes its index
        del value[""]
    return value

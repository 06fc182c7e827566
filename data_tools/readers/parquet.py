"""Parquet and Arrow: a few hundred rows at a time, every value as JSON of the same meaning.

Timestamps and decimals become text, bytes the text that they hold or base64, NaN and infinity null,
as pandas writes a missing number. There are no lines, so a record is identified by its ordinal.
"""

import json
import math
from base64 import b64encode
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from typing import BinaryIO

from data_tools.readers.delimited import check_names
from data_tools.readers.opening import MARK, Items, check_text, printable, read_or_reject
from data_tools.record import ConvertError, Location

_ROWS, _BYTES = 500, 1 << 26  # of one batch, at most; a small file may hold long values
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream
_READ_AHEAD = 1 << 20  # bytes; otherwise a whole column of a row group is held


def read(binary: BinaryIO, path: str, *_: object) -> Items:
    """Yield the rows of an open Parquet or Arrow file. Raises ConvertError where it is damaged."""
    import pyarrow as pa

    is_parquet, record = path.lower().endswith(".parquet"), 0
    try:
        for batch in _parquet_batches(binary) if is_parquet else _arrow_batches(binary):
            names = batch.schema.names
            _check_fields(batch.schema, path)
            for values in zip(*map(_values, batch.columns), strict=True):
                record += 1
                row = dict(zip(names, values, strict=True))
                yield read_or_reject(Location(path, None, record), _json, _raw, row)
    except (OSError, ValueError, pa.ArrowException, MemoryError, SystemError) as error:
        raise ConvertError(
            f"{path}: the {'Parquet' if is_parquet else 'Arrow'} file breaks off or is damaged "
            f"after record {record} ({' '.join(str(error).split()).rstrip('.')}); fetch or export "
            "it again"
        ) from None


def _parquet_batches(binary: BinaryIO) -> Iterator:
    from pyarrow import parquet

    file = parquet.ParquetFile(
        binary,
        buffer_size=_READ_AHEAD,
        pre_buffer=False,  # which would hold the whole file
        page_checksum_verification=True,
    )
    rows = 0
    # Arrow's threads would hang a process that forks.
    first = next(file.iter_batches(1, use_threads=False), None)
    size = max(1, min(_ROWS, _BYTES // max(1, first.nbytes if first else 1)))
    for batch in file.iter_batches(size, use_threads=False):
        rows += len(batch)
        yield batch
    meta = file.metadata
    held = sum(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    if file.schema_arrow.names and not rows == held == meta.num_rows:
        raise ValueError(f"its footer says {meta.num_rows:,} rows, of {held:,} in groups")


def _arrow_batches(binary: BinaryIO) -> Iterator:
    from pyarrow import ipc

    if binary.peek(6).startswith(b"ARROW1"):
        file = ipc.open_file(binary)
        found = map(file.get_batch, range(file.num_record_batches))
    else:
        binary.seek(-len(_END), 2)
        if binary.read() != _END:
            raise ValueError("the mark of its end is missing")
        binary.seek(0)
        found = ipc.open_stream(binary)
    for batch in found:
        for column in batch.columns:
            _validate(column)
        yield from (batch.slice(start, _ROWS) for start in range(0, len(batch), _ROWS))


def _validate(column) -> None:
    """Raise ArrowInvalid where a column is damaged; text that is no UTF-8 rejects its row only."""
    try:
        column.validate(full=True)
    except ValueError as error:
        if "UTF8" not in str(error):
            raise


def _check_fields(fields: list, path: str, inside: str = "") -> None:
    """Raise ConvertError where two columns, or two fields of a struct, have one name."""
    check_names([inside + field.name for field in fields], path)
    for field in fields:
        parts = [field.type.field(i) for i in range(field.type.num_fields)]
        _check_fields(parts, path, f"{inside}{field.name}.")


def _values(array) -> list:
    """The values of an Arrow array; what Python cannot hold is marked, or as Arrow writes it."""
    try:
        return array.to_pylist()
    except (ValueError, OverflowError) as error:  # no UTF-8, or a time that no calendar has
        if len(array) > 1:
            return [value for at in range(len(array)) for value in _values(array.slice(at, 1))]
        return [error.object.decode("utf-8", MARK) if hasattr(error, "object") else str(array)]


def _raw(row: dict) -> str:
    return printable(json.dumps(row, ensure_ascii=False, default=str))


def _json(value: object) -> object:
    """A value as the JSON value of the same meaning; bytes that are no text as base64.

    Raises BadRecord for a string that is no text.
    """
    match value:
        case str():
            check_text(value, "a value", "export that column as text")
            return value
        case dict():
            return {key: _json(item) for key, item in value.items()}
        case [tuple(), *_]:  # a map, which is an object unless that would lose or alter a key
            pairs = [[_json(key), _json(item)] for key, item in value]
            names = {key for key, _ in pairs if isinstance(key, str)}
            return dict(pairs) if len(names) == len(pairs) else pairs
        case list():
            return [_json(item) for item in value]
        case None | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            text = value.decode("utf-8", MARK)
            if "\0" in text or text != printable(text):
                return {"base64": b64encode(value).decode()}
            return text
        case Decimal():
            return f"{value:f}"
        case date() | time():
            return value.isoformat()
    return str(value)

"""Parquet: a few hundred rows at a time, every value as the JSON value of the same meaning.

Timestamps and decimals become text, bytes the text that they hold, NaN and infinity null, as pandas
writes a missing number. There are no lines, so a record is identified by its ordinal.
"""

import math
from datetime import date, time
from decimal import Decimal
from typing import BinaryIO

from data_tools.readers.delimited import check_names
from data_tools.readers.opening import MARK, Items, check_text, printable, read_or_reject
from data_tools.record import ConvertError, Location, as_json

_ROWS = 500  # of one batch
_READ_AHEAD = 1 << 20  # bytes; otherwise a whole column of a row group is held


def read(binary: BinaryIO, path: str, notes: list[str], sheet: str | None) -> Items:
    """Yield the rows of an open Parquet file. Raises ConvertError where it is damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    record = 0
    try:
        file = parquet.ParquetFile(
            binary,
            buffer_size=_READ_AHEAD,
            pre_buffer=False,  # which would hold the whole file
            page_checksum_verification=True,
        )
        meta, names = file.metadata, file.schema_arrow.names
        _check_fields(file.schema_arrow, path)
        # Arrow's threads would hang a process that forks.
        for batch in file.iter_batches(_ROWS, use_threads=False):
            for values in zip(*map(_values, batch.columns), strict=True):
                record += 1
                row = dict(zip(names, values, strict=True))
                yield read_or_reject(Location(path, None, record), _record, _raw, row)
        held = sum(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        if names and not record == held == meta.num_rows:
            raise pa.ArrowInvalid(f"its footer says {meta.num_rows:,} rows, of {held:,} in groups")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ConvertError(
            f"{path}: the Parquet file breaks off or is damaged after record {record} "
            f"({' '.join(str(error).split()).rstrip('.')}); fetch or export it again"
        ) from None


def _check_fields(fields: list, path: str, inside: str = "") -> None:
    """Raise ConvertError where two columns, or two fields of a struct, have one name."""
    check_names([inside + field.name for field in fields], path)
    for field in fields:
        parts = [field.type.field(i) for i in range(field.type.num_fields)]
        _check_fields(parts, path, f"{inside}{field.name}.")


def _values(array) -> list:
    """The values of an Arrow array; what Python cannot hold as bytes, or as Arrow writes it."""
    try:
        return array.to_pylist()
    except (ValueError, OverflowError) as error:  # no UTF-8, or a time that no calendar has
        if len(array) > 1:
            return [value for at in range(len(array)) for value in _values(array.slice(at, 1))]
        return [error.object if isinstance(error, UnicodeDecodeError) else str(array)]


def _record(row: dict) -> dict:
    """The row in JSON values. Raises BadRecord."""
    texts: list[str] = []
    value = _json(row, texts)
    check_text("".join(texts), "a value", "export that column as text")
    return value


def _raw(row: dict) -> str:
    return printable(as_json(_json(row, [])))


def _json(value: object, texts: list[str]) -> object:
    """A value as the JSON value of the same meaning; the texts in it are added to `texts`.

    Bytes that do not decode are marked as `opening.MARK` does.
    """
    match value:
        case str():
            texts.append(value)
            return value
        case dict():
            return {key: _json(item, texts) for key, item in value.items()}
        case [tuple(), *_]:  # a map, which is an object unless that would lose or alter a key
            pairs = [[_json(key, texts), _json(item, texts)] for key, item in value]
            names = {key for key, _ in pairs if isinstance(key, str)}
            return dict(pairs) if len(names) == len(pairs) else pairs
        case list():
            return [_json(item, texts) for item in value]
        case None | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return _json(value.decode("utf-8", MARK), texts)
        case Decimal():
            return f"{value:f}"
        case date() | time():
            return value.isoformat()
    return str(value)

"""Parquet and Arrow: a few hundred rows at a time, every value as JSON of the same meaning.

Timestamps and decimals become text, bytes the text that they hold or base64, NaN and infinity null,
as pandas writes a missing number. There are no lines, so a record is identified by its ordinal.
"""

import math
from base64 import b64encode
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from typing import BinaryIO

from data_tools.readers.delimited import check_names
from data_tools.readers.opening import MARK, Items, check_text, printable, read_or_reject
from data_tools.record import ConvertError, Location, as_json

_ROWS = 500  # of one batch
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream
_READ_AHEAD = 1 << 20  # bytes; otherwise a whole column of a row group is held


def read(binary: BinaryIO, path: str, notes: list[str], *_: object) -> Items:
    """Yield the rows of an open Parquet file. Raises ConvertError where it is damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    def batches() -> Iterator[pa.RecordBatch]:
        file = parquet.ParquetFile(
            binary,
            buffer_size=_READ_AHEAD,
            pre_buffer=False,  # which would hold the whole file
            page_checksum_verification=True,
        )
        rows = 0
        # Arrow's threads would hang a process that forks.
        for batch in file.iter_batches(_ROWS, use_threads=False):
            rows += len(batch)
            yield batch
        meta = file.metadata
        held = sum(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        if file.schema_arrow.names and not rows == held == meta.num_rows:
            raise pa.ArrowInvalid(f"its footer says {meta.num_rows:,} rows, of {held:,} in groups")

    yield from _records(batches(), path, "Parquet")


def read_arrow(binary: BinaryIO, path: str, notes: list[str], *_: object) -> Items:
    """Yield the rows of an open Arrow file or stream. Raises ConvertError where it is damaged."""
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        if binary.peek(6).startswith(b"ARROW1"):
            file = pa.ipc.open_file(binary)
            found = map(file.get_batch, range(file.num_record_batches))
        else:
            binary.seek(-len(_END), 2)
            if binary.read() != _END:
                raise pa.ArrowInvalid("the mark of its end is missing")
            binary.seek(0)
            found = file = pa.ipc.open_stream(binary)
        for batch in found:
            for column in batch.columns:
                _validate(column)
            yield from (batch.slice(start, _ROWS) for start in range(0, len(batch), _ROWS))

    yield from _records(batches(), path, "Arrow")


def _validate(column) -> None:
    """Raise ArrowInvalid where a column is damaged; text that is no UTF-8 rejects its row only."""
    try:
        column.validate(full=True)
    except ValueError as error:
        if "UTF8" not in str(error):
            raise


def _records(batches: Iterator, path: str, kind: str) -> Items:
    """The rows of all batches. Raises ConvertError where reading one fails."""
    import pyarrow as pa

    record = 0
    try:
        for batch in batches:
            names = batch.schema.names
            _check_fields(batch.schema, path)
            for values in zip(*map(_values, batch.columns), strict=True):
                record += 1
                row = dict(zip(names, values, strict=True))
                yield read_or_reject(Location(path, None, record), _record, _raw, row)
    except (OSError, pa.ArrowException, UnicodeDecodeError, MemoryError, SystemError) as error:
        raise ConvertError(
            f"{path}: the {kind} file breaks off or is damaged after record {record} "
            f"({' '.join(str(error).split()).rstrip('.')}); fetch or export it again"
        ) from None


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

    Bytes that are no text become an object that holds them in base64.
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
            text = value.decode("utf-8", MARK)
            if "\0" in text or text != printable(text):
                return {"base64": b64encode(value).decode()}
            return _json(text, texts)
        case Decimal():
            return f"{value:f}"
        case date() | time():
            return value.isoformat()
    return str(value)

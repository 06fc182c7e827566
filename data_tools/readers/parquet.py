"""Parquet: a few hundred rows at a time, every value as the JSON value of the same meaning.

Timestamps and decimals become text, bytes the text that they hold, NaN and infinity null, as pandas
writes a missing number. There are no lines, so a record is identified by its ordinal.
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import BinaryIO

from data_tools.readers.delimited import refuse_duplicates
from data_tools.readers.opening import MARK, check_values, printable, read_or_reject
from data_tools.record import ConvertError, Location, Record, Reject

_ROWS = 500  # of one batch
_READ_AHEAD = 1 << 20  # bytes; otherwise a whole column of a row group is held


def read(
    binary: BinaryIO, path: str, note: Callable[[str], None], sheet: str | None
) -> Iterator[Record | Reject]:
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
        meta = file.metadata
        _check_names(file.schema_arrow, path)
        # Arrow's threads would hang a process that forks.
        for batch in file.iter_batches(_ROWS, use_threads=False):
            names = batch.schema.names
            for values in zip(*map(_plain, batch.columns), strict=True):
                record += 1
                value = dict(zip(names, values, strict=True))
                yield read_or_reject(Location(path, None, record), check_values, _raw, value)
        held = sum(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        if file.schema_arrow.names and not record == held == meta.num_rows:
            raise pa.ArrowInvalid(f"its footer says {meta.num_rows:,} rows, of {held:,} in groups")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ConvertError(
            f"{path}: the Parquet file breaks off or is damaged after record {record} "
            f"({' '.join(str(error).split()).rstrip('.')}); fetch or export it again"
        ) from None


def _check_names(fields: list, path: str, inside: str = "") -> None:
    """Raise ConvertError where two columns, or two fields of a struct, have one name."""
    refuse_duplicates([inside + field.name for field in fields], path, header="")
    for field in fields:
        parts = [field.type.field(i) for i in range(field.type.num_fields)]
        _check_names(parts, path, f"{inside}{field.name}.")


def _raw(value: dict) -> str:
    return printable(json.dumps(value, ensure_ascii=False))


def _plain(array) -> list:
    """The values of an Arrow array; bytes that do not decode are marked as `opening.MARK` does.

    Timestamps go through Arrow's own text, since `to_pylist` would load pandas for some.
    """
    import pyarrow as pa
    from pyarrow import compute, types

    kind = array.type
    if types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if isinstance(kind, pa.UuidType):
        return [v and str(v) for v in array.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage)
    if types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        rows = zip(array.is_valid().to_pylist(), *map(_plain, array.flatten()), strict=True)
        return [dict(zip(names, row, strict=True)) if valid else None for valid, *row in rows]
    if types.is_map(kind):
        entries = array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
        return [None if value is None else _object(value) for value in _plain(entries)]
    if types.is_nested(kind):
        items, lengths = iter(_plain(array.flatten())), compute.list_value_length(array)
        return [n if n is None else [*islice(items, n)] for n in lengths.to_pylist()]
    if types.is_floating(kind):
        return [v if v is not None and abs(v) < float("inf") else None for v in array.to_pylist()]
    if types.is_decimal(kind):
        return [None if v is None else f"{v:f}" for v in array.to_pylist()]
    if types.is_temporal(kind):
        zone = "Z" if types.is_timestamp(kind) and kind.tz else ""
        array = array.view(pa.timestamp(kind.unit)) if zone else array
        return [v and _iso(v, zone) for v in array.cast(pa.string()).to_pylist()]
    if types.is_primitive(kind) or types.is_null(kind):
        return array.to_pylist()
    try:
        texts = array.to_pylist()
    except UnicodeDecodeError:
        texts = array.cast(pa.large_binary()).to_pylist()
    return [v.decode("utf-8", MARK) if isinstance(v, bytes) else v for v in texts]


def _object(entries: list[dict]) -> dict | list:
    """A map as an object; where that would lose or alter a key, as a list of [key, value]."""
    pairs = [[*entry.values()] for entry in entries]
    keys = {key for key, _ in pairs if isinstance(key, str)}
    return dict(pairs) if len(keys) == len(pairs) else pairs


def _iso(text: str, zone: str) -> str:
    if text.startswith("<"):  # Arrow's word for a time that no calendar has
        return text
    text = text.replace(" ", "T", 1)
    return (text.rstrip("0").rstrip(".") if "." in text else text) + zone

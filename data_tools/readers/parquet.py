"""Parquet: a few hundred rows at a time, every value as the plain JSON value that says the same.

Moments and decimals become text, bytes the text that they hold; what is not finite becomes null,
as pandas writes a missing number. There are no lines, so a record is found by its number.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from data_tools.readers.text import bad_strings, printable
from data_tools.record import ConvertError, Fault, Place, Raw, Reject

_ROWS = 500  # of one batch: few enough for long answers, enough that a batch costs little
_READ_AHEAD = 1 << 20  # bytes; without it a whole column of a row group is held


def read(binary, path: str, notes: list[str], sheet: str | None) -> Iterator[Raw | Reject]:
    """Yield the rows of an open Parquet file; raises ConvertError where it is damaged."""
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
        _refuse_names_twice(file.schema_arrow, path)
        # Threads of its own would hang a process that is forked beside them.
        for batch in file.iter_batches(_ROWS, use_threads=False):
            names = batch.schema.names
            for values in zip(*map(_plain, batch.columns), strict=True):
                record += 1
                yield _judged(dict(zip(names, values, strict=True)), Place(path, None, record))
        held = sum(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        if file.schema_arrow.names and not record == held == meta.num_rows:
            raise pa.ArrowInvalid(f"its footer says {meta.num_rows:,} rows, of {held:,} in groups")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ConvertError(
            f"{path}: the Parquet file breaks off or is damaged after record {record} "
            f"({' '.join(str(error).split()).rstrip('.')}); fetch or export it again"
        ) from None


def _refuse_names_twice(fields, path: str, inside: str = "") -> None:
    counts = Counter(field.name for field in fields)
    for field in fields:
        if counts[field.name] > 1:
            raise ConvertError(
                f"{path}: the column {inside + field.name!r} stands {counts[field.name]} times; "
                "rename them so that each is clear"
            )
        parts = [field.type.field(i) for i in range(field.type.num_fields)]
        _refuse_names_twice(parts, path, f"{inside}{field.name}.")


def _judged(value: dict, place: Place) -> Raw | Reject:
    fault = bad_strings(value)
    if fault is None:
        return Raw(place, value)
    if fault.reason == "bad_encoding":
        fault = Fault(
            "bad_encoding",
            "a value holds bytes that are no UTF-8 text; "
            "leave that column out, or export it as text",
        )
    return Reject(place, fault, printable(json.dumps(value, ensure_ascii=False)))


def _plain(array) -> list:
    """The values of an Arrow array; bytes that do not decode are marked as `text.py` does.

    Moments go through Arrow's own text, since `to_pylist` would load pandas for some.
    """
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if isinstance(kind, pa.UuidType):
        return [v and str(v) for v in array.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage)
    if types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        rows = zip(*map(_plain, array.flatten()), strict=True)
        return _where_valid(array, (dict(zip(names, row, strict=True)) for row in rows))
    if types.is_fixed_size_list(kind) or types.is_list_view(kind):
        return _plain(array.cast(pa.list_(kind.value_field)))
    if types.is_large_list_view(kind):
        return _plain(array.cast(pa.large_list(kind.value_field)))
    if types.is_map(kind):
        return _where_valid(array, map(_object, _pieces(array, array.keys, array.items)))
    if types.is_nested(kind):
        return _where_valid(array, (values for (values,) in _pieces(array, array.values)))
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
    return [v.decode("utf-8", "data_tools.mark") if isinstance(v, bytes) else v for v in texts]


def _where_valid(array, values) -> list:
    return [
        v if valid else None for v, valid in zip(values, array.is_valid().to_pylist(), strict=True)
    ]


def _pieces(array, *flat) -> Iterator[list[list]]:
    """For each list of `array` its part of every flat array below it."""
    offsets = array.offsets.to_pylist()
    first, last = offsets[0], offsets[-1]
    whole = [_plain(values.slice(first, last - first)) for values in flat]
    for start, end in pairwise(offsets):
        yield [values[start - first : end - first] for values in whole]


def _object(keys_and_values: list[list]) -> dict | list:
    """A map as an object; where that would lose or alter a key, as a list of [key, value]."""
    keys, values = keys_and_values
    if all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys):
        return dict(zip(keys, values, strict=True))
    return [list(pair) for pair in zip(keys, values, strict=True)]


def _iso(text: str, zone: str) -> str:
    if text.startswith("<"):  # Arrow's own word for a moment that no calendar reaches
        return text
    text = text.replace(" ", "T", 1)
    return (text.rstrip("0").rstrip(".") if "." in text else text) + zone

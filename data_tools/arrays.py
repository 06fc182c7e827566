"""Arrow arrays to and from Python and numpy values.

They are made from buffers: `pyarrow.array` and `Array.to_numpy` would load pandas, which takes
longer than converting a small file.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa


def strings(texts: Sequence[str | None]) -> pa.Array:
    """Texts, some perhaps None, as an array of strings."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    valid = None
    if None in texts:
        bits = np.packbits([text is not None for text in texts], bitorder="little")
        valid = pa.py_buffer(bits)
    buffers = [valid, pa.py_buffer(_offsets(map(len, encoded))), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def numbers(values: Sequence[int] | np.ndarray, kind: type) -> pa.Array:
    """Integers as an array without nulls of a numpy type."""
    values = np.ascontiguousarray(values, kind)
    buffers = [None, pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def lists(lengths: Iterable[int], names: Sequence[str], fields: Sequence[pa.Array]) -> pa.Array:
    """Lists of these lengths, of objects with these fields."""
    offsets = numbers(_offsets(lengths), np.int32)
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, names))


def _offsets(lengths: Iterable[int]) -> np.ndarray:
    return np.array([*accumulate(lengths, initial=0)], np.int32)


def to_numpy(array: pa.Array) -> np.ndarray:
    """An array of integers without nulls as a numpy array."""
    values = np.frombuffer(array.buffers()[1] or b"", array.type.to_pandas_dtype())
    return values[array.offset : array.offset + len(array)]

"""Arrow arrays to and from Python and numpy values.

They are made from buffers: `pyarrow.array` and `Array.to_numpy` would load pandas, which takes
longer than converting a small file.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa


def strings(texts: Sequence[str | None]) -> pa.Array:
    """Texts, some perhaps None, as an array of strings."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    offsets = np.array([*accumulate(map(len, encoded), initial=0)], np.int32)
    valid = _bits([text is not None for text in texts]) if None in texts else None
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def split_strings(data: bytes, count: int, valid: Sequence[bool] | None = None) -> pa.Array:
    """`count` texts in UTF-8 with a NUL between two of them as an array of strings."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
    ends = np.append(ends, len(data))[:count] - np.arange(count)
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    bits = None if valid is None else _bits(valid)
    buffers = [bits, pa.py_buffer(offsets), pa.py_buffer(data.replace(b"\0", b""))]
    return pa.Array.from_buffers(pa.string(), count, buffers)


def fixed_size(data: bytes, size: int) -> pa.Array:
    """Values of `size` bytes each as an array."""
    return pa.Array.from_buffers(pa.binary(size), len(data) // size, [None, pa.py_buffer(data)])


def numbers(values: np.ndarray) -> pa.Array:
    """A numpy array of integers as an array without nulls."""
    kind, buffer = pa.from_numpy_dtype(values.dtype), pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def _bits(values: Sequence[bool]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.asarray(values, bool), bitorder="little"))


def lists(lengths: Sequence[int], names: Sequence[str], fields: Sequence[pa.Array]) -> pa.Array:
    """Lists of these lengths, of objects with these fields."""
    offsets = numbers(np.array([*accumulate(lengths, initial=0)], np.int32))
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, names))


def to_numpy(array: pa.Array) -> np.ndarray:
    """An array of integers without nulls as a numpy array."""
    values = np.frombuffer(array.buffers()[1] or b"", array.type.to_pandas_dtype())
    return values[array.offset : array.offset + len(array)]

"""What rules, keys and warnings ask of a text, for a whole column of texts at once.

`side.fold`, `keys.prompt_key`, `odd.warnings` and `odd.loose_key` are the definitions.
"""

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from data_tools import odd
from data_tools.columnar import letters
from data_tools.side import fold

_CR, _LF = b"\r\n"
_CHUNK = 1 << 18  # bytes that are looked at together, so that they stay in the cache
_WHITE = np.zeros(256, bool)  # of ASCII, what str.split takes for white space
_WHITE[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32]] = True
_LETTERS = bytes(c for c in range(128) if chr(c).isalnum())
_LOWER = bytes(range(256)).lower()
_DROPPED = bytes(set(range(256)) - set(_LETTERS))


class Texts:
    """A column of texts, none of them null."""

    def __init__(self, array: pa.Array):
        self.array = array
        _, offsets, values = array.buffers()
        count = len(array)
        bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + count + 1]
        first = int(bounds[0])
        self._offsets = bounds.astype(np.int64) - first
        data = values if values is not None else pa.py_buffer(b"")
        self._bytes = np.frombuffer(data, np.uint8)[first : first + int(self._offsets[-1])]

    @cached_property
    def _data(self) -> bytes:
        return self._bytes.tobytes()

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Characters of each text."""
        return pc.utf8_length(self.array).to_numpy()

    @cached_property
    def _ascii(self) -> bool:
        return not self._bytes.size or bool(self._bytes.max() < 128)

    @cached_property
    def _beyond(self) -> np.ndarray:
        """Where characters beyond ASCII begin."""
        return where(self._bytes, lambda part: part >= 0xC0)

    @cached_property
    def _wild(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that only the definition folds, and those of which only it has a loose key."""
        controls = self._controls
        odd_ones = self._rows(controls[~_WHITE[self._bytes[controls]]])
        if self._ascii:
            return np.unique(odd_ones), np.unique(odd_ones)
        at, kinds = self._beyond, letters.kinds(self._bytes, self._beyond)
        wild = np.unique(np.concatenate((odd_ones, self._rows(at[kinds == letters.WILD]))))
        lettered = self._rows(at[kinds == letters.LETTER])
        return wild, np.union1d(wild, lettered)

    @cached_property
    def _controls(self) -> np.ndarray:
        return where(self._bytes, lambda part: part < 32)

    @cached_property
    def folded(self) -> list[bytes]:
        """Each text as `side.fold` has it, in UTF-8."""
        data, starts, stops = self._folded_ascii()
        found = [data[start:stop] for start, stop in zip(starts, stops, strict=True)]
        for row in self._wild[0].tolist():
            found[row] = fold(self.array[row].as_py()).encode()
        return found

    def _folded_ascii(self) -> tuple[bytes, list[int], list[int]]:
        """The texts as if all were ASCII: their bytes, and where in them each begins and ends."""
        data = self._bytes
        if len(self._controls):
            data = data.copy()
            data[self._controls] = 32
        repeated = _where_repeated(data)
        offsets = self._offsets - np.searchsorted(repeated, self._offsets)
        data = _without(data, repeated)
        starts, stops = offsets[:-1].copy(), offsets[1:].copy()
        view = np.frombuffer(data, np.uint8)
        if len(view):
            starts += (starts < stops) & (view[np.minimum(starts, len(view) - 1)] == 32)
            stops -= (starts < stops) & (view[np.maximum(stops, 1) - 1] == 32)
        return data, starts.tolist(), stops.tolist()

    @cached_property
    def hinted(self) -> np.ndarray:
        """The rows in which a hint of `odd` stands, so that a closer look is due."""
        if not self._bytes.size:
            return np.empty(0, np.int64)
        found = [self._find(hint.encode()) for hint in odd.HINTS if hint.isascii()]
        if not self._ascii:
            hints = [hint.encode() for hint in odd.HINTS if not hint.isascii()]
            found += [self._among(self._beyond, hint) for hint in hints]
        return np.unique(self._rows(np.concatenate(found)))

    def _among(self, at: np.ndarray, hint: bytes) -> np.ndarray:
        """Those of some positions at which a hint stands."""
        for step, byte in enumerate(hint):
            at = at[at < len(self._bytes) - step]
            at = at[self._bytes[at + step] == byte]
        return at

    def _find(self, hint: bytes) -> np.ndarray:
        """Where a hint stands in the bytes."""
        found, at = [], self._data.find(hint)
        if at >= 0 and len(hint) == 1:
            return where(self._bytes, lambda part: part == hint[0])
        while at >= 0:
            found.append(at)
            at = self._data.find(hint, at + 1)
        return np.array(found, np.int64)

    def loose(self) -> list[int | None]:
        """Each text's `odd.loose_key`."""
        data, bounds = self._data, self._offsets.tolist()
        found = []
        for start, stop in zip(bounds, bounds[1:], strict=False):
            kept = data[start:stop].translate(_LOWER, _DROPPED)
            found.append(xxhash.xxh3_64_intdigest(kept) if kept else None)
        for row in self._wild[1].tolist():
            found[row] = odd.loose_key(self.array[row].as_py())
        return found

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._offsets, positions, side="right") - 1


def where(data: np.ndarray, test) -> np.ndarray:
    """The positions of the bytes that pass a test."""
    found = [
        np.flatnonzero(test(data[at : at + _CHUNK])) + at for at in range(0, len(data), _CHUNK)
    ]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _where_repeated(data: np.ndarray) -> np.ndarray:
    """The positions of the blanks that follow a blank."""
    found = []
    for at in range(0, len(data), _CHUNK):
        blank = data[max(0, at - 1) : at + _CHUNK] == 32
        found.append(np.flatnonzero(blank[1:] & blank[:-1]) + max(at, 1))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _without(data: np.ndarray, positions: np.ndarray) -> bytes:
    """The bytes but for those at some positions."""
    if len(positions):
        kept = np.ones(len(data), bool)
        kept[positions] = False
        data = data[kept]
    return data.tobytes()


def is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        return data.isascii() or data.decode() is not None
    except UnicodeDecodeError:
        return False


def has_lone_returns(data: bytes) -> bool:
    """Whether a line ends with CR alone, as no parser of columns has it."""
    if b"\r" not in data:
        return False
    values = np.frombuffer(data, np.uint8)
    after = np.minimum(where(values, lambda part: part == _CR) + 1, len(data) - 1)
    return bool((values[after] != _LF).any())

"""Characters beyond ASCII by what folding and loose keys would make of them.

Most change nothing: they are no white space, and no neighbour composes with them. A text of such
ones can be treated as ASCII is; `side.fold` and `odd.loose_key` are the definitions.
"""

import unicodedata
from functools import lru_cache

import numpy as np

WILD, LETTER, MARK = range(3)
"""What only the definition can judge; what folding leaves alone; and what loose keys drop too."""

_LAST = 0x20000  # beyond it no two characters become one


def kinds(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Of what kind the characters beyond ASCII are that begin at some UTF-8 bytes."""
    points, numbers = np.unique(_code_points(data, at), return_inverse=True)
    return np.array([_kind(point) for point in points.tolist()], np.uint8)[numbers]


def _code_points(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The code points of the characters that begin at these bytes of sound UTF-8."""
    lead = data[at].astype(np.uint32)
    last = len(data) - 1
    more = [data[np.minimum(at + step, last)].astype(np.uint32) & 0x3F for step in (1, 2, 3)]
    two = (lead & 0x1F) << 6 | more[0]
    three = (lead & 0x0F) << 12 | more[0] << 6 | more[1]
    four = (lead & 0x07) << 18 | more[0] << 12 | more[1] << 6 | more[2]
    return np.where(lead < 0xE0, two, np.where(lead < 0xF0, three, four))


@lru_cache(1 << 16)
def _kind(point: int) -> int:
    char = chr(point)
    if char.isspace() or unicodedata.combining(char) or point in _composing():
        return WILD
    if unicodedata.normalize("NFC", char) != char:
        return WILD
    loose = unicodedata.normalize("NFC", char.casefold())
    dropped = all(unicodedata.category(c)[0] not in "LNM" for c in loose)
    return MARK if dropped else LETTER


@lru_cache(1)
def _composing() -> frozenset[int]:
    """Characters that may become one with what stands before them: the second of any two."""
    found = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # of Hangul, by rule
    for point in range(_LAST):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
    return frozenset(found)

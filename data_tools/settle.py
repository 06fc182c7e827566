"""What needs the whole dataset: duplicates, contradictions and the split; holds keys, no rows.

A pair is 16 bytes here and, once its number must be held too, 20. Past a limit they go to files
by ranges of keys, and one range after the other is settled, so that memory does not grow with
the dataset but for one byte a pair.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xxhash

from data_tools.keys import pair_key, prompt_key
from data_tools.record import ConvertError, Pair, Place

TRAIN, TEST, CONTRADICTORY, DUPLICATE = range(4)
FORWARD, IN_TEST = 1, 2  # flags in the last two bits of a key

_IN_MEMORY = 32_000_000  # bytes of keys that are held before they go to files
_RANGES = 64  # files of keys
_KEY = np.dtype([("prompt", ">u8"), ("rest", ">u8")])
_ENTRY = np.dtype([("prompt", ">u8"), ("rest", ">u8"), ("index", "<u4")])
_MOST = 1 << 32  # pairs that their numbers can tell apart


@dataclass(frozen=True)
class Split:
    """Which prompts are held out: those whose salted hash falls below the test share."""

    test_size: float
    seed: int

    @cached_property
    def salt(self) -> bytes:
        return f"{self.seed}:".encode()

    @cached_property
    def below(self) -> int:
        """What the hash of a prompt in test is below, as a number of 128 bits."""
        return int(self.test_size * (1 << 128))

    def in_test(self, prompt: bytes) -> bool:
        """Of a prompt's key; no row order and no other row plays a part."""
        digest = xxhash.xxh3_128_digest(self.salt + prompt)
        return int.from_bytes(digest, "big") < self.below


def entry(pair: Pair, split: Split) -> bytes:
    """What settling needs to know of a pair: its key, with its flags in place of the last bits."""
    prompt = prompt_key(pair.prompt)
    key, forward = pair_key(pair, prompt)
    flags = (FORWARD if forward else 0) | (IN_TEST if split.in_test(prompt) else 0)
    return key[:15] + bytes([key[15] & 0xFC | flags])


class Settlement:
    """Takes the entries of every pair in order, then tells what becomes of each.

    `folder` is where keys go past `limit` bytes, None for nowhere.
    """

    def __init__(self, folder: str | None = None, limit: int = _IN_MEMORY):
        self._folder, self._limit = folder, limit
        self._held: list[bytes] = []
        self._size, self._count, self._written = 0, 0, 0
        self._excluded: dict[tuple[bytes, bool], Place] = {}

    def add(self, entries: bytes) -> None:
        """The entries of the next pairs, one after the other."""
        self._held.append(entries)
        self._size += len(entries)
        self._count += len(entries) // _KEY.itemsize
        if self._count >= _MOST:
            raise ConvertError(f"more than {_MOST:,} pairs; convert the input in pieces", status=1)
        if self._folder is not None and self._size > self._limit:
            self._spill()

    def exclude(self, comparison: tuple[bytes, bool], place: Place) -> None:
        """A pair that --exclude-rows lists; where the same one is kept elsewhere, that is said."""
        self._excluded.setdefault(comparison, place)

    def finish(self) -> "Settled":
        """What becomes of every pair that was added."""
        settled = Settled(np.zeros(self._count, np.uint8))
        prompts = np.zeros(3, int)
        if self._written:
            self._spill()
        for entries in self._ranges():
            prompts += _settle(entries, settled, self._excluded)
        settled.prompts = dict(zip(("train", "test", "shared"), map(int, prompts), strict=True))
        if settled.prompts["test"] and not settled.prompts["train"]:
            settled.verdicts[settled.verdicts == TEST] = TRAIN
            settled.prompts = {"train": settled.prompts["test"], "test": 0, "shared": 0}
            settled.notes.append("train would have been empty, so every pair is in train")
        settled.order()
        return settled

    def _ranges(self) -> Iterable[np.ndarray]:
        """All entries, those of one prompt together."""
        if self._written:
            for number in range(_RANGES):
                if os.path.exists(path := self._path(number)):
                    yield np.fromfile(path, _ENTRY)
                    os.remove(path)
        else:
            yield self._taken()

    def _taken(self) -> np.ndarray:
        """The keys that are held, with their numbers; none are held afterwards."""
        keys = np.frombuffer(b"".join(self._held), _KEY)
        self._held, self._size = [], 0
        entries = np.empty(len(keys), _ENTRY)
        entries["prompt"], entries["rest"] = keys["prompt"], keys["rest"]
        entries["index"] = np.arange(self._written, self._written + len(keys))
        return entries

    def _spill(self) -> None:
        entries = self._taken()
        self._written += len(entries)
        numbers = (entries["prompt"] >> np.uint64(58)).astype(np.uint8)
        for number in np.unique(numbers):
            with open(self._path(number), "ab") as file:
                entries[numbers == number].tofile(file)

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"keys-{number:02d}")


@dataclass
class Settled:
    """What became of every pair, by its number.

    `again` holds the kept pairs that --exclude-rows lists at another place, which it tells.
    """

    verdicts: np.ndarray
    prompts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    again: dict[int, Place] = field(default_factory=dict)
    dropped: list[np.ndarray] | np.ndarray = field(default_factory=list)
    first: list[np.ndarray] | np.ndarray = field(default_factory=list)

    def order(self) -> None:
        """Bring the dropped pairs of all ranges together, each with the first of its group."""
        none = [np.empty(0, np.uint32)]
        dropped, first = np.concatenate(self.dropped + none), np.concatenate(self.first + none)
        order = np.argsort(dropped)
        self.dropped, self.first = dropped[order], first[order]

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The verdicts of these pairs, and for each dropped one the number of its group's first."""
        one, other = np.searchsorted(self.dropped, (start, stop))
        return self.verdicts[start:stop], self.first[one:other]


def _settle(
    entries: np.ndarray, settled: Settled, excluded: dict[tuple[bytes, bool], Place]
) -> Sequence[int]:
    """Settle pairs with all of their groups; returns the prompts in train, in test and in both."""
    if not len(entries):
        return 0, 0, 0
    prompt, rest = entries["prompt"].astype(np.uint64), entries["rest"].astype(np.uint64)
    order = np.lexsort((rest >> np.uint64(2), prompt))  # stable: the first of a group comes first
    prompt, rest, index = prompt[order], rest[order], entries["index"][order]
    key, flags = rest >> np.uint64(2), rest.astype(np.uint8) & 3
    leads = np.concatenate(([True], (prompt[1:] != prompt[:-1]) | (key[1:] != key[:-1])))
    starts = np.flatnonzero(leads)
    lengths = np.diff(np.append(starts, len(index)))
    ways = np.bitwise_or.reduceat(1 + (flags & FORWARD), starts)  # 1 backward, 2 forward
    both = np.repeat(ways == 3, lengths)
    split = np.where(flags & IN_TEST, TEST, TRAIN)
    verdicts = np.where(both, CONTRADICTORY, np.where(leads, split, DUPLICATE)).astype(np.uint8)
    settled.verdicts[index] = verdicts
    dropped = verdicts >= CONTRADICTORY
    settled.dropped.append(index[dropped])
    settled.first.append(np.repeat(index[starts], lengths)[dropped])
    for (comparison, forward), place in excluded.items():
        one, other = np.frombuffer(comparison, ">u8").astype(np.uint64)
        near = slice(*(np.searchsorted(prompt, one, side) for side in ("left", "right")))
        same = (key[near] == other >> np.uint64(2)) & ((flags[near] & FORWARD) == forward)
        settled.again |= dict.fromkeys(map(int, index[near][same & ~dropped[near]]), place)
    in_split = [np.unique(prompt[verdicts == name]) for name in (TRAIN, TEST)]
    return *map(len, in_split), len(np.intersect1d(*in_split, assume_unique=True))

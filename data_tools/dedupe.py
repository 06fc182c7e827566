"""What needs the whole dataset: duplicates, contradictions and the split; holds keys, no rows.

A pair takes 16 bytes here, and 20 once its number must be held too. Past a limit the keys are
spilled to files by ranges, and one range is deduplicated after the other, so that memory does not
grow with the dataset except for one byte a pair.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_tools.keys import digest
from data_tools.record import ConvertError

TRAIN, TEST, CONTRADICTORY, DUPLICATE = range(4)
FORWARD, IN_TEST = 1, 2  # flags in the last two bits of a key

_IN_MEMORY = 32_000_000  # bytes of keys that are held before they go to files
_RANGES = 64  # files of keys
_KEY = np.dtype([("prompt", ">u8"), ("rest", ">u8")])
_ENTRY = np.dtype([("prompt", ">u8"), ("rest", ">u8"), ("index", "<u4")])
_MOST = 1 << 32  # pairs, whose numbers must fit into 32 bits


class Split:
    """Which prompts are in test: those whose salted hash falls below the test share."""

    def __init__(self, test_size: float, seed: int):
        self._salt = f"{seed}:".encode()
        self._below = int(test_size * (1 << 128)).to_bytes(17, "big")[1:]

    def in_test(self, prompt: bytes) -> bool:
        """Whether a prompt's key is in test; neither order nor other rows matter."""
        return digest(self._salt + prompt) < self._below


@dataclass
class Verdicts:
    """What became of each pair, by its number, and how many prompts each split has.

    `dropped` are the numbers of the pairs that are not kept, `first` of each the number of the
    first pair of its group. `listed` maps kept pairs that equal one listed in --exclude-rows to the
    source listed.
    """

    of: np.ndarray
    dropped: np.ndarray
    first: np.ndarray
    listed: dict[int, str]
    prompts: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The verdicts of these pairs, and for each dropped one the number of its group's first."""
        low, high = np.searchsorted(self.dropped, (start, stop))
        return self.of[start:stop], self.first[low:high]


class Deduplicator:
    """Takes the entries of all pairs in order, then decides what becomes of each.

    Keys past `limit` bytes go to files in `folder`.
    """

    def __init__(self, folder: str, limit: int = _IN_MEMORY):
        self._folder, self._limit = folder, limit
        self._held: list[bytes] = []
        self._size, self._count, self._spilled = 0, 0, 0
        self._excluded: dict[bytes, str] = {}

    def add(self, entries: bytes, excluded: Iterable[tuple[bytes, str]] = ()) -> None:
        """The entries of the next pairs, and those of pairs that were excluded, with sources."""
        self._held.append(entries)
        self._size += len(entries)
        self._count += len(entries) // _KEY.itemsize
        for entry, source in excluded:
            self._excluded.setdefault(entry, source)
        if self._count >= _MOST:
            raise ConvertError(f"more than {_MOST:,} pairs; convert the input in parts", status=1)
        if self._size > self._limit:
            self._spill()

    def finish(self) -> Verdicts:
        """What becomes of every pair that was added."""
        of, prompts, listed = np.zeros(self._count, np.uint8), np.zeros(3, int), {}
        dropped, first = [np.empty(0, np.uint32)], [np.empty(0, np.uint32)]
        if self._spilled:
            self._spill()
        for entries in self._ranges():
            prompt, rest, index = _sorted(entries)
            found, leader = _decide(prompt, rest, index)
            of[index] = found
            listed |= self._listed(prompt, rest, index, found)
            prompts += _count_prompts(prompt, found)
            dropped.append(index[found >= CONTRADICTORY])
            first.append(leader[found >= CONTRADICTORY])
        order = np.argsort(numbers := np.concatenate(dropped))
        counts = dict(zip(("train", "test", "shared"), map(int, prompts), strict=True))
        verdicts = Verdicts(of, numbers[order], np.concatenate(first)[order], listed, counts)
        if counts["test"] and not counts["train"]:
            of[of == TEST] = TRAIN
            verdicts.prompts = {"train": counts["test"], "test": 0, "shared": 0}
            verdicts.notes.append("train would have been empty, so every pair is in train")
        return verdicts

    def _listed(
        self, prompt: np.ndarray, rest: np.ndarray, index: np.ndarray, found: np.ndarray
    ) -> dict[int, str]:
        """The kept pairs among sorted entries that equal one that was excluded."""
        listed: dict[int, str] = {}
        for entry, source in self._excluded.items():
            high, low = np.frombuffer(entry, ">u8").astype(np.uint64)
            near = slice(*(np.searchsorted(prompt, high, side) for side in ("left", "right")))
            equal = (rest[near] | np.uint64(IN_TEST)) == low | np.uint64(IN_TEST)
            kept = index[near][equal & (found[near] < CONTRADICTORY)]
            listed |= dict.fromkeys(kept.tolist(), source)
        return listed

    def _ranges(self) -> Iterable[np.ndarray]:
        """All entries, those of one prompt in the same range."""
        if not self._spilled:
            yield self._take()
            return
        for number in range(_RANGES):
            if os.path.exists(path := self._path(number)):
                yield np.fromfile(path, _ENTRY)
                os.remove(path)

    def _take(self) -> np.ndarray:
        """The keys that are held, with their numbers; none are held afterwards."""
        keys = np.frombuffer(b"".join(self._held), _KEY)
        self._held, self._size = [], 0
        entries = np.empty(len(keys), _ENTRY)
        entries["prompt"], entries["rest"] = keys["prompt"], keys["rest"]
        entries["index"] = np.arange(self._spilled, self._spilled + len(keys))
        return entries

    def _spill(self) -> None:
        entries = self._take()
        self._spilled += len(entries)
        numbers = (entries["prompt"] >> np.uint64(58)).astype(np.uint8)
        for number in np.unique(numbers):
            with open(self._path(number), "ab") as file:
                entries[numbers == number].tofile(file)

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"keys-{number:02d}")


def _sorted(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The prompts, other halves of keys and numbers, with equal keys next to each other."""
    prompt, rest = entries["prompt"].astype(np.uint64), entries["rest"].astype(np.uint64)
    order = np.lexsort((rest >> np.uint64(2), prompt))  # stable: the first of a group stays first
    return prompt[order], rest[order], entries["index"][order]


def _decide(
    prompt: np.ndarray, rest: np.ndarray, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The verdict on each of these sorted entries, and the number of the first of its group."""
    if not len(index):
        return np.empty(0, np.uint8), index
    key, flags = rest >> np.uint64(2), rest.astype(np.uint8) & 3
    leads = np.concatenate(([True], (prompt[1:] != prompt[:-1]) | (key[1:] != key[:-1])))
    starts = np.flatnonzero(leads)
    lengths = np.diff(np.append(starts, len(index)))
    ways = np.bitwise_or.reduceat(1 + (flags & FORWARD), starts)  # 1 backward, 2 forward
    both = np.repeat(ways == 3, lengths)
    split = np.where(flags & IN_TEST, TEST, TRAIN)
    verdicts = np.where(both, CONTRADICTORY, np.where(leads, split, DUPLICATE)).astype(np.uint8)
    return verdicts, np.repeat(index[starts], lengths)


def _count_prompts(prompt: np.ndarray, verdicts: np.ndarray) -> Sequence[int]:
    """The prompts in train, in test and in both."""
    train, test = (np.unique(prompt[verdicts == name]) for name in (TRAIN, TEST))
    return len(train), len(test), len(np.intersect1d(train, test, assume_unique=True))

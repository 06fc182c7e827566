"""What needs the whole dataset: duplicates, contradictions and the split; holds keys, no rows.

Past a limit, one range of prompts is deduplicated after the other, so that memory does not grow
with the dataset except for one byte a pair.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from data_tools.record import ConvertError

TRAIN, TEST, CONTRADICTORY, DUPLICATE, LEAKED = range(5)
SPLITS = {"train": TRAIN, "test": TEST}
FORWARD, IN_TEST = 1, 2  # flags in the last two bits of a key

KEY = np.dtype([("prompt", ">u8"), ("rest", ">u8")])  # of a pair, with the flags

_AT_ONCE = 500_000  # pairs that are deduplicated at once
_MOST = 1 << 32  # pairs, whose numbers must fit into 32 bits


@dataclass
class Verdicts:
    """What became of each pair, by its number, and how many prompts each split has.

    `dropped` are the numbers of the pairs that are not kept, `first` of each the number of the
    first pair of its group.
    """

    of: np.ndarray
    dropped: np.ndarray
    first: np.ndarray
    prompts: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The verdicts of these pairs, and for each dropped one the number of its group's first."""
        low, high = np.searchsorted(self.dropped, (start, stop))
        return self.of[start:stop], self.first[low:high]


def dedupe(
    blocks: Callable[[], Iterable[np.ndarray]], count: int, limit: int = _AT_ONCE
) -> Verdicts:
    """What becomes of every pair.

    `blocks` gives the keys of some pairs after the other, `count` in all, 16 bytes each with flags
    in the last two bits; it is called once for each range of prompts. Raises ConvertError for too
    many pairs.
    """
    if count >= _MOST:
        raise ConvertError(f"more than {_MOST:,} pairs; convert the input in parts", status=1)
    of, dropped, leaders, splits = np.zeros(count, np.uint8), [], [], Counter()
    ranges = min(256, count // limit + 1)
    for low, high in pairwise(256 * number // ranges for number in range(ranges + 1)):
        prompt, rest, index = _sorted(blocks(), low, high)
        found, leader = _decide(prompt, rest, index)
        of[index] = found
        dropped.append(index[found >= CONTRADICTORY])
        leaders.append(leader[found >= CONTRADICTORY])
        train, test = (np.unique(prompt[found == split]) for split in (TRAIN, TEST))
        shared = np.intersect1d(train, test, assume_unique=True)
        splits.update(train=len(train), test=len(test), shared=len(shared))
    order = np.argsort(numbers := np.concatenate(dropped))
    verdicts = Verdicts(of, numbers[order], np.concatenate(leaders)[order], splits)
    if splits["test"] and not splits["train"]:
        of[of == TEST] = TRAIN
        splits.update(train=splits["test"], test=-splits["test"])
        verdicts.notes.append("train would have been empty, so every pair is in train")
    return verdicts


def _sorted(
    blocks: Iterable[np.ndarray], low: int, high: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keys whose first byte is in a range, with those of a group next to each other.

    Returns their prompts, their other halves and the numbers of their pairs.
    """
    found, index, at = [np.empty(0, KEY)], [np.empty(0, np.uint32)], 0
    for block in blocks:
        first = block.view(np.uint8)[:: KEY.itemsize]
        rows = np.flatnonzero((first >= low) & (first < high))
        found.append(block[rows])
        index.append((rows + at).astype(np.uint32))
        at += len(block)
    keys = np.concatenate(found)
    prompt, rest = keys["prompt"].astype(np.uint64), keys["rest"].astype(np.uint64)
    order = np.lexsort((rest >> FORWARD, prompt))  # stable: the first of a group stays first
    return prompt[order], rest[order], np.concatenate(index)[order]


def _decide(
    prompt: np.ndarray, rest: np.ndarray, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The verdict on each of these sorted entries, and the number of the first of its group.

    A group has the same answers to one prompt in one split. What is in train is leaked where its
    prompt is in test too, which then comes first.
    """
    if not len(index):
        return np.empty(0, np.uint8), index
    group, test = rest >> FORWARD, (rest & IN_TEST) != 0
    leads = np.concatenate(([True], (prompt[1:] != prompt[:-1]) | (group[1:] != group[:-1])))
    starts = np.flatnonzero(leads)
    lengths = np.diff(np.append(starts, len(index)))
    ways = np.bitwise_or.reduceat(1 + (rest & FORWARD), starts)  # 1 backward, 2 forward
    verdicts = np.where(leads, np.where(test, TEST, TRAIN), DUPLICATE).astype(np.uint8)
    verdicts[np.repeat(ways == 3, lengths)] = CONTRADICTORY
    first = np.repeat(index[starts], lengths)
    kept = verdicts == TEST
    leaked = ~test & np.isin(prompt, prompt[kept])
    verdicts[leaked] = LEAKED
    first[leaked] = index[kept][np.searchsorted(prompt[kept], prompt[leaked])]
    return verdicts, first

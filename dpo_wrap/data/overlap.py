"""Several datasets told apart, and what they share: held-out prompts, repeats, contradictions.

Rows are known by 16-byte keys, of which eight are kept: among a million rows the odds that two
prompts are taken for one are one in thirty million.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

ORIGIN = "dataset"
"""The column that says which dataset a row came from: its place in dataset_path."""
BATCH = 1000
KEY = np.dtype("<u8")
COMPARISON = np.dtype([("key", KEY), ("dataset", "<u4"), ("forward", "?")])

PromptKey = Callable[[Any], bytes]
PairKey = Callable[[dict[str, Any]], tuple[bytes, bool]]
"""A row to the key of its comparison whichever way it went, and which way it went."""


def drop_train_test_overlap(
    parts: list[dict[str, Dataset]],
    paths: Sequence[str],
    prompt_key: PromptKey,
    pair_key: PairKey,
    notes: list[str],
) -> list[dict[str, Dataset]]:
    """The splits of several datasets with ORIGIN, less the training rows that any of them tests on.

    What they share besides stays, and the notes say it.
    """
    parts = [
        {split: _from(rows, position) for split, rows in part.items()}
        for position, part in enumerate(parts)
    ]
    train = [_Keyed(part["train"], _prompt_keys(part["train"], prompt_key)) for part in parts]
    test = [_Keyed(p["test"], _prompt_keys(p["test"], prompt_key)) for p in parts if "test" in p]
    held = np.concatenate([np.empty(0, KEY), *(part.keys for part in test)])
    kept = [part.taken(~np.isin(part.keys, held)) for part in train]
    told = [part | {"train": rest.rows} for part, rest in zip(parts, kept, strict=True)]
    for path, part in zip(paths, told, strict=True):
        tested = len(part["test"]) if "test" in part else 0
        notes.append(f"{path}: {len(part['train']):,} pairs to train on, {tested:,} held out")
    left_out = sum(len(part.keys) for part in train) - sum(len(part.keys) for part in kept)
    if left_out:
        notes.append(f"train: {left_out:,} pairs left out, as their prompts are held out for test")
    for split, shares in (("train", kept), ("test", test)):
        both, again = _repeats(_comparisons(shares, pair_key))
        if both:
            notes.append(
                f"{split}: {both:,} comparisons are judged both ways by the datasets, and nothing "
                "is learned from such; convert the raw files together, which takes them out"
            )
        if again:
            notes.append(
                f"{split}: {again:,} pairs stand in another of the datasets too and count twice; "
                "convert the raw files together, which keeps one of each"
            )
    return told


@dataclass(frozen=True)
class _Keyed:
    """Rows with the keys of their prompts, in the same order."""

    rows: Dataset
    keys: np.ndarray

    def taken(self, which: np.ndarray) -> "_Keyed":
        """The rows where `which` is true."""
        if which.all():
            return self
        return _Keyed(self.rows.select(np.flatnonzero(which)), self.keys[which])


def _from(rows: Dataset, position: int) -> Dataset:
    return rows.add_column(ORIGIN, np.full(len(rows), position, np.uint32))


def _prompt_keys(rows: Dataset, prompt_key: PromptKey) -> np.ndarray:
    batches = rows.select_columns(["prompt"]).iter(batch_size=BATCH)
    keys = (prompt_key(prompt) for batch in batches for prompt in batch["prompt"])
    return np.fromiter(map(_number, keys), KEY)


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


def _comparisons(parts: list[_Keyed], pair_key: PairKey) -> np.ndarray:
    """The COMPARISONs of all rows whose prompt stands in more than one part."""
    every = np.concatenate([np.empty(0, KEY), *(np.unique(part.keys) for part in parts)])
    prompts, counts = np.unique(every, return_counts=True)
    shared = prompts[counts > 1]
    common = (part.taken(np.isin(part.keys, shared)).rows for part in parts)
    found = (_comparison(row, pair_key) for rows in common for row in _each(rows))
    return np.fromiter(found, COMPARISON)


def _comparison(row: dict[str, Any], pair_key: PairKey) -> tuple[int, int, bool]:
    key, forward = pair_key(row)
    return _number(key), row[ORIGIN], forward


def _each(rows: Dataset) -> Iterator[dict[str, Any]]:
    for batch in rows.iter(batch_size=BATCH):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _repeats(comparisons: np.ndarray) -> tuple[int, int]:
    """How many comparisons are judged both ways, and how often the others stand once more.

    One that a dataset holds twice counts once; that is not the matter of several.
    """
    distinct = np.unique(comparisons)
    if not len(distinct):
        return 0, 0
    _, starts, counts = np.unique(distinct["key"], return_index=True, return_counts=True)
    forward = np.logical_or.reduceat(distinct["forward"], starts)
    backward = np.logical_or.reduceat(~distinct["forward"], starts)
    both = forward & backward
    return int(both.sum()), int((counts[~both] - 1).sum())

"""What several datasets share: prompts held out for test, repeated and contradictory pairs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

ORIGIN = "dataset"
"""The column with the position in dataset_path that a row came from."""
BATCH = 1000
PAIR = np.dtype([("key", "u8"), ("order", "?"), (ORIGIN, "u4")])

PromptKey = Callable[[Any], bytes]
PairKey = Callable[[dict[str, Any]], tuple[bytes, bool]]
"""Maps a row to the key of its prompt and two answers in either order, and to the order."""


def drop_train_test_overlap(
    parts: list[dict[str, Dataset]],
    paths: Sequence[str],
    prompt_key: PromptKey,
    pair_key: PairKey,
    notes: list[str],
) -> list[dict[str, Dataset]]:
    """The splits of several datasets, without training rows whose prompt any of them tests on.

    Adds the column ORIGIN. Other rows that the datasets share are kept and counted in the notes.
    """
    parts = [
        {
            split: rows.add_column(ORIGIN, np.full(len(rows), position, np.uint32))
            for split, rows in part.items()
        }
        for position, part in enumerate(parts)
    ]
    keys = [{s: _prompt_keys(rows, prompt_key) for s, rows in part.items()} for part in parts]
    held_out = _concatenate(key["test"] for key in keys if "test" in key)
    dropped = 0
    for path, part, key in zip(paths, parts, keys, strict=True):
        keep = ~np.isin(key["train"], held_out)
        if not keep.all():
            part["train"], key["train"] = _select(part["train"], keep), key["train"][keep]
            dropped += np.count_nonzero(~keep)
        tests = len(part["test"]) if "test" in part else 0
        notes.append(f"{path}: {len(part['train']):,} pairs to train on, {tests:,} held out")
    if dropped:
        notes.append(f"train: {dropped:,} pairs dropped, because their prompts are held out")
    for split in ("train", "test"):
        having = [(p[split], k[split]) for p, k in zip(parts, keys, strict=True) if split in p]
        contradictory, repeated = _shared_pairs(having, pair_key)
        if contradictory:
            notes.append(
                f"{split}: the datasets contradict each other on {contradictory:,} pairs, from "
                "which nothing is learned; convert the raw files together, which removes them"
            )
        if repeated:
            notes.append(
                f"{split}: {repeated:,} pairs are in another of the datasets too and count twice; "
                "convert the raw files together, which keeps one of each"
            )
    return parts


def _prompt_keys(rows: Dataset, prompt_key: PromptKey) -> np.ndarray:
    """8 bytes for each prompt: the odds of a collision among a million are 1 in 30 million."""
    records = _records(rows.select_columns(["prompt"]))
    return np.fromiter((_number(prompt_key(row["prompt"])) for row in records), np.uint64)


def _shared_pairs(parts: list[tuple[Dataset, np.ndarray]], pair_key: PairKey) -> tuple[int, int]:
    """How many pairs have both orders, and how often the others are in a further dataset.

    `parts` are rows with the keys of their prompts. A pair that is twice in one dataset counts
    once.
    """
    prompts, counts = np.unique(_concatenate(np.unique(k) for _, k in parts), return_counts=True)
    shared = prompts[counts > 1]
    records = (row for rows, k in parts for row in _records(_select(rows, np.isin(k, shared))))
    pairs = ((*pair_key(row), row[ORIGIN]) for row in records)
    found = np.fromiter(((_number(key), order, origin) for key, order, origin in pairs), PAIR)
    by_pair = pd.DataFrame(found).drop_duplicates().groupby("key")
    contradictory = by_pair["order"].nunique() > 1
    repeated = by_pair.size()[~contradictory] - 1
    return int(contradictory.sum()), int(repeated.sum())


def _number(key: bytes) -> int:
    """The last 8 bytes; the first 8 of a pair's key are those of its prompt."""
    return int.from_bytes(key[-8:], "little")


def _concatenate(keys: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.uint64), *keys])


def _select(rows: Dataset, which: np.ndarray) -> Dataset:
    return rows.select(np.flatnonzero(which))


def _records(rows: Dataset) -> Iterator[dict[str, Any]]:
    """The rows, read in batches, which is faster than one by one."""
    for batch in rows.iter(batch_size=BATCH):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))

"""What several datasets share: prompts held out for test, repeated and contradictory pairs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

ORIGIN = "dataset"
"""The column with the position in dataset_path that a row came from."""
BATCH = 1000

PairKey = Callable[[dict[str, Any]], tuple[bytes, bool]]
"""Maps a row to 8 bytes of its prompt and 8 of its pair, equal for both orders, and the order."""


def drop_train_test_overlap(
    parts: list[dict[str, Dataset]], paths: Sequence[str], pair_key: PairKey, notes: list[str]
) -> list[dict[str, Dataset]]:
    """The splits of several datasets, without training rows whose prompt any of them tests on.

    Adds the column ORIGIN. Other rows that the datasets share are kept and counted in the notes.
    """
    keys = pd.concat(
        _keys(rows, pair_key).assign(split=split, **{ORIGIN: position})
        for position, part in enumerate(parts)
        for split, rows in part.items()
    )
    held_out = keys.loc[keys["split"] == "test", "prompt"]
    dropped = (keys["split"] == "train") & keys["prompt"].isin(held_out)
    keys = keys[~dropped]
    kept_parts = []
    for position, (path, part) in enumerate(zip(paths, parts, strict=True)):
        own = keys[keys[ORIGIN] == position]
        kept = {split: own.index[own["split"] == split] for split in ("train", "test")}
        kept_parts.append(
            {
                split: rows.add_column(ORIGIN, np.full(len(rows), position, np.uint32)).select(
                    kept[split]
                )
                for split, rows in part.items()
            }
        )
        notes.append(
            f"{path}: {len(kept['train']):,} pairs to train on, {len(kept['test']):,} held out"
        )
    if dropped.any():
        notes.append(f"train: {dropped.sum():,} pairs dropped, because their prompts are held out")
    for split in ("train", "test"):
        pairs = keys[keys["split"] == split].groupby("pair")
        orders, datasets = pairs["order"].nunique(), pairs[ORIGIN].nunique()
        if contradictory := np.count_nonzero((orders > 1) & (datasets > 1)):
            notes.append(
                f"{split}: the datasets contradict each other on {contradictory:,} pairs, from "
                "which nothing is learned; convert the raw files together, which removes them"
            )
        if repeated := (datasets[orders == 1] - 1).sum():
            notes.append(
                f"{split}: {repeated:,} pairs are in another of the datasets too and count twice; "
                "convert the raw files together, which keeps one of each"
            )
    return kept_parts


def _keys(rows: Dataset, pair_key: PairKey) -> pd.DataFrame:
    """Each row's prompt and pair as 8 bytes: among a million, 1 in 30 million that two collide."""
    found = []
    for batch in rows.iter(batch_size=BATCH):
        for values in zip(*batch.values(), strict=True):
            found.append(pair_key(dict(zip(batch, values, strict=True))))
    numbers = np.frombuffer(b"".join(key for key, _ in found), "<u8").reshape(-1, 2)
    orders = [order for _, order in found]
    return pd.DataFrame({"prompt": numbers[:, 0], "pair": numbers[:, 1], "order": orders})

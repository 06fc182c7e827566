"""Every training pair scored by a policy that did not see it: two runs, each on half the prompts.

A policy flatters what it was trained on, wrong labels too, so a pair is judged by the other half's.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import xxhash
from datasets import Dataset, DatasetDict

from dpo_wrap.atomic import clear_own, make_own
from dpo_wrap.errors import DataError
from dpo_wrap.judging.evaluation import Request, evaluate_run
from dpo_wrap.judging.trained import trained_settings
from dpo_wrap.loading.data import KEPT, Splits, load_splits
from dpo_wrap.running.session import say, train
from dpo_wrap.settings.config import Settings
from dpo_wrap.signals import Stop

PART = "suspects.part"
OWN_COLUMNS = ("split", "row", "source", "chosen_tokens", "rejected_tokens", "reward_margin")
# The half-runs are nobody's to see.
NOT_HERE = ("push_to_hub", "report_to")


def scored_apart(settings: Settings, stop: Stop) -> tuple[pd.DataFrame, dict[str, Dataset]]:
    """A row for each pair, with `split` and the margin that policies give it that never saw it.

    Training pairs are scored by one policy, those of test by both, whose mean counts. Columns that
    the converter was told to keep stand in the table too. Beside it are the splits that its `row`
    counts in. Interrupted, it goes on where it was; what it works on is removed by `clear`. Raises
    DpoWrapError.
    """
    out = Path(settings.output_dir).expanduser()
    with tempfile.TemporaryDirectory() as aside:
        splits = load_splits(settings, out, Path(aside), kept=True)
        folds = [fold_of(prompt) for prompt in splits.train["prompt"]]
        if len(set(folds)) < 2:
            raise DataError(
                f"{settings.place('dataset_path')}: its few prompts fall into one half, so no pair "
                "can be scored by a policy that did not see it; more prompts are needed"
            )
        rows = [[row for row, its in enumerate(folds) if its == fold] for fold in (0, 1)]
        work = _workplace(settings, splits, out)
        halves = [_stored(work / f"half-{n + 1}", splits, rows[n]) for n in (0, 1)]
        whole = {"train": splits.train} | ({} if splits.test is None else {"test": splits.test})
        tables = list(_scored(settings, stop, work, halves, rows, "test" in whole))
        # Read into memory: what the rows were mapped from is gone with the folder.
        whole = {name: Dataset.from_list(split.to_list()) for name, split in whole.items()}
    return _with_kept(_joined(tables), whole), whole


def clear(settings: Settings) -> None:
    """Remove the two runs and their data."""
    for folder in Path(settings.output_dir).expanduser().glob(f"{PART}-*"):
        clear_own(folder)


def fold_of(prompt: Any) -> int:
    """0 or 1, by the prompt alone, so that all pairs of one stand in one half."""
    return xxhash.xxh3_64_intdigest(json.dumps(prompt, sort_keys=True).encode()) & 1


def _scored(
    settings: Settings,
    stop: Stop,
    work: Path,
    halves: list[Path],
    rows: list[list[int]],
    tests: bool,
) -> Iterator[pd.DataFrame]:
    for number, half in enumerate(halves):
        other = 1 - number
        say(f"half {number + 1} of 2: training on {len(rows[number]):,} pairs")
        run = work / f"run-{number + 1}"
        own = dataclasses.replace(
            settings,
            dataset_path=(str(half),),
            output_dir=str(run),
            trl=_as_long(settings),
            metrics=(),
        )
        stop.waits = False
        train(own, "auto", stop, brief=True)
        stop.waits = False
        asked = dataclasses.replace(own, dataset_path=(str(halves[other]),))
        found = evaluate_run(trained_settings(asked, None), Request("train", samples=0)).examples
        # The places of the half, in the whole split.
        yield found.assign(split="train", row=[rows[other][row] for row in found["row"]])
        if tests:
            found = evaluate_run(trained_settings(own, None), Request("test", samples=0)).examples
            yield found.assign(split="test")


def _as_long(settings: Settings) -> dict[str, Any]:
    """The options of a half-run, which takes as many steps as the whole one, over half the data."""
    kept = {
        name: value
        for name, value in settings.trl.items()
        if name not in NOT_HERE and not name.startswith("hub_")
    }
    return kept | {"num_train_epochs": 2 * settings.option("num_train_epochs")}


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """One row a pair; of a pair that two policies scored, the mean of their margins."""
    whole = pd.concat(tables, ignore_index=True)
    grouped = whole.groupby(["split", "row"], sort=False)
    found = grouped[[*OWN_COLUMNS[2:-1]]].first().join(grouped["reward_margin"].mean())
    found = found.reset_index().sort_values(["split", "row"], ascending=[False, True])
    return found.reset_index(drop=True)


def _with_kept(scored: pd.DataFrame, splits: dict[str, Dataset]) -> pd.DataFrame:
    for name in (name for name in splits["train"].column_names if name.startswith(KEPT)):
        bare = name.removeprefix(KEPT)
        values = {split: rows[name] for split, rows in splits.items()}
        places = zip(scored["split"], scored["row"], strict=True)
        column = [values[split][row] for split, row in places]
        scored[name if bare in scored else bare] = column
    return scored


def _workplace(settings: Settings, splits: Splits, out: Path) -> Path:
    """Where the two runs stand; those of another config or other data are removed."""
    keys = [settings.own(), dict(settings.trl), settings.lora and dict(settings.lora)]
    text = json.dumps([splits.fingerprint, *keys], sort_keys=True, default=str)
    work = out / f"{PART}-{xxhash.xxh3_64_hexdigest(text.encode())[:8]}"
    for folder in out.glob(f"{PART}-*"):
        if folder != work:
            clear_own(folder)
    make_own(work)
    return work


def _stored(folder: Path, splits: Splits, rows: list[int]) -> Path:
    if not (folder / "dataset_dict.json").is_file():
        half = {"train": _bare(splits.train).select(rows)}
        if splits.test is not None:
            half["test"] = _bare(splits.test)
        DatasetDict(half).save_to_disk(str(folder))
    return folder


def _bare(rows: Dataset) -> Dataset:
    return rows.select_columns([name for name in rows.column_names if not name.startswith(KEPT)])

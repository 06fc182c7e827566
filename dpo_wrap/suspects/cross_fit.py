"""Every training pair scored by a policy that did not see it: two runs, each on half the prompts.

A policy flatters what it was trained on, wrong labels too, so a pair is judged by the other half's.
"""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import xxhash
from datasets import Dataset, DatasetDict

from dpo_wrap.config import Settings
from dpo_wrap.data.splits import KEPT, Splits, load_splits
from dpo_wrap.errors import ConfigError, DataError, ModelError
from dpo_wrap.evaluation.evaluate import Request, evaluate_run
from dpo_wrap.evaluation.examples import kept_columns, with_kept
from dpo_wrap.evaluation.run_settings import trained_settings
from dpo_wrap.files import clear_own, make_own
from dpo_wrap.signals import Stop
from dpo_wrap.training.session import log, train

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
                f"{settings.where('dataset_path')}: its few prompts fall into one half, so no pair "
                "can be scored by a policy that did not see it; more prompts are needed"
            )
        rows = [[row for row, its in enumerate(folds) if its == fold] for fold in (0, 1)]
        work = _workplace(settings, splits, out)
        try:
            halves = [_stored(work / f"half-{n + 1}", splits, rows[n]) for n in (0, 1)]
            whole = {"train": splits.train} | ({} if splits.test is None else {"test": splits.test})
            tables = list(_scored(settings, stop, work, halves, rows, "test" in whole))
        except (ConfigError, DataError, ModelError):
            # Refused: the same command will not go on from here.
            clear(settings)
            with contextlib.suppress(OSError):
                out.rmdir()
            raise
        # Read into memory: what the rows were mapped from is gone with the folder.
        whole = {name: Dataset.from_list(split.to_list()) for name, split in whole.items()}
    return _with_kept(_joined(tables), whole), whole


def clear(settings: Settings) -> None:
    """Remove the two runs and their data."""
    for folder in _workplaces(Path(settings.output_dir).expanduser()):
        clear_own(folder)


def _workplaces(out: Path) -> list[Path]:
    return [path for path in out.glob(f"{PART}-*") if path.is_dir()]


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
        log(f"half {number + 1} of 2: training on {len(rows[number]):,} pairs")
        own = dataclasses.replace(
            settings,
            dataset_path=(str(half),),
            output_dir=str(work / f"run-{number + 1}"),
            trl=_as_long(settings),
            metrics=(),
        )
        _train(own, stop)
        asked = dataclasses.replace(own, dataset_path=(str(halves[other]),))
        found = evaluate_run(trained_settings(asked, None), Request("train", samples=0)).examples
        # The places of the half, in the whole split.
        yield found.assign(split="train", row=[rows[other][row] for row in found["row"]])
        if tests:
            try:
                found = evaluate_run(trained_settings(own, None), Request("test", samples=0))
            except DataError as error:
                # A run needs no test split, so one of which nothing is left stops nothing here.
                log(f"the test split is not scored: {error}")
                continue
            yield found.examples.assign(split="test")


def _train(settings: Settings, stop: Stop) -> None:
    """Train a half, or go on with it; what cannot be gone on with is nobody's, and starts anew."""
    begun = Path(settings.output_dir)
    standing = begun.exists()
    stop.defer = False
    try:
        train(settings, "auto", stop, brief=True)
    except ConfigError:
        if not standing:
            raise
        shutil.rmtree(begun)
        train(settings, "auto", stop, brief=True)
    stop.defer = False


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
    values = {split: kept_columns(rows) for split, rows in splits.items()}
    places = list(zip(scored["split"], scored["row"], strict=True))
    return with_kept(
        scored,
        {name: [values[split][name][row] for split, row in places] for name in values["train"]},
    )[0]


def _workplace(settings: Settings, splits: Splits, out: Path) -> Path:
    """Where the two runs stand; those of another config or other data are removed."""
    keys = [settings.own(), dict(settings.trl), settings.lora and dict(settings.lora)]
    text = json.dumps([splits.fingerprint, *keys], sort_keys=True, default=str)
    work = out / f"{PART}-{xxhash.xxh3_64_hexdigest(text.encode())[:8]}"
    for folder in _workplaces(out):
        if folder != work:
            clear_own(folder)
    make_own(work)
    return work


def _stored(folder: Path, splits: Splits, rows: list[int]) -> Path:
    """A half with the test split, as a dataset that is there whole or not at all."""
    if not folder.is_dir():
        half = {"train": _bare(splits.train).select(rows)}
        if splits.test is not None:
            half["test"] = _bare(splits.test)
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        DatasetDict(half).save_to_disk(str(part))
        part.rename(folder)
    return folder


def _bare(rows: Dataset) -> Dataset:
    return rows.select_columns([name for name in rows.column_names if not name.startswith(KEPT)])

"""Score every pair by a policy that was not trained on it: two folds, split by prompt.

A policy assigns high margins to the pairs that it was trained on, also to those with wrong labels.
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

from dpo_wrap.cli import Stop
from dpo_wrap.config import Settings
from dpo_wrap.data.splits import KEPT, Splits, load_splits
from dpo_wrap.errors import ConfigError, DataError, ModelError
from dpo_wrap.evaluation.evaluate import Request, evaluate_run
from dpo_wrap.evaluation.examples import kept_columns, with_kept
from dpo_wrap.evaluation.run_settings import run_settings
from dpo_wrap.files import clear_own, make_own
from dpo_wrap.training.session import log, train

TEMPORARY = "suspects.part"
COLUMNS = ("split", "row", "source", "chosen_tokens", "rejected_tokens", "reward_margin")
"""Of the table of scores; the columns of `convert --keep` follow."""
NOT_FOR_FOLDS = ("push_to_hub", "report_to")


@contextlib.contextmanager
def cross_fit(settings: Settings, stop: Stop) -> Iterator[tuple[pd.DataFrame, dict[str, Dataset]]]:
    """The table of scores, and the rows of the splits that `split` and `row` refer to.

    A training pair is scored by the policy of the other fold, a test pair by both, with the mean
    of their margins. An interrupted call is resumed by the next one; after success the runs and
    the data of the folds are removed. Raises DpoWrapError.
    """
    out = Path(settings.output_dir).expanduser()
    with tempfile.TemporaryDirectory() as converted:
        splits = load_splits(settings, out, Path(converted), kept=True)
        folds = [fold_of(prompt) for prompt in splits.train["prompt"]]
        if len(set(folds)) < 2:
            raise DataError(
                f"{settings.where('dataset_path')}: all prompts are in one fold, so no pair can be "
                "scored by a policy that was not trained on it; add prompts"
            )
        rows = [[row for row, its_fold in enumerate(folds) if its_fold == fold] for fold in (0, 1)]
        work = _work_dir(settings, splits, out)
        try:
            data = [_fold_data(work / f"fold-{n + 1}", splits, rows[n]) for n in (0, 1)]
            tables = list(_score(settings, stop, work, data, rows, splits.test is not None))
        except (ConfigError, DataError, ModelError):
            # Refused: the same command would not resume.
            _clear(out)
            with contextlib.suppress(OSError):
                out.rmdir()
            raise
        scored = {"train": splits.train} | ({} if splits.test is None else {"test": splits.test})
        yield _join(tables, scored), scored
    _clear(out)


def _clear(out: Path) -> None:
    for folder in out.glob(f"{TEMPORARY}-*"):
        clear_own(folder)


def fold_of(prompt: Any) -> int:
    """0 or 1, by a hash of the prompt, so that all pairs of a prompt are in one fold."""
    return xxhash.xxh3_64_intdigest(json.dumps(prompt, sort_keys=True).encode()) & 1


def _work_dir(settings: Settings, splits: Splits, out: Path) -> Path:
    """The directory of the folds' runs; one of another config or other data is removed."""
    keys = [settings.own(), dict(settings.trl), settings.lora and dict(settings.lora)]
    text = json.dumps([splits.fingerprint, *keys], sort_keys=True, default=str)
    work = out / f"{TEMPORARY}-{xxhash.xxh3_64_hexdigest(text.encode())[:8]}"
    if not work.is_dir():
        _clear(out)
    make_own(work)
    return work


def _fold_data(folder: Path, splits: Splits, rows: list[int]) -> Path:
    """Save a fold and the test split as a dataset, unless a complete one is there."""
    if not folder.is_dir():
        fold = {"train": _without_kept(splits.train).select(rows)}
        if splits.test is not None:
            fold["test"] = _without_kept(splits.test)
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        DatasetDict(fold).save_to_disk(str(part))
        part.rename(folder)
    return folder


def _without_kept(rows: Dataset) -> Dataset:
    return rows.select_columns([name for name in rows.column_names if not name.startswith(KEPT)])


def _score(
    settings: Settings,
    stop: Stop,
    work: Path,
    data: list[Path],
    rows: list[list[int]],
    has_test: bool,
) -> Iterator[pd.DataFrame]:
    """Train on each fold, and score the other fold and the test split."""
    trl = {
        name: value
        for name, value in settings.trl.items()
        if name not in NOT_FOR_FOLDS and not name.startswith("hub_")
    }
    # Half the data, twice the epochs: as many steps as a run on all of it.
    trl["num_train_epochs"] = 2 * settings.option("num_train_epochs")
    for fold, other in ((0, 1), (1, 0)):
        log(f"fold {fold + 1} of 2: training on {len(rows[fold]):,} pairs")
        run = dataclasses.replace(
            settings,
            dataset_path=(str(data[fold]),),
            output_dir=str(work / f"run-{fold + 1}"),
            trl=trl,
            metrics=(),
        )
        _train(run, stop)
        on_other = dataclasses.replace(run, dataset_path=(str(data[other]),))
        scored = _examples(on_other, "train")
        yield scored.assign(split="train", row=[rows[other][row] for row in scored["row"]])
        if has_test:
            try:
                yield _examples(run, "test").assign(split="test")
            except DataError as error:
                # Training needs no test split, so it may have no rows of allowed length.
                log(f"the test split is not scored: {error}")


def _train(settings: Settings, stop: Stop) -> None:
    """Train on a fold, or resume; a run that cannot be resumed is removed and trained again."""
    run = Path(settings.output_dir)
    existed = run.exists()
    stop.defer = False
    try:
        train(settings, "auto", stop, brief=True)
    except ConfigError:
        if not existed:
            raise
        shutil.rmtree(run)
        train(settings, "auto", stop, brief=True)
    stop.defer = False


def _examples(settings: Settings, split: str) -> pd.DataFrame:
    return evaluate_run(run_settings(settings, None), Request(split, samples=0)).examples


def _join(tables: list[pd.DataFrame], splits: dict[str, Dataset]) -> pd.DataFrame:
    """One row a pair, with the mean margin of its policies and its kept columns."""
    grouped = pd.concat(tables, ignore_index=True).groupby(["split", "row"], sort=False)
    scores = grouped[[*COLUMNS[2:-1]]].first().join(grouped["reward_margin"].mean()).reset_index()
    scores = scores.sort_values(["split", "row"], ascending=[False, True], ignore_index=True)
    values = {split: kept_columns(rows) for split, rows in splits.items()}
    pairs = list(zip(scores["split"], scores["row"], strict=True))
    kept = {name: [values[split][name][row] for split, row in pairs] for name in values["train"]}
    return with_kept(scores, kept)[0]

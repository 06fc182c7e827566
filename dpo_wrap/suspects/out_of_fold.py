"""Score every pair by a policy that was not trained on it, and select the suspect labels.

There are two folds, split by prompt, because a policy assigns high margins to the pairs that it was
trained on, also to those with wrong labels.
"""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xxhash
from datasets import Dataset, DatasetDict

from dpo_wrap.cli import Stop
from dpo_wrap.config import Settings
from dpo_wrap.data.splits import KEPT, Splits, load_splits
from dpo_wrap.errors import ConfigError, DataError, ModelError
from dpo_wrap.evaluation.evaluate import Request, evaluate_run
from dpo_wrap.evaluation.examples import VALUES, as_text, file_of, kept_columns, with_kept
from dpo_wrap.evaluation.run_settings import run_settings
from dpo_wrap.files import clear_own, make_own, write_atomically
from dpo_wrap.run_dir import SUSPECTS, SUSPECTS_FIGURES, SUSPECTS_SCORES
from dpo_wrap.training.session import log, run_session

TEMPORARY = "suspects.part"
COLUMNS = ("split", "row", "source", "chosen_tokens", "rejected_tokens", "reward_margin")
"""Of the table of scores; the columns of `convert --keep` follow."""
NOT_FOR_FOLDS = ("hub_", "push_to_hub", "report_to")
"""Prefixes of TRL's options that the runs of the folds do not take over."""
RATIO, MINIMUM = 2.0, 3
"""A group is reported from MINIMUM suspects on, in a share above RATIO times the overall one."""


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
            tables = list(_score(settings, stop, work, splits, rows))
        except (ConfigError, DataError, ModelError):
            # The same command would be refused again, not resumed.
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
    settings: Settings, stop: Stop, work: Path, splits: Splits, rows: list[list[int]]
) -> Iterator[pd.DataFrame]:
    """Train on each fold, and score the other fold and the test split."""
    data = [_fold_data(work / f"fold-{n + 1}", splits, rows[n]) for n in (0, 1)]
    trl = {
        name: value for name, value in settings.trl.items() if not name.startswith(NOT_FOR_FOLDS)
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
        if splits.test is not None:
            try:
                yield _examples(run, "test").assign(split="test")
            except DataError as error:
                # Training needs no test split, so it may have no rows of allowed length.
                log(f"the test split is not scored: {error}")


def _train(settings: Settings, stop: Stop) -> None:
    """Train on a fold, or resume; a run that cannot be resumed is removed and started again."""
    run = Path(settings.output_dir)
    existed = run.exists()
    try:
        run_session(settings, "auto", stop, brief=True)
    except ConfigError:
        if not existed:
            raise
        shutil.rmtree(run)
        run_session(settings, "auto", stop, brief=True)
    stop.defer = False


def _examples(settings: Settings, split: str) -> pd.DataFrame:
    return evaluate_run(run_settings(settings, None), Request(split, samples=0)).examples


def _join(tables: list[pd.DataFrame], splits: dict[str, Dataset]) -> pd.DataFrame:
    """One row per pair: the mean margin over its policies, and its kept columns."""
    grouped = pd.concat(tables, ignore_index=True).groupby(["split", "row"], sort=False)
    scores = grouped[[*COLUMNS[2:-1]]].first().join(grouped["reward_margin"].mean()).reset_index()
    scores = scores.sort_values(["split", "row"], ascending=[False, True], ignore_index=True)
    values = {split: kept_columns(rows) for split, rows in splits.items()}
    pairs = list(zip(scores["split"], scores["row"], strict=True))
    kept = {name: [values[split][name][row] for split, row in pairs] for name in values["train"]}
    return with_kept(scores, kept)[0]


def confidence(margins: pd.Series) -> pd.Series:
    """The probability that a policy gives each label: sigmoid of its margin (paper, equation 6)."""
    return 0.5 * (1 + np.tanh(margins / 2))


def threshold(margins: pd.Series) -> float:
    """The probability of the other label above which a pair is suspect.

    Confident learning (Northcutt et al. 2021, equation 2): the mean probability of the given
    labels, one value for both classes since chosen and rejected are symmetric. Unlike a fixed
    threshold it follows beta and the length of training.
    """
    return float(confidence(margins).mean())


def suspects(scores: pd.DataFrame) -> pd.DataFrame:
    """The suspect rows, lowest margin first, with the `probability` of their label.

    A pair with a margin of 0, from a policy that learned nothing, is not suspect.
    """
    given = confidence(scores["reward_margin"])
    is_suspect = (1 - given >= threshold(scores["reward_margin"])) & (given < 0.5)
    return scores.assign(probability=given)[is_suspect].sort_values("reward_margin", kind="stable")


def concentrations(scores: pd.DataFrame, found: pd.DataFrame, kept: Sequence[str]) -> list[str]:
    """Sentences on groups with many suspects, by input file and by each kept column.

    Columns with one or with more than VALUES distinct values are skipped.
    """
    columns = {"file": scores["source"].map(file_of, na_action="ignore")}
    columns |= {name: scores[name] for name in kept}
    overall, sentences = len(found) / len(scores), []
    for name, values in columns.items():
        pairs, suspect = values.value_counts(), values[found.index].value_counts()
        if not 1 < len(pairs) <= VALUES:
            continue
        for value, count in suspect.items():
            if count >= MINIMUM and count / pairs[value] > RATIO * overall:
                sentences.append(
                    f"{name} {value}: {count:,} of its {pairs[value]:,} pairs are suspect, far "
                    "more than elsewhere; check how its labels were assigned or read before you "
                    "remove single pairs"
                )
    return sentences


def write_suspects(scores: pd.DataFrame, splits: dict[str, Dataset], out: Path) -> list[str]:
    """Write the scores, the suspects and the figures; return the lines to print."""
    kept = [name for name in scores if name not in COLUMNS]
    found = suspects(scores)
    rows = found.to_dict("records")
    records = [_record(row, splits[row["split"]][row["row"]], kept) for row in rows]
    figures = {
        "pairs": len(scores),
        "suspects": len(records),
        "agreement": float((scores["reward_margin"] > 0).mean()),
        "threshold": threshold(scores["reward_margin"]),
        "crowds": concentrations(scores, found, kept),
    }
    write_atomically(out / SUSPECTS_SCORES, scores.to_parquet(index=False))
    lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
    write_atomically(out / SUSPECTS, lines)
    text = json.dumps(figures, ensure_ascii=False, indent=2)
    write_atomically(out / SUSPECTS_FIGURES, text + "\n")
    return _summary(figures, records, out)


def _record(row: dict[str, Any], pair: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """A line of suspects.jsonl; convert --exclude-rows reads its `source`."""
    names = (*kept, "source", "reward_margin", "probability", "split")
    texts = {side: as_text(pair[side]) for side in ("prompt", "chosen", "rejected")}
    return {name: row[name] for name in names} | texts


def _summary(figures: dict[str, Any], records: list[dict[str, Any]], out: Path) -> list[str]:
    lines = [
        f"{figures['pairs']:,} pairs scored by policies that were not trained on them, which agree "
        f"with {figures['agreement']:.1%} of the labels",
        f"{len(records):,} suspect ({len(records) / figures['pairs']:.1%}): the other answer has a "
        f"probability of at least {figures['threshold']:.2f}",
        *(f"! {sentence}" for sentence in figures["crowds"]),
    ]
    without = sum(not record["source"] for record in records)
    if without:
        lines.append(f"{without:,} have no `source`, so convert cannot exclude them; delete them")
    if records:
        lines += [
            f"read {out / SUSPECTS}, delete the lines with a correct label, exclude the others:",
            f"  python -m data_tools.convert RAW -o NEW --exclude-rows {out / SUSPECTS}",
        ]
    return [*lines, f"margins of all pairs: {out / SUSPECTS_SCORES}"]

"""examples.parquet, one row per scored pair, and the figures that are computed from it.

Log-probabilities are natural logs, summed over the tokens of an answer; rows are cut and padded by
TRL's collator, as in training.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from tqdm import tqdm
from trl import DPOConfig

from dpo_wrap.data.answer_masks import make_collator
from dpo_wrap.data.length_stats import kept_mask, rows_of, token_columns
from dpo_wrap.data.overlap import ORIGIN
from dpo_wrap.data.splits import KEPT
from dpo_wrap.errors import DataError, RunError
from dpo_wrap.evaluation.models import EvaluatedModels
from dpo_wrap.metrics.intervals import mean, share, wilson
from dpo_wrap.metrics.preference import calibration, length_matched, preference_figures

ROW = "row"
"""The column with a row's index in its split, before any row was dropped."""
SIDES = ("chosen", "rejected")
LOGPS = tuple(f"{who}_{side}_logps" for who in ("policy", "reference") for side in SIDES)
FEW = 100
"""Prompts below which a caution is added to the figures."""
WORST = 10
"""Pairs reported with their texts, those with the lowest margins."""
VALUES = 20
"""Distinct values up to which a column is a grouping."""
BINS = 30
PLACE = re.compile(r"(.*)[:#]\d+", re.DOTALL)
# Figures of a comparison, and the columns of examples.parquet that they are means of.
COMPARED = {
    "reward_accuracy": "win",
    "reward_margin": "reward_margin",
    "kl_per_sequence": "policy_answer_log_ratio",
    "answer_tokens": "policy_answer_tokens",
}
OTHER = " of the other run"


def score_rows(models: EvaluatedModels, rows: Dataset, args: DPOConfig) -> dict[str, list[float]]:
    """The columns LOGPS of rows with prompt_ids, chosen_ids and rejected_ids.

    Raises RunError for NaN or inf.
    """
    collate = make_collator(args, models.tokenizer)
    rows = rows.select_columns(token_columns(rows))
    size = args.per_device_eval_batch_size
    columns: dict[str, list[float]] = {name: [] for name in LOGPS}
    for start in tqdm(range(0, len(rows), size), desc="scoring", disable=None):
        pairs = [rows[i] for i in range(start, min(start + size, len(rows)))]
        # A batch has its chosen answers first, then its rejected ones.
        sides = [half for logps in models.logps(collate(pairs), args) for half in logps.chunk(2)]
        if not all(half.isfinite().all() for half in sides):
            raise RunError(
                f"pairs {start + 1} to {start + len(pairs)}: log-probabilities are NaN or inf; "
                "check the weights of the run and of its base model"
            )
        for name, half in zip(LOGPS, sides, strict=True):
            columns[name] += half.tolist()
    return columns


def pair_table(
    tokens: Dataset, logps: dict[str, list[float]], beta: float, paths: Sequence[str]
) -> pd.DataFrame:
    """The table of scored pairs; lengths are tokens before truncation, of answers the scored."""
    prompts = pd.Series([tuple(ids) for ids in tokens["prompt_ids"]], dtype=object)
    given = tokens.column_names
    sources = tokens["source"] if "source" in given else [None] * len(prompts)
    columns: dict[str, Any] = {
        ROW: list(tokens[ROW]),
        "source": [None if source is None else str(source) for source in sources],
    }
    if ORIGIN in given:
        columns["dataset"] = [paths[position] for position in tokens[ORIGIN]]
    columns["prompt_id"] = prompts.factorize()[0]
    columns["prompt_tokens"] = [len(ids) for ids in prompts]
    for side in SIDES:
        masks = (kept_mask(row, side, None, "keep_start") for row in rows_of(tokens))
        columns[f"{side}_tokens"] = [sum(mask) for mask in masks]
    table = pd.DataFrame(columns | logps)
    for side in SIDES:
        table[f"{side}_log_ratio"] = (
            table[f"policy_{side}_logps"] - table[f"reference_{side}_logps"]
        )
    difference = table["chosen_log_ratio"] - table["rejected_log_ratio"]
    return table.assign(reward_margin=beta * difference, win=difference > 0, tie=difference == 0)


def kept_columns(rows: Dataset) -> dict[str, list[str | None]]:
    """The columns of `convert --keep`, by their own names."""
    names = [name for name in rows.column_names if name.startswith(KEPT)]
    return {name.removeprefix(KEPT): list(rows[name]) for name in names}


def with_kept(
    table: pd.DataFrame, kept: dict[str, list[str | None]]
) -> tuple[pd.DataFrame, list[str]]:
    """The table with kept columns appended, and their names in it.

    A kept column with the name of a figure gets a prefix.
    """
    named = {KEPT + name if name in table else name: values for name, values in kept.items()}
    return table.assign(**named), list(named)


def with_answers(
    table: pd.DataFrame, answers: Sequence[dict[str, Any]], scores: dict[str, Sequence[float]]
) -> pd.DataFrame:
    """The table with the figures of sampled answers, null for prompts that were not sampled.

    `answers` are the dicts of `answer_rows`; `scores` has further columns in the same order. The
    column `policy_tokens` of an answer becomes `policy_answer_tokens`.
    """
    if not answers:
        return table
    sampled = pd.DataFrame(answers)
    names = {name: name.replace("_", "_answer_", 1) for name in sampled}
    sampled = sampled.rename(columns=names).assign(**scores)
    return table.merge(sampled, on=ROW, how="left", validate="one_to_one")


def as_text(side: Any) -> str:
    """A prompt or an answer as text; several messages are prefixed with their roles."""
    if isinstance(side, str):
        return side
    if len(side) == 1:
        return _message_text(side[0])
    return "\n".join(f"{message['role']}: {_message_text(message)}" for message in side)


def _message_text(message: dict[str, Any]) -> str:
    """The content of a message and its tool calls."""
    calls = message.get("tool_calls")
    parts = [message.get("content") or "", json.dumps(calls, ensure_ascii=False) if calls else ""]
    return "\n".join(filter(None, parts))


def pair_figures(examples: pd.DataFrame, beta: float) -> dict[str, Any]:
    """The figures of eval.json that follow from the scored pairs.

    The accuracy comes with that of baselines that need no policy, on the same rows.
    """
    figures = preference_of(examples, beta)
    if not len(examples):
        return figures
    prompts, margins = examples["prompt_id"].tolist(), examples["reward_margin"].to_numpy()
    chosen, rejected = (examples[f"{side}_tokens"] for side in SIDES)
    policy, reference = (
        (examples[f"{who}_chosen_logps"], examples[f"{who}_rejected_logps"])
        for who in ("policy", "reference")
    )
    likelier = reference[0] - reference[1]
    per_token = reference[0] / chosen.clip(lower=1) - reference[1] / rejected.clip(lower=1)
    return {
        **figures,
        "caution": caution(figures),
        "baselines": {
            "longer": _baseline(chosen - rejected, prompts),
            "shorter": _baseline(rejected - chosen, prompts),
            "reference": _baseline(likelier, prompts),
            "reference_per_token": _baseline(per_token, prompts),
        },
        "length_matched": length_matched(margins, chosen.to_numpy(), rejected.to_numpy(), prompts),
        "calibration": calibration(margins),
        "likelihood_margins": histogram(
            {"reference": likelier.to_numpy(), "policy": (policy[0] - policy[1]).to_numpy()}
        ),
    }


def preference_of(examples: pd.DataFrame, beta: float) -> dict[str, Any]:
    """`preference_figures` of these rows."""
    names = ("chosen_log_ratio", "rejected_log_ratio", "prompt_id")
    chosen, rejected, prompts = (examples[name].tolist() for name in names)
    return preference_figures(chosen, rejected, beta, prompts)


def _baseline(preference: pd.Series, prompts: Sequence[int]) -> dict[str, Any]:
    """The accuracy of a rule that takes the chosen answer where `preference` is positive."""
    accuracy, bounds = share((preference > 0).tolist(), prompts)
    ties = int((preference == 0).sum())
    return {"accuracy": accuracy, "accuracy_interval": list(bounds), "ties": ties}


def caution(figures: dict[str, Any]) -> str | None:
    """What cannot be concluded from fewer than FEW prompts; None from more."""
    if figures["prompts"] >= FEW:
        return None
    low, high = figures["reward_accuracy_interval"]
    count = "1 prompt was" if figures["prompts"] == 1 else f"{figures['prompts']} prompts were"
    return (
        f"Only {count} evaluated: the accuracy is known to about ±{(high - low) / 2:.2f}, so "
        "smaller differences between runs are not distinguishable; hold out at least "
        f"{FEW} prompts (convert --test-size)"
    )


def histogram(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Counts of each series over common bins from the 1st to the 99th percentile of all values.

    Values outside are counted in the first and the last bin.
    """
    low, high = np.percentile(np.concatenate(list(values.values())), [1, 99])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts = {
        name: np.histogram(np.clip(series, low, high), edges)[0].tolist()
        for name, series in values.items()
    }
    return {"edges": edges.tolist(), **counts}


def slices(examples: pd.DataFrame, beta: float, paths: Sequence[str]) -> dict[str, Any]:
    """Figures by dataset path; empty for a single dataset."""
    if len(paths) < 2:
        return {}
    return {path: preference_of(examples[examples["dataset"] == path], beta) for path in paths}


def groups(examples: pd.DataFrame, beta: float, kept: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Figures by source file and by each kept column that has 2 to VALUES values."""
    columns = {"file": examples["source"].map(file_of, na_action="ignore")}
    columns |= {f"{KEPT}file" if name == "file" else name: examples[name] for name in kept}
    found = {}
    for name, values in columns.items():
        distinct = sorted(values.dropna().unique())
        if 1 < len(distinct) <= VALUES:
            found[name] = {str(v): preference_of(examples[values == v], beta) for v in distinct}
    return found


def file_of(source: str) -> str | None:
    """The file of a source such as `raw.csv:17`; None for a source of another form."""
    found = PLACE.fullmatch(source)
    return found and found[1]


def worst(examples: pd.DataFrame) -> pd.DataFrame:
    """The rows with the lowest negative margins, lowest first."""
    return examples[examples["reward_margin"] < 0].nsmallest(WORST, "reward_margin")


def paired_differences(
    here: pd.DataFrame, there: pd.DataFrame, metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Both means and their difference (here minus there) for each figure of two runs.

    Over the rows, and for sampled figures the prompts, that both tables have; 95 % intervals are
    clustered by prompt. A margin includes its own run's beta. Raises DataError without common rows.
    """
    compared = COMPARED | {name: f"{name}_policy" for name in metrics}
    names = ["row", *(name for name in compared.values() if name in here and name in there)]
    both = here[[*names, "prompt_id"]].merge(there[names], on="row", suffixes=("", OTHER))
    if both.empty:
        raise DataError(
            "--against: the two runs have no pair in common, since each dropped the other's; "
            "raise max_length in both"
        )
    figures = {
        name: _difference(both[["prompt_id", column, column + OTHER]].dropna().astype(float))
        for name, column in compared.items()
        if column in names
    }
    return {name: found for name, found in figures.items() if found}


def _difference(rows: pd.DataFrame) -> dict[str, Any] | None:
    if rows.empty:
        return None
    prompts, here, there = (rows[name] for name in rows)
    change, bounds = mean((here - there).tolist(), prompts.tolist())
    if bounds and here.name == "win":
        if change == 0 and bounds[0] == bounds[1]:
            # Both runs agree on every pair, which does not make them equal.
            most = wilson(0.0, prompts.nunique())[1]
            bounds = (-most, most)
        bounds = (max(-1.0, bounds[0]), min(1.0, bounds[1]))
    return {
        "examples": len(rows),
        "here": float(here.mean()),
        "there": float(there.mean()),
        "difference": change,
        "difference_interval": bounds and list(bounds),
    }

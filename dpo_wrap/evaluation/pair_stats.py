"""Figures of held-out pairs: accuracy with baselines, groups, and the comparison of two runs."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpo_wrap.errors import DataError
from dpo_wrap.metrics.intervals import mean, share, wilson
from dpo_wrap.metrics.preference import calibration, length_matched, preference_figures

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


def pair_figures(examples: pd.DataFrame, beta: float) -> dict[str, Any]:
    """The figures of eval.json that follow from the scored pairs.

    The accuracy comes with that of baselines that need no policy, on the same rows.
    """
    figures = preference_of(examples, beta)
    if not len(examples):
        return figures
    prompts, margins = examples["prompt_id"].tolist(), examples["reward_margin"].to_numpy()
    chosen, rejected = (examples[f"{side}_tokens"] for side in ("chosen", "rejected"))
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
    columns |= {name: examples[name] for name in kept if name != "file"}
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

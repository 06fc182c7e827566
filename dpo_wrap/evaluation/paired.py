"""Two runs on the same rows: what differs between them, pair by pair, so that luck cancels."""

from typing import Any

import pandas as pd

from dpo_wrap.errors import DataError
from dpo_wrap.evaluation.evaluate import Evaluation
from dpo_wrap.metrics.preference import mean, wilson

PAIRS = {"reward_accuracy": "win", "reward_margin": "reward_margin"}
THERE = " there"
SAMPLED = {"kl_per_sequence": "policy_answer_log_ratio", "answer_tokens": "policy_answer_tokens"}


def paired(here: Evaluation, there: Evaluation) -> dict[str, dict[str, Any]]:
    """For each figure both means and their difference, here less there, with 95 % bounds.

    Over the rows, and of sampled figures the prompts, that both have; intervals are clustered by
    prompt. A margin carries its own run's beta. Raises DataError where they share no row.
    """
    columns = PAIRS | SAMPLED
    columns |= {name: f"{name}_policy" for name in here.figures["metrics"]}
    tables = []
    for table, first in ((here.examples, ["row", "prompt_id"]), (there.examples, ["row"])):
        tables.append(table[[*first, *(c for c in columns.values() if c in table)]])
    both = tables[0].merge(tables[1], on="row", suffixes=("", THERE))
    if both.empty:
        raise DataError("--against: the two runs have no pair in common; each dropped the other's")
    return {
        name: found
        for name, column in columns.items()
        if (found := _difference(both, column)) is not None
    }


def _difference(both: pd.DataFrame, column: str) -> dict[str, Any] | None:
    if column + THERE not in both:
        return None
    rows = both[["prompt_id", column, column + THERE]].dropna().astype(float)
    if rows.empty:
        return None
    ours, theirs = rows[column], rows[column + THERE]
    change, bounds = mean((ours - theirs).tolist(), rows["prompt_id"].tolist())
    if bounds and column == "win":
        if change == 0 and bounds[0] == bounds[1]:
            # Not one pair parted them, which does not make them the same.
            most = wilson(0.0, rows["prompt_id"].nunique())[1]
            bounds = (-most, most)
        bounds = (max(-1.0, bounds[0]), min(1.0, bounds[1]))
    return {
        "examples": len(rows),
        "here": float(ours.mean()),
        "there": float(theirs.mean()),
        "difference": change,
        "difference_interval": bounds and list(bounds),
    }

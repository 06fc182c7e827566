"""What held-out pairs say: figures, what would score without a model, groups that stand out."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpo_wrap.metrics.preference import calibration, length_matched, preference_figures, share

FEW = 100
"""Prompts below which the figures carry little; what cannot be concluded is then said."""
WORST = 10
"""Pairs that are shown with their texts, those whose margin speaks most against their label."""
VALUES = 20
"""Distinct values up to which a kept column is a grouping, and files are listed one by one."""
BINS = 30
PLACE = re.compile(r"(.*)[:#]\d+", re.DOTALL)


def pair_figures(examples: pd.DataFrame, beta: float) -> dict[str, Any]:
    """All that follows from the scores of pairs, a dict for JSON; `examples` as examples.py makes.

    Beside the policy's accuracy stand those of rules that need no policy, on the same rows.
    """
    found = of_rows(examples, beta)
    if not len(examples):
        return found
    prompts = examples["prompt_id"].tolist()
    longer = (examples["chosen_tokens"] - examples["rejected_tokens"]).to_numpy()
    likely = _difference(examples, "reference_{}_logps").to_numpy()
    per_token = _difference(examples, "reference_{}_logps", per_token=True).to_numpy()
    return {
        **found,
        "caution": caution(found),
        "baselines": {
            "longer": _rule(longer > 0, longer == 0, prompts),
            "shorter": _rule(longer < 0, longer == 0, prompts),
            "reference": _rule(likely > 0, likely == 0, prompts),
            "reference_per_token": _rule(per_token > 0, per_token == 0, prompts),
        },
        "length_matched": length_matched(
            examples["reward_margin"].to_numpy(),
            examples["chosen_tokens"].to_numpy(),
            examples["rejected_tokens"].to_numpy(),
            prompts,
        ),
        "calibration": calibration(examples["reward_margin"].to_numpy()),
        "likelihood_margins": histogram(
            {
                "reference": likely,
                "policy": _difference(examples, "policy_{}_logps").to_numpy(),
            }
        ),
    }


def of_rows(examples: pd.DataFrame, beta: float) -> dict[str, Any]:
    """The preference figures of these rows."""
    return preference_figures(
        examples["chosen_log_ratio"].tolist(),
        examples["rejected_log_ratio"].tolist(),
        beta,
        examples["prompt_id"].tolist(),
    )


def caution(found: dict[str, Any]) -> str | None:
    """What cannot be concluded from so few prompts; None where there are enough."""
    if found["prompts"] >= FEW:
        return None
    low, high = found["reward_accuracy_interval"]
    prompts = f"{found['prompts']} prompt{'' if found['prompts'] == 1 else 's'}"
    said = [
        f"only {prompts}: the accuracy is known to about "
        f"{(high - low) / 2:.2f} either way, so two runs that differ by less cannot be told apart"
    ]
    if low <= 0.5 <= high:
        said.append("nor can it be told from a coin's 0.5")
    said.append(f"hold out at least {FEW} prompts (--test-size)")
    return "; ".join(said)


def histogram(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Counts of each series over common bins; what lies outside the 1st to 99th percentile stands
    in the first and the last."""
    whole = np.concatenate(list(values.values()))
    low, high = np.percentile(whole, [1, 99])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts = {
        name: np.histogram(np.clip(series, low, high), edges)[0].tolist()
        for name, series in values.items()
    }
    return {"edges": edges.tolist(), **counts}


def groups(examples: pd.DataFrame, beta: float, kept: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Figures by the file that pairs came from and by each kept column, where there are several.

    A file or an annotator whose labels are turned round stands out here.
    """
    columns: dict[str, Callable[[], pd.Series]] = {
        "file": lambda: examples["source"].map(file_of, na_action="ignore"),
        **{name: lambda name=name: examples[name] for name in kept if name != "file"},
    }
    found = {}
    for name, column in columns.items():
        values = column()
        distinct = values.dropna().unique()
        if 1 < len(distinct) <= VALUES:
            found[name] = {
                str(value): of_rows(examples[values == value], beta) for value in sorted(distinct)
            }
    return found


def worst(examples: pd.DataFrame) -> pd.DataFrame:
    """The rows whose margin speaks most against their label, the strongest first."""
    against = examples[examples["reward_margin"] < 0]
    return against.nsmallest(WORST, "reward_margin")


def file_of(source: str) -> str | None:
    """The file that a pair came from, by its place; None for a place of another form."""
    found = PLACE.fullmatch(source)
    return found and found[1]


def _difference(examples: pd.DataFrame, name: str, per_token: bool = False) -> pd.Series:
    sides = [examples[name.format(side)] for side in ("chosen", "rejected")]
    if per_token:
        sides = [
            logps / examples[f"{side}_tokens"].clip(lower=1)
            for side, logps in zip(("chosen", "rejected"), sides, strict=True)
        ]
    return sides[0] - sides[1]


def _rule(wins: np.ndarray, ties: np.ndarray, prompts: Sequence[int]) -> dict[str, Any]:
    accuracy, bounds = share(wins, prompts)
    return {"accuracy": accuracy, "accuracy_interval": list(bounds), "ties": int(ties.sum())}

"""Pairs whose margin speaks strongly against their label, as a policy sees them that never trained
on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpo_wrap.evaluation.pair_stats import VALUES, file_of

CROWDED, LEAST = 2.0, 3
"""How many times the usual share of suspects, and how many of them, make a crowd."""


def confidence(margins: pd.Series) -> pd.Series:
    """The probability that a policy gives each label: sigmoid of its margin (paper, equation 6)."""
    return 0.5 * (1 + np.tanh(margins / 2))


def threshold(margins: pd.Series) -> float:
    """The probability of the other label from which a pair is suspect.

    Confident learning (Northcutt et al. 2021, equation 2): the mean probability that labels are
    given, the same for both since which answer is called chosen is symmetric. It moves with beta
    and with how far the policy went, which a fixed bound would not.
    """
    return float(confidence(margins).mean())


def suspects(examples: pd.DataFrame) -> pd.DataFrame:
    """The rows that are suspect, the strongest first, with `probability` of their label.

    A policy that learned nothing makes none: at margins of about 0 there is no evidence.
    """
    given = confidence(examples["reward_margin"])
    least = threshold(examples["reward_margin"])
    found = examples.assign(probability=given)[(1 - given >= least) & (given < 0.5)]
    return found.sort_values("reward_margin", kind="stable")


def concentrated(
    scored: pd.DataFrame, found: pd.DataFrame, kept: Sequence[str]
) -> list[tuple[str, str, int, int]]:
    """Where suspects crowd: (column, value, suspects, pairs), for files and kept columns.

    Values of which the share of suspects is more than CROWDED times that of all pairs, by columns
    that have few values.
    """
    columns = {"file": scored["source"].map(file_of, na_action="ignore")}
    columns |= {name: scored[name] for name in kept}
    usual, crowds = len(found) / len(scored), []
    for name, values in columns.items():
        pairs, hits = values.value_counts(), values[found.index].value_counts()
        if 1 < len(pairs) <= VALUES:
            crowds += [
                (name, str(value), int(many), int(pairs[value]))
                for value, many in hits.items()
                if many >= LEAST and many / pairs[value] > CROWDED * usual
            ]
    return crowds


def crowd(column: str, value: str, many: int, pairs: int) -> str:
    """A crowd in a sentence, with what to do."""
    return (
        f"{column} {value}: {many:,} of its {pairs:,} pairs are suspect, far more than elsewhere; "
        "see how its labels were given or read before taking any of them out one by one"
    )


def as_record(
    row: dict[str, Any], text: dict[str, Any], kept: Sequence[str] = ()
) -> dict[str, Any]:
    """A line of suspects.jsonl; `source` is what convert --exclude-rows reads."""
    return {name: row[name] for name in kept} | {
        "source": row["source"],
        "reward_margin": row["reward_margin"],
        "probability": row["probability"],
        "split": row["split"],
        "prompt": text["prompt"],
        "chosen": text["chosen"],
        "rejected": text["rejected"],
    }

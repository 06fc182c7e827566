"""Figures of sampled answers: KL, lengths, endings and repetition, each a mean over prompts."""

import math
from collections.abc import Sequence
from typing import Any

from dpo_wrap.evaluation.intervals import mean, mean_interval
from dpo_wrap.evaluation.sampling import Sampled

MODELS = ("reference", "policy")
GRAMS = (1, 2, 3)


def answer_rows(sampled: Sequence[Sampled], stops: Sequence[int]) -> list[dict[str, Any]]:
    """A flat dict for each prompt, of numbers alone: what the figures are means of."""
    rows = []
    for sample in sampled:
        row: dict[str, Any] = {"row": sample.row, "policy_log_ratio": sample.policy_log_ratio}
        for who, ids in zip(MODELS, (sample.reference_ids, sample.policy_ids), strict=True):
            row[f"{who}_tokens"] = len(ids)
            row[f"{who}_ended"] = ids[-1] in stops
            words = ids[:-1] if row[f"{who}_ended"] else ids
            row |= {f"{who}_distinct_{n}": distinct(words, n) for n in GRAMS}
        rows.append(row)
    return rows


def distinct(ids: Sequence[int], n: int) -> float | None:
    """The share of an answer's n-grams that are distinct; None where it is too short for one.

    Li et al. 2016 (distinct-n), within an answer: 1 says that nothing is repeated.
    """
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def answer_figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """KL(policy || reference) from the policy's own answers, and how both models write.

    KL in nats a sequence, and over the same draws in nats a token; intervals are of 95 %, since
    prompts are drawn once each. Everything is None where nothing was sampled.
    """
    pairs = ("eos_rate", *(f"distinct_{n}" for n in GRAMS))
    bounded = ("kl_per_sequence", "kl_per_token", "length_ratio")
    if not rows:
        return dict.fromkeys([*bounded, *(f"{name}_interval" for name in bounded), *pairs])
    ratios = [row["policy_log_ratio"] for row in rows]
    ours, theirs = ([row[f"{who}_tokens"] for row in rows] for who in ("policy", "reference"))
    found: dict[str, Any] = {}
    for name, value, bounds in (
        ("kl_per_sequence", mean(ratios), mean_interval(ratios)),
        ("kl_per_token", *ratio_of_sums(ratios, ours)),
        ("length_ratio", *ratio_of_sums(ours, theirs)),
    ):
        found |= {name: value, f"{name}_interval": bounds and list(bounds)}
    for name in pairs:
        column = "ended" if name == "eos_rate" else name
        each = {who: [row[f"{who}_{column}"] for row in rows] for who in MODELS}
        told = {who: [v for v in values if v is not None] for who, values in each.items()}
        found[name] = {who: mean(values) if values else None for who, values in told.items()}
    return found


def ratio_of_sums(
    above: Sequence[float], below: Sequence[float]
) -> tuple[float, tuple[float, float] | None]:
    """sum(above) / sum(below) with 95 % bounds by the delta method (Cochran 1977, section 6.3)."""
    whole = math.fsum(below)
    ratio = math.fsum(above) / whole
    scale = len(below) / whole
    return ratio, mean_interval(
        [ratio + (a - ratio * b) * scale for a, b in zip(above, below, strict=True)]
    )

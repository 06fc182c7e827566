"""Reward accuracy, margin, calibration and length-matched accuracy of a policy, with intervals.

    metric = evaluate.load("dpo_wrap/metrics/preference.py")
    metric.compute(chosen_log_ratios=[...], rejected_log_ratios=[...], beta=0.1, prompts=[...])

A log-ratio is log pi(y|x) - log pi_ref(y|x) of a whole answer, in nats and without beta; the
implicit reward is beta times the log-ratio (Rafailov et al. 2023, section 4). `dpo_wrap.eval` calls
the same functions. evaluate copies this file and intervals.py, so they import nothing else of ours.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .intervals import mean, share

RATIOS = (1.1, 1.25, 1.5, 2.0, math.inf)
"""Upper edges of the bins of length_matched: tokens of the longer answer over the shorter one's."""
CONFIDENCE_EDGES = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Upper edges of the confidence bins of calibration, the first of which begins at 0.5."""


class Preference(evaluate.Metric):
    def _info(self):
        numbers = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Rafailov et al. 2023, arXiv 2305.18290",
            features=datasets.Features(
                {"chosen_log_ratios": numbers, "rejected_log_ratios": numbers}
            ),
        )

    def _compute(
        self,
        chosen_log_ratios,
        rejected_log_ratios,
        beta=0.1,
        prompts=None,
        chosen_lengths=None,
        rejected_lengths=None,
    ):
        figures = preference_figures(chosen_log_ratios, rejected_log_ratios, beta, prompts)
        if chosen_log_ratios:
            margins = beta * (np.asarray(chosen_log_ratios) - np.asarray(rejected_log_ratios))
            figures["calibration"] = calibration(margins)
            if chosen_lengths is not None:
                figures["length_matched"] = length_matched(
                    margins, chosen_lengths, rejected_lengths, prompts
                )
        return figures


def preference_figures(
    chosen: Sequence[float],
    rejected: Sequence[float],
    beta: float,
    prompts: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Reward accuracy, reward margin and mean log-ratios (nats) over examples.

    A win is a strictly larger reward of the chosen answer, as TRL counts it; ties are counted
    separately. 95 % intervals are clustered by `prompts`. Without examples the figures are None.
    """
    names = (
        *("reward_accuracy", "reward_accuracy_interval", "ties"),
        *("reward_margin", "reward_margin_interval", "chosen_log_ratio", "rejected_log_ratio"),
    )
    if not len(chosen):
        return {"examples": 0, "prompts": 0} | dict.fromkeys(names)
    chosen, rejected = np.asarray(chosen, float), np.asarray(rejected, float)
    accuracy, accuracy_bounds = share((chosen > rejected).tolist(), prompts)
    margin, margin_bounds = mean((beta * (chosen - rejected)).tolist(), prompts)
    return {
        "examples": len(chosen),
        "prompts": len(chosen) if prompts is None else len(set(prompts)),
        "reward_accuracy": accuracy,
        "reward_accuracy_interval": list(accuracy_bounds),
        "ties": int((chosen == rejected).sum()),
        "reward_margin": margin,
        "reward_margin_interval": margin_bounds and list(margin_bounds),
        "chosen_log_ratio": float(chosen.mean()),
        "rejected_log_ratio": float(rejected.mean()),
    }


def calibration(margins: Sequence[float]) -> dict[str, Any]:
    """Whether sigmoid(margin) is the probability that chosen is better (the paper's equation 6).

    `log_loss` is DPO's own loss on these pairs; `ece` the mean distance between confidence and
    accuracy over `bins` (expected calibration error, Naeini et al. 2015). A margin of 0 counts as
    half right.
    """
    m = np.asarray(margins, float)
    confidence = _sigmoid(np.abs(m))
    right = np.where(m == 0, 0.5, m > 0)
    bins, error, low = [], 0.0, 0.5
    for high in CONFIDENCE_EDGES:
        inside = (confidence >= low) & ((confidence < high) | (high == CONFIDENCE_EDGES[-1]))
        if count := int(inside.sum()):
            found = {"confidence": _mean(confidence[inside]), "accuracy": _mean(right[inside])}
            bins.append({"from": low, "to": high, "pairs": count} | found)
            error += count / len(m) * abs(found["confidence"] - found["accuracy"])
        low = high
    return {
        "ece": error,
        "brier": _mean(_sigmoid(-m) ** 2),
        "log_loss": _mean(np.logaddexp(0, -m)),
        "bins": bins,
    }


def length_matched(
    margins: Sequence[float],
    chosen_lengths: Sequence[int],
    rejected_lengths: Sequence[int],
    prompts: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Accuracy in which length has no influence; lengths are tokens.

    Pairs are binned by how much their answers differ in length. In each bin the pairs whose chosen
    answer is longer and those whose chosen answer is shorter get the same total weight, so a policy
    that only prefers longer answers scores 0.5. Pairs without a counterpart in their bin are left
    out; a tie is half a win. `accuracy` is None where no bin has both directions.
    """
    m = np.asarray(margins, float)
    chosen, rejected = (np.maximum(1, np.asarray(n)) for n in (chosen_lengths, rejected_lengths))
    hits = np.where(m == 0, 0.5, m > 0)
    ratio = np.maximum(chosen, rejected) / np.minimum(chosen, rejected)
    weights, bins, low = np.zeros(len(m)), [], 1.0
    for high in RATIOS:
        inside = (ratio >= low) & (ratio < high)
        longer, shorter = inside & (chosen > rejected), inside & (chosen < rejected)
        if matched := min(longer.sum(), shorter.sum()):
            weights[longer] = matched / longer.sum()
            weights[shorter] = matched / shorter.sum()
        weights[inside & (chosen == rejected)] = 1.0
        if inside.any():
            bins.append(
                {
                    "from": low,
                    "to": None if math.isinf(high) else high,
                    "pairs": int(inside.sum()),
                    "chosen_longer": int(longer.sum()),
                    "chosen_shorter": int(shorter.sum()),
                    "accuracy_where_longer": _mean(hits[longer]),
                    "accuracy_where_shorter": _mean(hits[shorter]),
                    "accuracy": _mean(hits[inside], weights[inside]),
                }
            )
        low = high
    used = weights > 0
    accuracy, bounds = None, None
    if used.any():
        clusters = None if prompts is None else [p for p, u in zip(prompts, used, strict=True) if u]
        accuracy, bounds = share(hits[used].tolist(), clusters, weights[used].tolist())
    return {
        "accuracy": accuracy,
        "accuracy_interval": bounds and list(bounds),
        "pairs": int(used.sum()),
        "bins": bins,
    }


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))  # does not overflow


def _mean(values: np.ndarray, weights: np.ndarray | None = None) -> float | None:
    known = len(values) if weights is None else weights.any()
    return float(np.average(values, weights=weights)) if known else None

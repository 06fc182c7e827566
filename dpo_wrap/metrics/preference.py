"""How often, and how surely, a policy prefers as the labels say: a module that evaluate.load takes.

    metric = evaluate.load("dpo_wrap/metrics/preference.py")
    metric.compute(chosen_log_ratios=[...], rejected_log_ratios=[...], beta=0.1, prompts=[...])

A log-ratio is log pi(y|x) - log pi_ref(y|x) of a whole answer, in nats and without beta; the
implicit reward is beta times that (Rafailov et al. 2023, section 4). The file stands alone, since
evaluate copies it; `dpo_wrap.eval` calls the same functions.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

Z = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""
RATIOS = (1.1, 1.25, 1.5, 2.0, math.inf)
"""Upper edges of the bins in which pairs are of like difference in length: longer over shorter."""
CONFIDENCE_EDGES = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Upper edges of the bins of confidence, which begins at 0.5."""

Bounds = tuple[float, float]


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
    """Means over examples of both answers' log-ratios (nats), and what follows from them.

    A win is a strictly greater reward of the chosen answer, as TRL counts it; ties are counted
    apart. Pairs of one prompt are one draw, so intervals (95 %) are clustered by `prompts`, each
    pair its own where they are not given. Of no examples everything is None.
    """
    names = (
        *("reward_accuracy", "reward_accuracy_interval", "ties"),
        *("reward_margin", "reward_margin_interval", "chosen_log_ratio", "rejected_log_ratio"),
    )
    if not len(chosen):
        return {"examples": 0, "prompts": 0} | dict.fromkeys(names)
    over, under = np.asarray(chosen, float), np.asarray(rejected, float)
    clusters = range(len(over)) if prompts is None else prompts
    accuracy, bounds = share(over > under, clusters)
    margin, spread = mean(beta * (over - under), clusters)
    values = (
        *(accuracy, list(bounds), int((over == under).sum())),
        *(margin, spread and list(spread), float(over.mean()), float(under.mean())),
    )
    return {"examples": len(over), "prompts": len(set(clusters))} | dict(
        zip(names, values, strict=True)
    )


def calibration(margins: Sequence[float]) -> dict[str, Any]:
    """Whether a margin m means what it says: sigmoid(m) is the probability that chosen is better.

    That is the Bradley-Terry model of the paper's equation 6. `log_loss` is then DPO's own loss on
    these pairs, `ece` the mean distance between confidence and accuracy over `bins` (Naeini et al.
    2015, expected calibration error); a margin of 0 is right half of the time.
    """
    m = np.asarray(margins, float)
    confidence = _sigmoid(np.abs(m))
    right = np.where(m == 0, 0.5, m > 0)
    bins, distance, low = [], 0.0, 0.5
    for high in CONFIDENCE_EDGES:
        inside = (confidence >= low) & ((confidence < high) | (high == CONFIDENCE_EDGES[-1]))
        if count := int(inside.sum()):
            sure, hit = float(confidence[inside].mean()), float(right[inside].mean())
            bins.append(
                {"from": low, "to": high, "pairs": count, "confidence": sure, "accuracy": hit}
            )
            distance += count / len(m) * abs(sure - hit)
        low = high
    brier = float(np.mean(_sigmoid(-m) ** 2))
    return {
        "ece": distance,
        "brier": brier,
        "log_loss": float(np.mean(np.logaddexp(0, -m))),
        "bins": bins,
    }


def length_matched(
    margins: Sequence[float],
    chosen_lengths: Sequence[int],
    rejected_lengths: Sequence[int],
    prompts: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Accuracy where length tells nothing: in each bin of like differences both directions weigh
    the same, pairs whose chosen answer is the longer and pairs where it is the shorter.

    What prefers the longer answer whatever it says is right in all of the former and in none of the
    latter, so it scores 0.5, however often chosen is the longer one. Pairs without a counterpart in
    their bin are left out, and a tie is half a win. `accuracy` is None where no bin has both.
    """
    m = np.asarray(margins, float)
    one, other = (np.maximum(1, np.asarray(n)) for n in (chosen_lengths, rejected_lengths))
    hits = np.where(m == 0, 0.5, m > 0)
    ratio = np.maximum(one, other) / np.minimum(one, other)
    weights, bins, low = np.zeros(len(m)), [], 1.0
    for high in RATIOS:
        inside = (ratio >= low) & (ratio < high)
        longer, shorter = inside & (one > other), inside & (one < other)
        matched = min(longer.sum(), shorter.sum())
        for side in (longer, shorter):
            if matched:
                weights[side] = matched / side.sum()
        weights[inside & (one == other)] = 1.0
        if inside.any():
            bins.append(
                {
                    "from": low,
                    "to": None if math.isinf(high) else high,
                    "pairs": int(inside.sum()),
                    "chosen_longer": int(longer.sum()),
                    "chosen_shorter": int(shorter.sum()),
                    "accuracy_where_longer": _plain_mean(hits[longer]),
                    "accuracy_where_shorter": _plain_mean(hits[shorter]),
                    "accuracy": _weighted(hits[inside], weights[inside]),
                }
            )
        low = high
    used = weights > 0
    found = {"accuracy": None, "accuracy_interval": None, "pairs": int(used.sum()), "bins": bins}
    if used.any():
        clusters = range(len(m)) if prompts is None else prompts
        kept = [cluster for cluster, keep in zip(clusters, used, strict=True) if keep]
        found["accuracy"], bounds = share(hits[used], kept, weights[used])
        found["accuracy_interval"] = list(bounds)
    return found


def share(
    hits: Sequence[float], clusters: Sequence[Hashable], weights: Sequence[float] | None = None
) -> tuple[float, Bounds]:
    """A share of hits (each in [0, 1]) with 95 % bounds for draws that come in clusters.

    Wilson's score interval (1927) of as many independent draws as give the clustered variance: the
    number of examples over the design effect (Kish 1965), never more than there are examples.
    Raises ValueError for no examples.
    """
    x = np.asarray(hits, float)
    if not len(x):
        raise ValueError("a share needs at least one example")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    middle = float((w * x).sum() / w.sum())
    sums = _cluster_sums(w * (x - middle), clusters)
    independent = float(w.sum() ** 2 / (w**2).sum())
    draws = min(independent, float(len(sums)))
    spread = middle * (1 - middle)
    if len(sums) > 1 and (squares := float((sums**2).sum())) > 0:
        # What makes n single draws n: their variance is spread / (n - 1).
        clustered = squares / w.sum() ** 2 * len(sums) / (len(sums) - 1)
        draws = min(independent, spread / clustered + 1)
    return middle, wilson(middle, draws)


def wilson(middle: float, draws: float) -> Bounds:
    """95 % bounds of a share seen in so many independent draws (Wilson 1927, score interval)."""
    scale = 1 + Z * Z / draws
    centre = (middle + Z * Z / (2 * draws)) / scale
    half = Z * math.sqrt(middle * (1 - middle) / draws + Z * Z / (4 * draws * draws)) / scale
    # Rounding would leave a share of 0 or 1 just outside its own bounds.
    return min(middle, max(0.0, centre - half)), max(middle, min(1.0, centre + half))


def mean(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, Bounds | None]:
    """A mean with 95 % bounds by the normal approximation, clustered; None for a single cluster."""
    x = np.asarray(values, float)
    middle = math.fsum(x) / len(x)
    sums = _cluster_sums(x - middle, clusters)
    if len(sums) < 2:
        return middle, None
    half = Z * math.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(x)
    return middle, (middle - half, middle + half)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))  # does not overflow


def _cluster_sums(values: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    sums: dict[Hashable, float] = {}
    for cluster, value in zip(clusters, values.tolist(), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
    return np.fromiter(sums.values(), float)


def _plain_mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _weighted(values: np.ndarray, weights: np.ndarray) -> float | None:
    return float((values * weights).sum() / weights.sum()) if weights.any() else None

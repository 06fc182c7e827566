"""95 % confidence intervals of a share and of a mean over examples that come in clusters.

Examples that share a prompt are not independent draws. `clusters` has one label per example, such
as its prompt; without it each example is a cluster of its own. For paired measurements pass the
differences. The module imports the standard library alone, since preference.py is copied with it.
"""

import math
from collections.abc import Hashable, Sequence

Z = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""

Bounds = tuple[float, float]


def wilson(share: float, draws: float) -> Bounds:
    """Bounds of a share observed in this many independent draws (Wilson 1927, score interval)."""
    scale = 1 + Z * Z / draws
    center = (share + Z * Z / (2 * draws)) / scale
    half = Z * math.sqrt(share * (1 - share) / draws + Z * Z / (4 * draws * draws)) / scale
    # Rounding would leave a share of 0 or 1 just outside its own bounds.
    return min(share, max(0.0, center - half)), max(share, min(1.0, center + half))


def share(
    hits: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    weights: Sequence[float] | None = None,
) -> tuple[float, Bounds]:
    """The weighted mean of `hits`, each in [0, 1], with its bounds. ValueError without examples.

    Wilson's interval for the effective number of draws: the number of examples divided by the
    design effect of the clusters (Kish 1965), and never more than there are examples.
    """
    if not len(hits):
        raise ValueError("a share needs at least one example")
    weights = [1.0] * len(hits) if weights is None else weights
    total = math.fsum(weights)
    value = math.fsum(w * x for w, x in zip(weights, hits, strict=True)) / total
    sums = _cluster_sums([w * (x - value) for w, x in zip(weights, hits, strict=True)], clusters)
    examples = total**2 / math.fsum(w * w for w in weights)
    draws = min(examples, len(sums))
    squares = math.fsum(s * s for s in sums)
    if len(sums) > 1 and squares > 0:
        # n single draws have the variance value * (1 - value) / (n - 1).
        variance = squares / total**2 * len(sums) / (len(sums) - 1)
        draws = min(examples, value * (1 - value) / variance + 1)
    return value, wilson(value, draws)


def mean(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, Bounds | None]:
    """The mean with bounds by the normal approximation, None for a single cluster.

    Raises ValueError without values.
    """
    if not len(values):
        raise ValueError("a mean needs at least one value")
    value = math.fsum(values) / len(values)
    sums = _cluster_sums([x - value for x in values], clusters)
    if len(sums) < 2:
        return value, None
    squares = math.fsum(s * s for s in sums)
    half = Z * math.sqrt(squares * len(sums) / (len(sums) - 1)) / len(values)
    return value, (value - half, value + half)


def _cluster_sums(values: Sequence[float], clusters: Sequence[Hashable] | None) -> Sequence[float]:
    if clusters is None:
        return values
    sums: dict[Hashable, float] = {}
    for cluster, value in zip(clusters, values, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
    return list(sums.values())

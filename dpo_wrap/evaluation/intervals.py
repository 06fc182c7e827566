"""95 % intervals for what eval reports: a share, and a mean over examples."""

import math
from collections.abc import Sequence

Z = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""


def share_interval(wins: float, examples: int) -> tuple[float, float]:
    """The share wins / examples, bounded below and above (Wilson 1927, score interval)."""
    if examples < 1:
        raise ValueError("an interval needs at least one example")
    share, scale = wins / examples, 1 + Z * Z / examples
    middle = (share + Z * Z / (2 * examples)) / scale
    spread = share * (1 - share) / examples + Z * Z / (4 * examples * examples)
    half = Z * math.sqrt(spread) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; raises ValueError for no values."""
    if not values:
        raise ValueError("a mean needs at least one value")
    return math.fsum(values) / len(values)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The mean's bounds by the normal approximation; None for fewer than two values.

    For paired measurements give the differences: pairing takes out what differs between examples.
    """
    if len(values) < 2:
        return None
    middle = mean(values)
    variance = math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)
    half = Z * math.sqrt(variance / len(values))
    return middle - half, middle + half

"""Which pairs a ranking or a list of ratings gives."""

from collections.abc import Sequence
from itertools import combinations, pairwise


def pick(
    scores: Sequence[float], mode: str, min_margin: float = 0.0
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The (winner, loser) positions that `mode` picks, and the picked positions that tie.

    The higher score wins. Equal scores, and scores less than `min_margin` apart, are ties. Of
    several answers with the best or the worst score, the first is taken.
    """
    ranked = sorted(range(len(scores)), key=lambda position: -scores[position])
    if mode == "all":
        candidates = list(combinations(ranked, 2))
    elif mode == "adjacent":
        candidates = list(pairwise(ranked))
    else:
        worst = min(ranked, key=lambda position: scores[position])
        # Where all are equal, the worst is also the best: the last one completes the tie.
        candidates = [(ranked[0], worst if worst != ranked[0] else ranked[-1])]
    pairs, ties = [], []
    for winner, loser in candidates:
        apart = scores[winner] - scores[loser]
        (pairs if apart > 0 and apart >= min_margin else ties).append((winner, loser))
    return pairs, ties

"""Which pairs scores give, compared with the plain definition."""

import random
from itertools import permutations

from data_tools.ranking import pick


def test_each_mode_gives_its_pairs_best_first_and_its_ties():
    assert pick([2, 2, 1, 1], "best-worst") == ([(0, 2)], [])
    assert pick([2, 2, 1], "adjacent") == ([(1, 2)], [(0, 1)])
    assert pick([2, 2, 1], "all") == ([(0, 2), (1, 2)], [(0, 1)])
    assert pick([1, 1, 1], "best-worst") == ([], [(0, 2)])


def test_scores_closer_than_the_margin_tie_and_those_of_the_margin_do_not():
    assert pick([1.0, 3.0], "best-worst", 2.0) == ([(1, 0)], [])
    assert pick([1.0, 3.0], "best-worst", 2.5) == ([], [(1, 0)])
    assert pick([1.0, 2.0, 4.0], "adjacent", 2.0) == ([(2, 1)], [(1, 0)])


def test_every_mode_agrees_with_the_definition_on_random_scores():
    draw = random.Random(0)
    for _ in range(300):
        scores = [draw.randint(0, 4) for _ in range(draw.randint(2, 6))]
        every = [*permutations(range(len(scores)), 2)]
        better = {(winner, loser) for winner, loser in every if scores[winner] > scores[loser]}
        pairs, ties = pick(scores, "all")
        assert (set(pairs), len(pairs)) == (better, len(better))
        assert len(pairs) + len(ties) == len(every) // 2
        for mode in ("best-worst", "adjacent"):
            some, equal = pick(scores, mode)
            assert set(some) <= better
            assert all(scores[i] == scores[j] and i != j for i, j in equal)
        top, bottom = max(scores), min(scores)
        found, _ = pick(scores, "best-worst")
        assert [(scores[i], scores[j]) for i, j in found] == [(top, bottom)] * (top != bottom)

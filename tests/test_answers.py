"""Figures of sampled answers, from samples worked by hand."""

import math
import random

import pytest

from dpo_wrap.evaluation.answer_stats import answer_figures, answer_rows, distinct, ratio_of_sums
from dpo_wrap.evaluation.sampling import Sampled

SAMPLED = [
    Sampled(0, [1], policy_ids=[5, 6, 0], reference_ids=[5, 0], policy_log_ratio=1.5),
    Sampled(3, [2], policy_ids=[0], reference_ids=[7, 7, 7], policy_log_ratio=-0.5),
]


def test_kl_is_the_mean_of_the_policys_own_log_ratios():
    figures = answer_figures(answer_rows(SAMPLED, [0]))
    assert figures["kl_per_sequence"] == pytest.approx(0.5)
    assert figures["kl_per_token"] == pytest.approx(1.0 / 4)
    assert figures["length_ratio"] == pytest.approx(4 / 5)
    for name in ("kl_per_sequence", "kl_per_token", "length_ratio"):
        low, high = figures[f"{name}_interval"]
        assert low < figures[name] < high


def test_an_answer_ended_where_its_last_token_is_a_stop_and_its_end_is_no_word():
    first, second = answer_rows(SAMPLED, [0])
    assert (first["row"], second["row"]) == (0, 3)
    assert (second["reference_ended"], second["policy_ended"]) == (False, True)
    assert second["policy_distinct_1"] is None  # nothing but an end
    figures = answer_figures([first, second])
    assert figures["eos_rate"] == {"reference": 0.5, "policy": 1.0}
    # The reference's answers: one token, which repeats nothing, and the same token three times.
    assert figures["distinct_1"]["reference"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["distinct_2"] == {"reference": 0.5, "policy": 1.0}


def test_distinct_n_grams_by_hand():
    assert distinct([1, 2, 1, 2], 1) == 0.5
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([1], 2) is None


def test_without_samples_the_figures_are_null():
    none = answer_figures([])
    assert set(none.values()) == {None}
    assert none.keys() == answer_figures(answer_rows(SAMPLED, [0])).keys()


def test_bounds_of_a_ratio_cover_the_truth():
    draw, covered = random.Random(0), 0
    for _ in range(300):
        below = [draw.randint(1, 40) for _ in range(150)]
        above = [0.3 * b + draw.gauss(0, math.sqrt(b)) for b in below]
        low, high = ratio_of_sums(above, below)[1]
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 300 <= 0.98

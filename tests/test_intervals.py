"""Intervals: hand-worked numbers, and coverage on random draws."""

import math
import random

import pytest

from dpo_wrap.evaluation.intervals import mean, mean_interval, share_interval


def test_the_share_interval_is_wilsons():
    # Wilson's interval for 8 of 10: (0.8 + 1.92073/10 -+ 1.95996 sqrt(0.016 + 0.0096036)) / 1.38415
    low, high = share_interval(8, 10)
    assert (low, high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_a_perfect_share_still_has_a_lower_bound_below_one():
    low, high = share_interval(20, 20)
    assert high == 1.0
    assert 0.83 < low < 0.85


def test_no_examples_have_no_interval():
    with pytest.raises(ValueError, match="at least one example"):
        share_interval(0, 0)
    with pytest.raises(ValueError, match="at least one value"):
        mean([])
    assert mean_interval([1.0]) is None


def test_the_mean_interval_is_the_normal_approximation():
    # 1, 2, 3, 4: mean 2.5, variance 5/3, standard error sqrt(5/12) = 0.6454972
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (low, high) == pytest.approx((2.5 - 1.265151, 2.5 + 1.265151), abs=1e-5)


def test_both_intervals_cover_the_truth_about_nineteen_times_in_twenty():
    draw = random.Random(0)
    shares = means = 0
    for _ in range(1000):
        wins = sum(draw.random() < 0.8 for _ in range(50))
        low, high = share_interval(wins, 50)
        shares += low <= 0.8 <= high
        low, high = mean_interval([draw.gauss(1.0, 2.0) for _ in range(50)])
        means += low <= 1.0 <= high
    assert 920 <= shares <= 980
    assert 920 <= means <= 980


def test_sums_are_exact_where_floats_cancel():
    assert mean([1e16, 1.0, -1e16]) == pytest.approx(1 / 3)
    assert math.isclose(mean([0.1] * 10), 0.1)

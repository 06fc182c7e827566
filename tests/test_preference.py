"""Intervals and preference figures: hand-worked numbers, coverage, and use by evaluate.load."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dpo_wrap.metrics.intervals import mean, share, wilson
from dpo_wrap.metrics.preference import calibration, length_matched, preference_figures

MODULE = Path(__file__).parent.parent / "dpo_wrap/metrics/preference.py"


def test_rewards_are_beta_times_the_log_ratios_averaged_per_example():
    figures = preference_figures([2.0, -1.0, 0.5, 3.0], [0.0, 1.0, 0.5, -1.0], beta=0.5)
    assert figures["examples"] == figures["prompts"] == 4
    assert figures["reward_accuracy"] == 0.5  # the third is a tie, so no win
    assert figures["ties"] == 1
    assert figures["reward_margin"] == pytest.approx(0.5 * (2 - 2 + 0 + 4) / 4)
    assert figures["chosen_log_ratio"] == pytest.approx(4.5 / 4)
    assert figures["rejected_log_ratio"] == pytest.approx(0.5 / 4)


def test_no_examples_have_no_figures():
    none = preference_figures([], [], beta=0.1)
    assert none.keys() == preference_figures([1.0], [0.0], beta=0.1).keys()
    assert set(none.values()) == {0, None}


def test_the_interval_of_a_share_is_wilsons():
    # 8 of 10: (0.8 + 1.92073/10 -+ 1.95996 sqrt(0.016 + 0.0096036)) / 1.38415
    assert wilson(0.8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    low, high = wilson(1.0, 20)
    assert high == 1.0 and 0.83 < low < 0.85
    for wins in range(21):
        hits = [True] * wins + [False] * (20 - wins)
        for clusters in (None, range(20)):
            value, bounds = share(hits, clusters)
            assert value == wins / 20
            assert bounds == pytest.approx(wilson(wins / 20, 20))


def test_without_examples_there_is_no_interval():
    with pytest.raises(ValueError, match="at least one example"):
        share([])
    with pytest.raises(ValueError, match="at least one value"):
        mean([])
    assert mean([1.0]) == (1.0, None)


def test_ten_copies_of_every_pair_give_the_interval_of_one():
    once, bounds = share([1, 1, 0, 1], "abcd")
    copied, wider = share([1, 1, 0, 1] * 10, "abcd" * 10)
    assert copied == once
    assert wider[1] - wider[0] == pytest.approx(bounds[1] - bounds[0], rel=0.02)
    assert share([1] * 40, "abcd" * 10)[1] == pytest.approx(wilson(1, 4))
    assert share([1] * 40, "a" * 40)[1] == pytest.approx(wilson(1, 1))


def test_the_interval_of_a_mean_is_the_normal_approximation_over_cluster_sums():
    # Residuals -1.5 -0.5 0.5 1.5: variance 5/3, standard error sqrt(5/12) = 0.6454972.
    middle, bounds = mean([1.0, 2.0, 3.0, 4.0])
    assert middle == 2.5
    assert bounds == pytest.approx((2.5 - 1.265151, 2.5 + 1.265151), abs=1e-5)
    # In two clusters their sums are -2 and 2, and the error is sqrt(8 * 2 / 1) / 4 = 1.
    middle, bounds = mean([1.0, 2.0, 3.0, 4.0], "aabb")
    assert bounds == pytest.approx((2.5 - 1.959964, 2.5 + 1.959964), abs=1e-5)
    assert mean([1.0, 2.0], "aa") == (1.5, None)
    assert mean([1e16, 1.0, -1e16])[0] == pytest.approx(1 / 3)


def test_clustered_intervals_cover_the_truth_where_unclustered_ones_do_not():
    draw = np.random.default_rng(0)
    clustered = plain = 0
    for _ in range(400):
        chance = draw.beta(2, 1, size=60)  # of a prompt; the mean is 2/3
        sizes = draw.integers(1, 9, size=60)
        prompts = np.repeat(np.arange(60), sizes)
        hits = (draw.random(len(prompts)) < chance[prompts]).tolist()
        low, high = share(hits, prompts.tolist())[1]
        clustered += low <= 2 / 3 <= high
        low, high = share(hits)[1]
        plain += low <= 2 / 3 <= high
    assert 0.92 <= clustered / 400 <= 0.98
    assert plain / 400 < 0.9


def test_a_preference_for_length_is_chance_with_lengths_matched():
    draw = np.random.default_rng(1)
    chosen, rejected = draw.integers(5, 60, size=(2, 3000))
    longer = np.maximum(chosen, rejected), np.minimum(chosen, rejected)
    swapped = draw.random(3000) < 0.2  # chosen is the longer answer in four pairs of five
    chosen, rejected = (np.where(swapped, longer[1 - i], longer[i]) for i in (0, 1))
    margins = 0.03 * (chosen - rejected)
    assert 0.77 < preference_figures(margins, 0 * margins, 1.0)["reward_accuracy"] < 0.83
    matched = length_matched(margins, chosen, rejected)
    assert matched["accuracy"] == pytest.approx(0.5, abs=1e-9)
    low, high = matched["accuracy_interval"]
    assert low < 0.5 < high


def test_bins_have_both_directions_and_pairs_without_a_counterpart_are_left_out():
    # Ratios 2.5 (twice longer, once shorter), 1 (a tie in length), 1.2 (longer alone).
    found = length_matched([1, -1, 1, 0, 1], [25, 50, 10, 7, 12], [10, 20, 25, 7, 10])
    like, some, far = found["bins"]
    assert (like["from"], like["to"], like["pairs"], like["accuracy"]) == (1.0, 1.1, 1, 0.5)
    assert (some["pairs"], some["accuracy_where_longer"], some["accuracy"]) == (1, 1.0, None)
    assert (far["chosen_longer"], far["chosen_shorter"], far["to"]) == (2, 1, None)
    assert (far["accuracy_where_longer"], far["accuracy_where_shorter"]) == (0.5, 1.0)
    assert far["accuracy"] == 0.75
    assert found["pairs"] == 4
    # Weights 1 for the tie, 1/2 for each of the two longer ones, 1 for the shorter one.
    assert found["accuracy"] == pytest.approx((0.5 + 0.5 + 0 + 1) / 3)


def test_without_shorter_chosen_answers_nothing_can_be_matched():
    found = length_matched([1.0, 1.0], [10, 20], [5, 9])
    assert (found["accuracy"], found["accuracy_interval"], found["pairs"]) == (None, None, 0)


def test_calibration_by_hand():
    # sigmoid(ln 3) = 0.75, right; sigmoid(-ln 3) = 0.25, wrong at confidence 0.75; 0 half right.
    found = calibration([math.log(3), -math.log(3), 0.0])
    low, high = found["bins"]
    assert (low["confidence"], low["accuracy"], low["pairs"]) == (0.5, 0.5, 1)
    assert (high["from"], high["to"], high["pairs"]) == (0.7, 0.8, 2)
    assert high["confidence"] == pytest.approx(0.75)
    assert high["accuracy"] == 0.5
    assert found["ece"] == pytest.approx(2 / 3 * 0.25)
    assert found["brier"] == pytest.approx((0.25**2 + 0.75**2 + 0.5**2) / 3)
    assert found["log_loss"] == pytest.approx(-math.log(0.75 * 0.25 * 0.5) / 3)


def test_a_script_outside_the_project_loads_the_module_from_its_path(tmp_path):
    script = f"""
import evaluate
metric = evaluate.load({str(MODULE)!r})
found = metric.compute(chosen_log_ratios=[2.0, -1.0], rejected_log_ratios=[0.0, 1.0], beta=0.5,
                       prompts=["p", "p"], chosen_lengths=[3, 4], rejected_lengths=[4, 3])
print(found["reward_accuracy"], found["prompts"], found["length_matched"]["accuracy"])
print(metric.compute(chosen_log_ratios=[1.0], rejected_log_ratios=[0.0])["reward_margin"])
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["0.5 1 0.5", "0.1"], done.stderr

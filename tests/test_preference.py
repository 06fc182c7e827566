"""dpo_wrap/metrics/preference.py: hand-worked numbers, coverage, and its use by evaluate.load."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dpo_wrap.evaluation.intervals import share_interval
from dpo_wrap.metrics.preference import (
    calibration,
    length_matched,
    mean,
    preference_figures,
    share,
    wilson,
)

MODULE = Path(__file__).parent.parent / "dpo_wrap/metrics/preference.py"


def test_rewards_are_beta_times_the_log_ratios_averaged_per_example():
    figures = preference_figures([2.0, -1.0, 0.5, 3.0], [0.0, 1.0, 0.5, -1.0], beta=0.5)
    assert figures["examples"] == figures["prompts"] == 4
    assert figures["reward_accuracy"] == 0.5  # the third is a tie, which is no win
    assert figures["ties"] == 1
    assert figures["reward_margin"] == pytest.approx(0.5 * (2 - 2 + 0 + 4) / 4)
    assert figures["chosen_log_ratio"] == pytest.approx(4.5 / 4)
    assert figures["rejected_log_ratio"] == pytest.approx(0.5 / 4)


def test_swapping_the_answers_negates_the_margin_and_turns_the_wins():
    chosen, rejected = [2.0, -1.0, 3.0], [0.0, 1.0, -1.0]
    one = preference_figures(chosen, rejected, beta=0.1)
    other = preference_figures(rejected, chosen, beta=0.1)
    assert other["reward_margin"] == pytest.approx(-one["reward_margin"])
    assert other["reward_accuracy"] == pytest.approx(1 - one["reward_accuracy"])


def test_no_examples_have_no_figures():
    none = preference_figures([], [], beta=0.1)
    assert none.keys() == preference_figures([1.0], [0.0], beta=0.1).keys()
    assert set(none.values()) == {0, None}


def test_without_repeated_prompts_the_interval_is_wilsons():
    for wins in range(21):
        found, bounds = share([True] * wins + [False] * (20 - wins), range(20))
        assert found == wins / 20
        assert bounds == pytest.approx(share_interval(wins, 20))
    assert wilson(0.8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_ten_copies_of_every_pair_say_no_more_than_one():
    once, bounds = share([1, 1, 0, 1], "abcd")
    again, wider = share([1, 1, 0, 1] * 10, "abcd" * 10)
    assert again == once
    assert wider[1] - wider[0] == pytest.approx(bounds[1] - bounds[0], rel=0.02)
    assert share([1] * 40, "abcd" * 10)[1] == pytest.approx(share_interval(4, 4))
    assert share([1] * 40, "a" * 40)[1] == pytest.approx(share_interval(1, 1))


def test_a_mean_over_clusters_is_that_of_their_sums():
    # Residuals -1.5 -0.5 | 0.5 1.5: sums -2 and 2, so the error is sqrt(8 * 2 / 1) / 4 = 1.
    middle, bounds = mean([1.0, 2.0, 3.0, 4.0], "aabb")
    assert middle == 2.5
    assert bounds == pytest.approx((2.5 - 1.959964, 2.5 + 1.959964), abs=1e-5)
    assert mean([1.0, 2.0], "aa") == (1.5, None)


def test_intervals_cover_the_truth_where_pairs_share_a_prompt_and_plain_ones_do_not():
    draw = np.random.default_rng(0)
    clustered = plain = 0
    for _ in range(400):
        chance = draw.beta(2, 1, size=60)  # of a prompt; the mean is 2/3
        sizes = draw.integers(1, 9, size=60)
        prompts = np.repeat(np.arange(60), sizes)
        hits = draw.random(len(prompts)) < chance[prompts]
        low, high = share(hits, prompts.tolist())[1]
        clustered += low <= 2 / 3 <= high
        low, high = share_interval(int(hits.sum()), len(hits))
        plain += low <= 2 / 3 <= high
    assert 0.92 <= clustered / 400 <= 0.98
    assert plain / 400 < 0.9


def test_a_pure_length_shortcut_falls_to_chance_under_length_matching():
    draw = np.random.default_rng(1)
    chosen, rejected = draw.integers(5, 60, size=(2, 3000))
    longer = np.maximum(chosen, rejected), np.minimum(chosen, rejected)
    turned = draw.random(3000) < 0.2  # chosen is the longer answer in four pairs of five
    chosen, rejected = (np.where(turned, longer[1 - i], longer[i]) for i in (0, 1))
    margins = 0.03 * (chosen - rejected)
    assert 0.77 < preference_figures(margins, 0 * margins, 1.0)["reward_accuracy"] < 0.83
    matched = length_matched(margins, chosen, rejected)
    assert matched["accuracy"] == pytest.approx(0.5, abs=1e-9)
    low, high = matched["accuracy_interval"]
    assert low < 0.5 < high


def test_what_does_not_look_at_length_keeps_its_accuracy_under_matching():
    draw = np.random.default_rng(2)
    chosen, rejected = draw.integers(5, 60, size=(2, 5000))
    margins = np.where(draw.random(5000) < 0.8, 1.0, -1.0)
    assert length_matched(margins, chosen, rejected)["accuracy"] == pytest.approx(0.8, abs=0.02)


def test_bins_say_how_each_direction_fared_and_pairs_without_a_counterpart_are_left_out():
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


def test_where_chosen_is_always_the_longer_nothing_is_left_to_match():
    found = length_matched([1.0, 1.0], [10, 20], [5, 9])
    assert (found["accuracy"], found["accuracy_interval"], found["pairs"]) == (None, None, 0)


def test_calibration_by_hand():
    # sigmoid(ln 3) = 0.75 and right; sigmoid(-ln 3) = 0.25, so 0.75 sure and wrong; 0 half right.
    found = calibration([math.log(3), -math.log(3), 0.0])
    low, high = found["bins"]
    assert (low["confidence"], low["accuracy"], low["pairs"]) == (0.5, 0.5, 1)
    assert (high["from"], high["to"], high["pairs"]) == (0.7, 0.8, 2)
    assert high["confidence"] == pytest.approx(0.75)
    assert high["accuracy"] == 0.5
    assert found["ece"] == pytest.approx(2 / 3 * 0.25)
    assert found["brier"] == pytest.approx((0.25**2 + 0.75**2 + 0.5**2) / 3)
    assert found["log_loss"] == pytest.approx(-math.log(0.75 * 0.25 * 0.5) / 3)


def test_margins_that_say_what_happens_are_calibrated():
    draw = np.random.default_rng(3)
    margins = np.abs(draw.normal(0, 2, size=20_000))
    right = draw.random(20_000) < 1 / (1 + np.exp(-margins))
    assert calibration(np.where(right, margins, -margins))["ece"] < 0.02
    assert calibration(np.where(right, 5 * margins, -5 * margins))["ece"] > 0.1


def test_a_script_anywhere_takes_the_module_from_its_path(tmp_path):
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

"""The figures of an evaluation, from log-ratios and samples worked by hand."""

import pytest

from dpo_wrap.judging.evaluation import preference_figures, sample_figures, slice_figures
from dpo_wrap.judging.sampling import Sampled, choose_prompts
from dpo_wrap.judging.scoring import Scores


def test_rewards_are_beta_times_the_log_ratios_averaged_per_example():
    figures = preference_figures([2.0, -1.0, 0.5, 3.0], [0.0, 1.0, 0.5, -1.0], beta=0.5)
    assert figures["examples"] == 4
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


def test_slices_are_of_their_own_examples_and_none_of_one_dataset():
    scores = Scores([2.0, -1.0, 0.5], [0.0, 1.0, 0.5])
    slices = slice_figures(["a", "b", "c"], [0, 2, 0], scores, beta=0.5)
    assert slices["a"] == preference_figures([2.0, 0.5], [0.0, 0.5], beta=0.5)
    assert slices["c"]["reward_margin"] == pytest.approx(-1.0)
    assert slices["b"]["examples"] == 0
    assert slices["b"].keys() == slices["a"].keys()
    assert slices["b"]["reward_accuracy"] is None
    assert slice_figures(["a"], [], scores, beta=0.5) == {}


def test_kl_is_the_mean_of_the_policys_own_log_ratios():
    sampled = [
        Sampled(0, [1], policy_ids=[5, 6, 0], reference_ids=[5, 0], policy_log_ratio=1.5),
        Sampled(1, [2], policy_ids=[0], reference_ids=[7, 8, 0], policy_log_ratio=-0.5),
    ]
    figures = sample_figures(sampled)
    assert figures["kl_per_sequence"] == pytest.approx(0.5)
    assert figures["kl_per_token"] == pytest.approx(1.0 / 4)
    assert figures["length_ratio"] == pytest.approx(4 / 5)
    low, high = figures["kl_per_sequence_interval"]
    assert low < 0.5 < high


def test_without_samples_the_sample_figures_are_null():
    assert set(sample_figures([]).values()) == {None}


def test_prompts_are_distinct_fit_the_room_and_hang_on_the_seed_alone():
    prompts = [[n % 30, 1] for n in range(60)] + [[0] * 9]
    drawn = choose_prompts(prompts, 10, seed=3, room=5)
    assert len({tuple(prompt) for prompt in drawn.values()}) == len(drawn) == 10
    assert all(prompts[row] == prompt for row, prompt in drawn.items())
    assert drawn == choose_prompts(prompts, 10, seed=3, room=5)
    assert drawn != choose_prompts(prompts, 10, seed=4, room=5)
    assert len(choose_prompts(prompts, 1000, seed=0, room=5)) == 30
    assert len(choose_prompts(prompts, 1000, seed=0, room=None)) == 31

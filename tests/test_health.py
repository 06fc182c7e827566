"""dpo_wrap.health: the words for how a run went, from its figures."""

import pytest

from dpo_wrap.health import figures, verdict


def log(step, margin, accuracy=1.0, chosen=1.0, rejected=-1.0):
    return {
        "step": step,
        "loss": 0.5,
        "rewards/margins": margin,
        "rewards/accuracies": accuracy,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
    }


def test_the_figures_are_means_over_the_last_tenth_of_the_log():
    history = [log(step, margin=step) for step in range(1, 41)] + [{"train_runtime": 1.0}]
    found = figures(history, beta=0.5)
    assert found["reward_margin"] == pytest.approx((37 + 38 + 39 + 40) / 4)
    assert found["chosen_log_ratio"] == 2.0
    assert found["rejected_log_ratio"] == -2.0


def test_the_last_evaluation_is_among_the_figures():
    history = [log(1, 0.1), {"eval_loss": 0.7}, {"eval_loss": 0.6, "step": 2}]
    assert figures(history, beta=0.1)["eval_loss"] == 0.6


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (log(1, 1.5), "learned: the margin rose to 1.50, reward accuracy 1.00; chosen +10.0 nats"),
        (log(1, 1.5, chosen=-1.0), "both answers became less likely (chosen -10.0 nats"),
        (log(1, 0.003), "hardly moved: the margin ended at 0.0030"),
        (log(1, -0.002), "hardly moved: the margin ended at -0.0020"),
        (log(1, -0.2), "went the wrong way: the margin ended at -0.200"),
    ],
)
def test_the_verdict_goes_by_the_margin_not_by_the_accuracy(entry, said):
    assert said in verdict(figures([entry], beta=0.1), None)


def test_a_fault_of_step_zero_is_part_of_the_verdict():
    start = {"loss": 0.7, "margin": 0.3, "fault": "step 0 has a margin of 0.3000, not 0"}
    assert verdict(figures([log(1, 1.5)], 0.1), start).endswith(
        "step 0 has a margin of 0.3000, not 0"
    )


def test_without_a_log_nothing_is_claimed():
    assert "nothing was logged" in verdict(figures([], 0.1), None)

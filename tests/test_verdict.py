"""verdict: the words for how a run went, from its figures."""

import pytest

from dpo_wrap.diagnostics.kl import Drift
from dpo_wrap.diagnostics.verdict import figures, verdict


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
        (log(1, 1.5), "learned: the margin rose to 1.50, reward accuracy 1.00 (which counts who"),
        (log(1, 1.5), "Against the reference: chosen +10.0 nats; rejected -10.0 nats"),
        (
            log(1, 1.5, chosen=-1.0),
            "Both answers became less likely than under the reference (chosen -10.0 nats; rejected "
            "-10.0 nats), which is usual while the margin grows: falling rewards are no fault",
        ),
        (log(1, 0.003), "hardly moved: the margin ended at 0.0030"),
        (log(1, -0.002), "hardly moved: the margin ended at -0.0020"),
        (log(1, -1e-9), "hardly moved: the margin ended at 0.0000"),
        (log(1, -0.2), "went the wrong way: the margin ended at -0.200"),
    ],
)
def test_the_verdict_goes_by_the_margin_not_by_the_accuracy(entry, said):
    assert said in verdict(figures([entry], beta=0.1), None)


def test_a_fault_of_step_zero_is_part_of_the_verdict():
    start = {"loss": 0.7, "margin": 0.3, "fault": "step 0 has a margin of 0.3000, not 0"}
    assert verdict(figures([log(1, 1.5)], 0.1), start).endswith(
        "Step 0 has a margin of 0.3000, not 0"
    )


def test_without_a_log_nothing_is_claimed():
    assert "nothing was logged" in verdict(figures([], 0.1), None)


def test_with_the_answers_lengths_the_changes_are_also_per_token():
    found = figures([log(1, 1.5, chosen=-1.0)], 0.1, {"chosen": 40, "rejected": 4})
    assert found["chosen_log_ratio_per_token"] == -0.25
    assert found["rejected_log_ratio_per_token"] == -2.5
    said = verdict(found, None)
    assert "chosen -10.0 nats, -0.25 a token; rejected -10.0 nats, -2.50 a token" in said
    assert "falling rewards are no fault" in said


def test_chosen_answers_that_lost_a_lot_are_not_called_usual():
    found = figures([log(1, 1.5, chosen=-1.0)], 0.1, {"chosen": 20, "rejected": 4})
    said = verdict(found, None)
    assert "but more than 0.5 nats a token off the chosen ones is a lot" in said
    assert "no fault" not in said


@pytest.mark.parametrize(
    ("nats", "said"),
    [
        (0.027, "KL from the reference 0.027 nats a token over 32 chosen answers of test, small"),
        (0.2, "0.200 nats a token over 32 chosen answers of test, moderate"),
        (0.9, "large: its texts may fall apart"),
    ],
)
def test_the_drift_has_a_word(nats, said):
    assert said in verdict(figures([log(1, 1.5)], 0.1), None, Drift(nats, "test", 32))


def test_a_drift_that_was_not_measured_says_why():
    said = verdict(
        figures([log(1, 1.5)], 0.1), None, Drift(None, "test", 0, "the model is sharded")
    )
    assert said.endswith("The KL from the reference was not measured: the model is sharded")


def evaluated(step, loss, margin):
    return {
        "step": step,
        "eval_loss": loss,
        "eval_rewards/margins": margin,
        "eval_rewards/accuracies": 0.75,
    }


def test_held_out_figures_stand_beside_those_of_training():
    said = verdict(figures([log(1, 1.5), evaluated(1, 0.5, 1.25)], 0.1), None)
    assert "Held out: margin 1.25 against 1.50 in training, reward accuracy 0.75" in said
    assert "by heart" not in said and "lowest" not in said


def test_pairs_learned_by_heart_are_said_to_be():
    said = verdict(figures([log(1, 1.5), evaluated(1, 0.5, 0.5)], 0.1), None)
    assert "so much less means pairs learned by heart: fewer epochs, or more pairs" in said


def test_a_held_out_loss_that_rose_names_its_lowest_step():
    history = [log(1, 1.5), evaluated(10, 0.5, 1.4), evaluated(20, 0.6, 1.4)]
    assert "the held-out loss was lowest at step 10 (0.5000) and rose to 0.6000" in verdict(
        figures(history, 0.1), None
    )


def test_the_best_checkpoint_is_said_to_be_the_one_that_was_saved():
    found = figures([log(1, 1.5)], 0.1) | {"saved_step": 40}
    assert "The saved weights are those of step 40, the best" in verdict(found, None)


def test_sft_alone_is_judged_by_its_loss():
    history = [log(1, 0.0) | {"loss": 3.0}, log(2, 0.0) | {"loss": 2.5}]
    said = verdict(figures(history, 0.1), None, preference=False)
    assert said.startswith("learned: the loss went from 3.000 to 2.500 nats a token")
    assert "no margin is to be expected" in said and "hardly" not in said

"""diagnostics.verdict: the final figures of a log, and the sentences that they make."""

import pytest

from dpo_wrap.diagnostics.verdict import ReferenceKL, figures, verdict


def log(step, margin, accuracy=1.0, chosen=1.0, rejected=-1.0, loss=0.5):
    return {
        "step": step,
        "loss": loss,
        "rewards/margins": margin,
        "rewards/accuracies": accuracy,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
    }


def evaluated(step, loss, margin):
    return {
        "step": step,
        "eval_loss": loss,
        "eval_rewards/margins": margin,
        "eval_rewards/accuracies": 0.75,
    }


def verdict_of(*history, tokens=None, start=None, **more):
    return verdict(figures(list(history), 0.1, tokens), start, **more)


def test_the_figures_are_means_over_the_last_tenth_of_the_log():
    history = [log(step, margin=step) for step in range(1, 41)] + [{"train_runtime": 1.0}]
    found = figures(history, beta=0.5, tokens={"chosen": 4, "rejected": 0.5})
    assert found["reward_margin"] == pytest.approx((37 + 38 + 39 + 40) / 4)
    assert (found["first_margin"], found["first_loss"]) == (1, 0.5)
    assert (found["chosen_log_ratio"], found["rejected_log_ratio"]) == (2.0, -2.0)
    assert found["chosen_log_ratio_per_token"] == 0.5
    assert found["rejected_log_ratio_per_token"] == -2.0  # no answer has less than a token
    assert figures([], 0.5) == {}


def test_the_last_and_the_lowest_evaluation_are_among_the_figures():
    found = figures([log(1, 0.1), evaluated(1, 0.6, 1.0), evaluated(2, 0.7, 1.1)], beta=0.1)
    assert (found["eval_loss"], found["eval_rewards/margins"]) == (0.7, 1.1)
    assert (found["lowest_eval_loss"], found["lowest_eval_step"]) == (0.6, 1)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (log(1, 1.5), "The policy learned: the margin rose to 1.50, reward accuracy 1.00."),
        (log(1, 1.5), "Change from the reference: chosen +10.0 nats; rejected -10.0 nats."),
        (log(1, 0.003), "The policy hardly moved: the margin ended at 0.0030; raise learning_rate"),
        (log(1, -0.002), "hardly moved: the margin ended at -0.0020"),
        (log(1, -1e-9), "hardly moved: the margin ended at 0.0000"),
        (log(1, -0.2), "The policy learned the opposite: the margin ended at -0.200"),
        (log(1, 1.5, 0.5), "did not learn to prefer: the margin of 1.50 comes from a few pairs"),
    ],
)
def test_the_outcome_depends_on_the_margin_before_the_accuracy(entry, sentence):
    assert sentence in verdict_of(entry)


def test_falling_rewards_are_normal_while_the_margin_grows():
    text = verdict_of(log(1, 1.5, chosen=-1.0), tokens={"chosen": 40, "rejected": 4})
    assert "Both answers became less likely than under the reference" in text
    assert "chosen -10.0 nats, -0.25 per token; rejected -10.0 nats, -2.50 per token" in text
    assert "normal while the margin grows: falling rewards are not an error" in text


def test_chosen_answers_that_lost_a_lot_are_not_called_normal_alone():
    text = verdict_of(log(1, 1.5, chosen=-1.0), tokens={"chosen": 20, "rejected": 4})
    assert "but the chosen ones lost more than 0.5 nats per token: the policy may now" in text
    assert "not an error" not in text


@pytest.mark.parametrize(
    ("nats", "words"),
    [
        (0.027, "is 0.027 nats per token over 32 chosen answers of test, small"),
        (0.2, "0.200 nats per token over 32 chosen answers of test, moderate"),
        (0.9, "large: its text may degenerate"),
    ],
)
def test_the_kl_is_called_small_moderate_or_large(nats, words):
    assert words in verdict_of(log(1, 1.5), kl=ReferenceKL(nats, "32 chosen answers of test"))


def test_a_kl_that_was_not_measured_comes_with_the_reason():
    text = verdict_of(log(1, 1.5), kl=ReferenceKL(None, "the model is sharded"))
    assert text.endswith("The KL from the reference was not measured: the model is sharded.")


@pytest.mark.parametrize(("margin", "memorized"), [(1.25, False), (0.5, True)])
def test_a_held_out_margin_far_below_training_means_memorized_pairs(margin, memorized):
    text = verdict_of(log(1, 1.5), evaluated(1, 0.5, margin))
    assert f"Held out, the margin is {margin:.2f} against 1.50 in training" in text
    assert "and the reward accuracy 0.75." in text
    assert ("memorized pairs; use fewer epochs or more pairs" in text) == memorized
    assert "lowest" not in text


@pytest.mark.parametrize("preference", [True, False])
def test_a_held_out_loss_that_rose_names_its_lowest_step(preference):
    history = [log(1, 1.5), evaluated(10, 0.5, 1.4), evaluated(20, 0.6, 1.4)]
    text = verdict_of(*history, preference=preference)
    assert "held-out loss was lowest at step 10 (0.5000) and rose to 0.6000" in text


def test_sft_alone_is_judged_by_its_loss():
    text = verdict_of(log(1, 0.0, loss=3.0), log(2, 0.0, loss=2.5), preference=False)
    assert text.startswith("The policy learned: the loss went from 3.000 to 2.500 nats per token")
    assert "no margin is to be expected" in text and "hardly" not in text


def test_the_best_checkpoint_and_a_fault_of_step_0_are_part_of_the_verdict():
    found = figures([log(1, 1.5)], 0.1) | {"saved_step": 40}
    start = {"loss": 0.7, "margin": 0.3, "fault": "step 0 has a margin of 0.3000, not 0"}
    assert verdict(found, start).endswith(
        "The saved weights are those of step 40, the best. Step 0 has a margin of 0.3000, not 0."
    )


def test_without_a_log_nothing_is_claimed():
    assert verdict_of() == ("Nothing was logged, so the run cannot be judged; lower logging_steps.")

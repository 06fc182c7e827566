"""What held-out pairs say, from tables worked by hand."""

import numpy as np
import pandas as pd
import pytest

from dpo_wrap.evaluation.pair_stats import caution, groups, histogram, pair_figures, worst


def examples(margins, **columns):
    """A table of pairs with these margins at beta 1, each of its own prompt."""
    count = len(margins)
    plain = {
        "source": [f"raw.csv:{number}" for number in range(count)],
        "prompt_id": range(count),
        "chosen_tokens": [5] * count,
        "rejected_tokens": [4] * count,
        "policy_chosen_logps": [-4.0 + margin for margin in margins],
        "policy_rejected_logps": [-4.0] * count,
        "reference_chosen_logps": [-4.0] * count,
        "reference_rejected_logps": [-4.0] * count,
        "chosen_log_ratio": margins,
        "rejected_log_ratio": [0.0] * count,
        "reward_margin": margins,
    }
    return pd.DataFrame(plain | columns)


def test_rules_without_a_policy_are_scored_on_the_same_rows():
    table = examples(
        [1.0, 1.0, -1.0, 0.5],
        chosen_tokens=[5, 5, 3, 4],
        reference_chosen_logps=[-4.0, -9.0, -2.0, -4.0],
        reference_rejected_logps=[-5.0, -4.5, -4.0, -4.0],
    )
    found = pair_figures(table, 1.0)
    rules = found["baselines"]
    assert found["reward_accuracy"] == 0.75
    assert (rules["longer"]["accuracy"], rules["longer"]["ties"]) == (0.5, 1)
    assert rules["shorter"]["accuracy"] == 0.25
    assert (rules["reference"]["accuracy"], rules["reference"]["ties"]) == (0.5, 1)
    # A token: -0.8 over -1.25, -1.8 below -1.125, -0.67 over -1, -1 as -1.
    assert rules["reference_per_token"]["accuracy"] == 0.5
    assert all(len(rule["accuracy_interval"]) == 2 for rule in rules.values())


def test_few_prompts_are_told_what_they_cannot_say():
    found = pair_figures(examples([1.0, -1.0, 1.0]), 1.0)
    assert found["caution"].startswith("only 3 prompts: the accuracy is known to about 0.")
    assert "nor can it be told from a coin's 0.5" in found["caution"]
    assert "--test-size" in found["caution"]
    sure = pair_figures(examples([1.0] * 60), 1.0)
    assert "coin" not in sure["caution"]
    assert caution(pair_figures(examples([1.0] * 100), 1.0)) is None
    # A hundred pairs of one prompt are one prompt.
    assert "only 1 prompt:" in pair_figures(examples([1.0] * 100, prompt_id=0), 1.0)["caution"]


def test_a_file_or_an_annotator_whose_labels_are_turned_round_stands_out():
    table = examples(
        [1.0, 1.0, -1.0, -1.0, 1.0],
        source=["a.csv:1", "a.csv:2", "b:c.csv#1", "b:c.csv#2", None],
        annotator=["ann", "bob", "ann", "bob", None],
        note=[f"{number}" for number in range(5)],
        constant="x",
    )
    found = groups(table, 1.0, ["annotator", "constant"])
    assert found["file"]["a.csv"]["reward_accuracy"] == 1.0
    assert found["file"]["b:c.csv"]["reward_accuracy"] == 0.0
    assert found["annotator"]["ann"]["examples"] == 2
    assert found.keys() == {"file", "annotator"}
    many = examples([1.0] * 30, note=[str(number) for number in range(30)])
    assert groups(many, 1.0, ["note"]) == {}


def test_the_worst_are_those_against_their_label_strongest_first():
    table = examples([0.5, -3.0, -0.1, 0.0, -7.0])
    assert worst(table).index.tolist() == [4, 1, 2]
    assert len(worst(examples([-1.0 - n for n in range(50)]))) == 10


def test_a_histogram_counts_every_value_over_common_bins():
    draw = np.random.default_rng(0)
    values = {"one": draw.normal(size=1000), "two": np.append(draw.normal(3, 1, 999), 1e9)}
    found = histogram(values)
    assert sum(found["one"]) == sum(found["two"]) == 1000
    assert len(found["edges"]) == len(found["one"]) + 1
    assert found["edges"][-1] < 10
    assert sum(histogram({"same": np.zeros(5)})["same"]) == 5


def test_no_pairs_have_no_figures():
    found = pair_figures(examples([]), 1.0)
    assert (found["examples"], found["reward_accuracy"]) == (0, None)


@pytest.mark.parametrize("shift", [0.0, 2.5])
def test_likelihood_margins_are_before_and_after(shift):
    found = pair_figures(examples([shift] * 4), 1.0)["likelihood_margins"]
    middles = np.convolve(found["edges"], [0.5, 0.5], "valid")
    assert np.average(middles, weights=found["reference"]) == pytest.approx(0, abs=0.1)
    assert np.average(middles, weights=found["policy"]) == pytest.approx(shift, abs=0.1)

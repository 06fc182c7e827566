"""Tables, groups, comparisons and sampled answers of an evaluation, worked by hand."""

import math
import random

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from dpo_wrap.evaluation.evaluate import conversion_figures
from dpo_wrap.evaluation.examples import (
    LOGPS,
    as_text,
    groups,
    histogram,
    kept_columns,
    pair_figures,
    pair_table,
    paired_differences,
    with_answers,
    with_kept,
    worst,
)
from dpo_wrap.evaluation.models import (
    Sampled,
    answer_figures,
    answer_rows,
    choose_prompts,
    distinct,
    ratio_of_sums,
)

TOKENS = {
    "row": [0, 2, 3],
    "source": ["raw.csv:2", "raw.csv:5", "raw.csv:6"],
    "prompt_ids": [[1, 2], [3], [1, 2]],
    "chosen_ids": [[4, 0], [5, 5, 0], [6, 0]],
    "rejected_ids": [[7, 0], [0], [8, 8, 8]],
    "kept:annotator": ["ann", "bob", "ann"],
    "kept:win": ["a column with the name of a figure", "", ""],
    "kept:policy_answer_tokens": ["another", "", ""],
}
POLICY = [-1.0, -2.0, -3.0], [-4.0, -2.0, -1.0]
REFERENCE = [-2.0, -2.0, -2.0], [-3.0, -2.0, -2.5]
SCORES = dict(zip(LOGPS, (*POLICY, *REFERENCE), strict=True))
ANSWERS = [{"row": 2, "policy_log_ratio": 0.25, "policy_tokens": 7, "reference_tokens": 3}]


def scored(beta=0.5, paths=("data",), **changes):
    tokens = {name: values for name, values in (TOKENS | changes).items() if values is not None}
    return pair_table(Dataset.from_dict(tokens), SCORES, beta, paths)


def test_every_pair_has_its_figures_and_its_source():
    found = scored()
    assert found["source"].tolist() == TOKENS["source"]
    assert found["row"].tolist() == [0, 2, 3]
    assert found["prompt_id"].tolist() == [0, 1, 0]
    assert found["chosen_tokens"].tolist() == [2, 3, 2]
    assert found["chosen_log_ratio"].tolist() == [1.0, 0.0, -1.0]
    assert found["rejected_log_ratio"].tolist() == [-1.0, 0.0, 1.5]
    assert found["reward_margin"].tolist() == [1.0, 0.0, -1.25]
    assert found["win"].tolist() == [True, False, False]
    assert found["tie"].tolist() == [False, True, False]
    assert "dataset" not in found


def test_rows_of_several_datasets_have_their_path_and_a_source_may_be_missing():
    found = scored(paths=["a", "b"], source=None, dataset=[1, 0, 1])
    assert found["dataset"].tolist() == ["b", "a", "b"]
    assert found["source"].isna().all()
    assert scored(source=[7, 8, None])["source"].tolist()[:2] == ["7", "8"]


def test_sampled_answers_and_kept_columns_are_appended_to_their_pair():
    found = scored()
    both = with_answers(found, ANSWERS, {"sentiment_policy": [0.5]})
    assert both["policy_answer_tokens"].isna().tolist() == [True, False, True]
    assert both["policy_answer_log_ratio"][1] == 0.25
    assert both["sentiment_policy"][1] == 0.5
    assert both["reward_margin"].tolist() == found["reward_margin"].tolist()
    assert with_answers(found, [], {}) is found
    # A kept column with the name of a figure keeps its prefix.
    whole, names = with_kept(both, kept_columns(Dataset.from_dict(TOKENS)))
    assert names == ["annotator", "kept:win", "kept:policy_answer_tokens"]
    assert whole["annotator"].tolist() == ["ann", "bob", "ann"]
    assert whole["win"].tolist() == [True, False, False]
    assert whole["policy_answer_tokens"][1] == 7


@pytest.mark.parametrize(
    ("side", "text"),
    [
        ("plain", "plain"),
        ([{"role": "user", "content": "hi"}], "hi"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"x": 1}]}], '[{"x": 1}]'),
        (
            [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
            "system: be kind\nuser: hi",
        ),
    ],
)
def test_messages_are_shown_as_text(side, text):
    assert as_text(side) == text


def examples(margins, **columns):
    """A table of pairs with these margins at beta 1, each with its own prompt."""
    count = len(margins)
    defaults = {
        "row": range(count),
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
    return pd.DataFrame(defaults | columns)


def test_baselines_are_scored_on_the_same_rows():
    table = examples(
        [1.0, 1.0, -1.0, 0.5],
        chosen_tokens=[5, 5, 3, 4],
        reference_chosen_logps=[-4.0, -9.0, -2.0, -4.0],
        reference_rejected_logps=[-5.0, -4.5, -4.0, -4.0],
    )
    found = pair_figures(table, 1.0)
    baselines = found["baselines"]
    assert found["reward_accuracy"] == 0.75
    assert (baselines["longer"]["accuracy"], baselines["longer"]["ties"]) == (0.5, 1)
    assert baselines["shorter"]["accuracy"] == 0.25
    assert (baselines["reference"]["accuracy"], baselines["reference"]["ties"]) == (0.5, 1)
    # Per token: -0.8 over -1.25, -1.8 below -1.125, -0.67 over -1, -1 equal to -1.
    assert baselines["reference_per_token"]["accuracy"] == 0.5
    assert all(len(baseline["accuracy_interval"]) == 2 for baseline in baselines.values())


def test_few_prompts_get_a_caution():
    found = pair_figures(examples([1.0, -1.0, 1.0]), 1.0)
    assert found["caution"].startswith("Only 3 prompts were evaluated: the accuracy is known to")
    assert "--test-size" in found["caution"]
    assert pair_figures(examples([1.0] * 100), 1.0)["caution"] is None
    # A hundred pairs of one prompt are one prompt.
    one = pair_figures(examples([1.0] * 100, prompt_id=0), 1.0)
    assert one["caution"].startswith("Only 1 prompt was evaluated")


def test_figures_are_grouped_by_source_file_and_by_kept_column():
    table = examples(
        [1.0, 1.0, -1.0, -1.0, 1.0],
        source=["a.csv:1", "a.csv:2", "b:c.csv#1", "b:c.csv#2", None],
        annotator=["ann", "bob", "ann", "bob", None],
        constant="x",
    )
    found = groups(table, 1.0, ["annotator", "constant"])
    assert found["file"]["a.csv"]["reward_accuracy"] == 1.0
    assert found["file"]["b:c.csv"]["reward_accuracy"] == 0.0
    assert found["annotator"]["ann"]["examples"] == 2
    assert found.keys() == {"file", "annotator"}
    named = table.assign(file=["x", "y", "x", "y", "x"])
    assert groups(named, 1.0, ["file"]).keys() == {"file", "kept:file"}
    many = examples([1.0] * 30, note=[str(number) for number in range(30)])
    assert groups(many, 1.0, ["note"]) == {}


def test_the_worst_pairs_are_those_with_the_lowest_negative_margins():
    assert worst(examples([0.5, -3.0, -0.1, 0.0, -7.0])).index.tolist() == [4, 1, 2]
    assert len(worst(examples([-1.0 - n for n in range(50)]))) == 10


def test_a_histogram_counts_every_value_over_common_bins():
    draw = np.random.default_rng(0)
    values = {"one": draw.normal(size=1000), "two": np.append(draw.normal(3, 1, 999), 1e9)}
    found = histogram(values)
    assert sum(found["one"]) == sum(found["two"]) == 1000
    assert len(found["edges"]) == len(found["one"]) + 1
    assert found["edges"][-1] < 10
    assert sum(histogram({"same": np.zeros(5)})["same"]) == 5


def test_a_difference_of_accuracies_stays_between_minus_one_and_one():
    here, there = (examples([1.0] * 6, win=win) for win in (True, False))
    wins = paired_differences(here, there, [])["reward_accuracy"]
    assert wins["difference"] == 1.0 and wins["difference_interval"] == [1.0, 1.0]


SAMPLES = [
    Sampled(0, [1], policy_ids=[5, 6, 0], reference_ids=[5, 0], policy_log_ratio=1.5),
    Sampled(3, [2], policy_ids=[0], reference_ids=[7, 7, 7], policy_log_ratio=-0.5),
]


def test_kl_is_the_mean_of_the_log_ratios_of_the_policys_answers():
    figures = answer_figures(answer_rows(SAMPLES, [0]))
    assert figures["kl_per_sequence"] == pytest.approx(0.5)
    assert figures["kl_per_token"] == pytest.approx(1.0 / 4)
    assert figures["length_ratio"] == pytest.approx(4 / 5)
    for name in ("kl_per_sequence", "kl_per_token", "length_ratio"):
        low, high = figures[f"{name}_interval"]
        assert low < figures[name] < high
    none = answer_figures([])
    assert set(none.values()) == {None} and none.keys() == figures.keys()


def test_an_answer_ends_with_a_stop_token_that_is_not_counted_in_n_grams():
    first, second = answer_rows(SAMPLES, [0])
    assert (first["row"], second["row"]) == (0, 3)
    assert (second["reference_ended"], second["policy_ended"]) == (False, True)
    assert second["policy_distinct_1"] is None  # a stop token alone
    figures = answer_figures([first, second])
    assert figures["eos_rate"] == {"reference": 0.5, "policy": 1.0}
    # The reference's answers: one token, and the same token three times.
    assert figures["distinct_1"]["reference"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures["distinct_2"] == {"reference": 0.5, "policy": 1.0}
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([1], 2) is None


def test_the_interval_of_a_ratio_has_its_coverage():
    draw, covered = random.Random(0), 0
    for _ in range(300):
        below = [draw.randint(1, 40) for _ in range(150)]
        above = [0.3 * b + draw.gauss(0, math.sqrt(b)) for b in below]
        low, high = ratio_of_sums(above, below)[1]
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / 300 <= 0.98


def test_prompts_are_distinct_fit_the_context_and_depend_on_the_seed_alone():
    prompts, rows = [[n % 30, 1] for n in range(60)] + [[0] * 9], range(61)
    drawn = choose_prompts(prompts, rows, 10, seed=3, room=5)
    assert len({tuple(prompt) for prompt in drawn.values()}) == len(drawn) == 10
    assert all(prompts[row] == prompt for row, prompt in drawn.items())
    assert drawn == choose_prompts(prompts, rows, 10, seed=3, room=5)
    assert drawn != choose_prompts(prompts, rows, 10, seed=4, room=5)
    assert len(choose_prompts(prompts, rows, 1000, seed=0, room=5)) == 30
    assert len(choose_prompts(prompts, rows, 1000, seed=0, room=math.inf)) == 31


def test_runs_that_dropped_different_rows_get_the_same_prompts():
    prompts = [[n] for n in range(200)]
    whole = choose_prompts(prompts, range(200), 40, seed=1, room=math.inf)
    rows = [n for n in range(200) if n % 20]  # every twentieth was dropped
    rest = choose_prompts([prompts[n] for n in rows], rows, 40, seed=1, room=math.inf)
    assert len(whole.keys() & rest.keys()) >= 36
    assert all(rest[row] == prompts[row] for row in rest)


def test_presentation_order_and_agreement_are_summed_over_the_reports():
    one = {"order_by_split": {"test": {"pairs": 10, "first_wins": 6}}, "agreement": None}
    other = {"order_by_split": {"test": {"pairs": 5, "first_wins": 1}, "train": {"pairs": 9}}}
    found = conversion_figures([one, other, {"format": "an older report"}], "test")
    assert found == {"first_answer": {"accuracy": 7 / 15, "pairs": 15}, "ceiling": None}

    def report(*rows):
        per_annotator = [{"compared": compared, "differs": differs} for compared, differs in rows]
        return {"agreement": {"alpha": 0.4, "per_annotator": per_annotator}}

    found = conversion_figures([report((30, 0.1), (10, 0.5), (0, None))], "test")["ceiling"]
    assert found == {"share": pytest.approx((27 + 5) / 40), "judgements": 40, "alpha": 0.4}
    two = [report((10, 0.0)), report((10, 1.0))]
    assert conversion_figures(two, "test")["ceiling"]["share"] == 0.5

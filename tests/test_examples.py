"""The table of examples: a row a pair, its place in the source, its sampled answers beside."""

import pytest
from datasets import Dataset

from dpo_wrap.evaluation.examples import kept_columns, said, table, with_answers, with_kept
from dpo_wrap.evaluation.scoring import Scores

TOKENS = {
    "row": [0, 2, 3],
    "source": ["raw.csv:2", "raw.csv:5", "raw.csv:6"],
    "prompt_ids": [[1, 2], [3], [1, 2]],
    "chosen_ids": [[4, 0], [5, 5, 0], [6, 0]],
    "rejected_ids": [[7, 0], [0], [8, 8, 8]],
    "kept:annotator": ["ann", "bob", "ann"],
    "kept:win": ["a column of the name of ours", "", ""],
    "kept:policy_answer_tokens": ["another", "", ""],
}
SCORES = Scores([-1.0, -2.0, -3.0], [-4.0, -2.0, -1.0], [-2.0, -2.0, -2.0], [-3.0, -2.0, -2.5])


def test_every_pair_has_its_figures_and_its_place():
    found = table(Dataset.from_dict(TOKENS), SCORES, 0.5, ["data"])
    assert found["source"].tolist() == TOKENS["source"]
    assert found["row"].tolist() == [0, 2, 3]
    assert found["prompt_id"].tolist() == [0, 1, 0]  # pairs of one prompt know each other
    assert found["chosen_tokens"].tolist() == [2, 3, 2]
    assert found["chosen_log_ratio"].tolist() == [1.0, 0.0, -1.0]
    assert found["rejected_log_ratio"].tolist() == [-1.0, 0.0, 1.5]
    assert found["reward_margin"].tolist() == [1.0, 0.0, -1.25]
    assert found["win"].tolist() == [True, False, False]
    assert found["tie"].tolist() == [False, True, False]
    assert "dataset" not in found


def test_kept_columns_stand_behind_and_one_of_the_name_of_a_figure_keeps_its_mark():
    tokens = Dataset.from_dict(TOKENS)
    found = table(tokens, SCORES, 0.5, ["data"])
    answers = [{"row": 2, "policy_log_ratio": 0.25, "policy_tokens": 7}]
    whole, names = with_kept(with_answers(found, answers, {}), kept_columns(tokens))
    assert names == ["annotator", "kept:win", "kept:policy_answer_tokens"]
    assert whole["annotator"].tolist() == ["ann", "bob", "ann"]
    assert whole["win"].tolist() == [True, False, False]
    assert whole["policy_answer_tokens"][1] == 7


def test_rows_of_several_datasets_say_which_and_a_source_may_be_missing():
    tokens = {name: values for name, values in TOKENS.items() if name != "source"}
    found = table(Dataset.from_dict(tokens | {"dataset": [1, 0, 1]}), SCORES, 1.0, ["a", "b"])
    assert found["dataset"].tolist() == ["b", "a", "b"]
    assert found["source"].isna().all()
    numbered = table(Dataset.from_dict(TOKENS | {"source": [7, 8, None]}), SCORES, 1.0, ["a"])
    assert numbered["source"].tolist()[:2] == ["7", "8"]


def test_sampled_answers_stand_beside_their_pair():
    found = table(Dataset.from_dict(TOKENS), SCORES, 0.5, ["data"])
    answers = [{"row": 2, "policy_log_ratio": 0.25, "policy_tokens": 7, "reference_tokens": 3}]
    both = with_answers(found, answers, {"sentiment_policy": [0.5]})
    assert both["policy_answer_tokens"].isna().tolist() == [True, False, True]
    assert both["policy_answer_log_ratio"][1] == 0.25
    assert both["sentiment_policy"][1] == 0.5
    assert both["reward_margin"].tolist() == found["reward_margin"].tolist()
    assert with_answers(found, [], {}) is found


@pytest.mark.parametrize(
    ("side", "text"),
    [
        ("plain", "plain"),
        ([{"role": "user", "content": "hi"}], "hi"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant", "content": None, "tool_calls": [{"x": 1}]}], '[{"x": 1}]'),
        (
            [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
            "system: be kind\nuser: hi",
        ),
    ],
)
def test_a_side_is_said_as_text(side, text):
    assert said(side) == text

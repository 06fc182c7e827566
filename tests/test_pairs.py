"""diagnostics.pairs: pairs are found by their token ids, and answers compared by their tokens."""

import random
from types import SimpleNamespace

import pytest
from datasets import Dataset
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_wrap.diagnostics.pairs import (
    SAMPLE,
    answer_tokens,
    batch_rows,
    listed,
    similar_answers,
    similarity,
)


def row(prompt, chosen, rejected, **more):
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, **more}


def trainer(train, held_out=None, limit=None, mode="keep_start"):
    return SimpleNamespace(
        train_dataset=Dataset.from_list(train),
        eval_dataset=held_out and Dataset.from_list(held_out),
        args=SimpleNamespace(max_length=limit, truncation_mode=mode),
    )


def batch(rows, limit=None, mode="keep_start"):
    return DataCollatorForPreference(pad_token_id=0, max_length=limit, truncation_mode=mode)(rows)


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
def test_each_pair_of_a_batch_is_found_in_its_order(limit, mode):
    # With keep_end the cut leaves only the answers to tell rows apart.
    rows = [row([1, n], [2, 3, n], [5], source=f"a.csv:{n}") for n in range(10, 30)]
    picked = [rows[7], rows[4], rows[19]]
    found = batch_rows(trainer(rows, limit=limit, mode=mode), batch(picked, limit, mode))
    assert [name for name, _ in found] == ["a.csv:17", "a.csv:14", "a.csv:29"]


def test_the_tokens_of_a_pair_are_those_of_its_longer_side_after_the_cut():
    rows = [row([1, 1], [2, 3, 4], [5], source="a:1"), row([1, 2], [], [7] * 9, source="a:2")]
    found = batch_rows(trainer(rows, limit=8), batch(rows, limit=8))
    assert found == [("a:1", 5), ("a:2", 8)]


def test_a_row_without_a_source_is_named_by_its_split_and_position():
    held_out = [row([7], [2], [5]), row([8], [2], [5])]
    for_training = trainer([row([1], [2], [5])], held_out)
    assert batch_rows(for_training, batch(held_out[1:]))[0][0] == "test[1]"
    assert batch_rows(for_training, batch([row([2], [2], [5])]))[0][0] == "an unknown row"


def test_a_long_list_of_names_is_shortened():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 9, 4], 0.75),
        ([1, 2, 3, 4], [4, 3, 2, 1], 0.25),
        ([1, 2], [1, 2, 3, 3, 3, 3], 0.5),
        ([], [1], 0.0),
        ([], [], 0.0),
    ],
)
def test_similarity_is_the_share_of_tokens_in_common_and_in_order(one, other, expected):
    assert similarity(one, other) == expected


def test_similarity_agrees_with_the_textbook_table_of_the_longest_common_subsequence():
    draw = random.Random(0)
    for _ in range(100):
        one, other = ([draw.randrange(5) for _ in range(draw.randrange(80))] for _ in range(2))
        best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, x in enumerate(one):
            for j, y in enumerate(other):
                best[i + 1][j + 1] = (
                    best[i][j] + 1 if x == y else max(best[i][j + 1], best[i + 1][j])
                )
        expected = 2 * best[-1][-1] / max(1, len(one) + len(other))
        assert similarity(one, other) == similarity(other, one) == pytest.approx(expected)


def test_the_most_similar_pairs_come_first_and_almost_identical_ones_are_counted():
    rows = [
        row([1], [3, 4, 5, 6, 7], [8, 9, 10], source="a.csv:2"),
        row([1], [3, 4, 5, 6, 7], [3, 4, 5, 6, 8], source="a.csv:3"),
        row([1], [3, 4, 5, 6, 7], [3, 4, 5, 9, 8, 7]),
    ]
    share, closest = similar_answers(trainer(rows))
    assert share == pytest.approx(1 / 3)
    assert closest == "a.csv:3 (0.80), train[2] (0.73), a.csv:2 (0.00)"


@pytest.mark.parametrize(("mode", "tokens"), [("keep_start", 1.5), ("keep_end", 2.0)])
def test_answers_are_measured_after_the_cut(mode, tokens):
    rows = [row([1, 2], [3, 4, 5], [3, 9]), row([1, 2], [3], [4])]
    assert answer_tokens(trainer(rows, limit=4, mode=mode))["chosen"] == tokens


def test_a_long_dataset_is_sampled_and_the_sample_never_changes():
    rows = trainer([row([1], [1] * (number % 7), [2]) for number in range(SAMPLE + 500)])
    assert answer_tokens(rows) == answer_tokens(rows)
    assert answer_tokens(rows)["rejected"] == 1

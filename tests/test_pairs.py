"""diagnostics.pairs: pairs are found by their token ids, and answers compared by their tokens."""

import itertools
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
    found = batch_rows(
        trainer([row([1], [2], [5])], held_out), batch([held_out[1], row([], [], [])])
    )
    assert [name for name, _ in found] == ["test[1]", "an unknown row"]
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_similarity_is_the_share_of_tokens_in_common_and_in_order():
    assert similarity([1, 2, 3, 4], [1, 2, 9, 4]) == 0.75
    assert similarity([1, 2, 3, 4], [4, 3, 2, 1]) == 0.25
    assert similarity([], [1]) == similarity([], []) == 0
    draw = random.Random(0)
    for _ in range(100):
        one, other = ([draw.randrange(5) for _ in range(draw.randrange(80))] for _ in range(2))
        # The textbook's table of the longest common subsequence.
        best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, j in itertools.product(range(len(one)), range(len(other))):
            longer = max(best[i][j + 1], best[i + 1][j])
            best[i + 1][j + 1] = best[i][j] + 1 if one[i] == other[j] else longer
        expected = 2 * best[-1][-1] / max(1, len(one) + len(other))
        assert similarity(one, other) == pytest.approx(expected)


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


def test_of_many_pairs_the_same_sample_is_read_every_time():
    rows = trainer([row([1], [1] * (n % 7), [2]) for n in range(SAMPLE + 500)])
    assert answer_tokens(rows) == answer_tokens(rows)

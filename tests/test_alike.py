"""alike: the similarity of two answers, and what a sample of the pairs shows."""

import random
from types import SimpleNamespace

import pytest
from datasets import Dataset

from dpo_wrap.diagnostics.answer_similarity import SAMPLE, answer_tokens, similarity, survey


def by_table(one, other):
    """2 LCS / (length + length) by the table of the textbooks."""
    best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, x in enumerate(one):
        for j, y in enumerate(other):
            best[i + 1][j + 1] = best[i][j] + 1 if x == y else max(best[i][j + 1], best[i + 1][j])
    return 2 * best[-1][-1] / max(1, len(one) + len(other))


def trainer(rows, limit=None, mode="keep_start"):
    args = SimpleNamespace(max_length=limit, truncation_mode=mode)
    return SimpleNamespace(train_dataset=Dataset.from_list(rows), args=args, processing_class=None)


def row(chosen, rejected, **more):
    return {"prompt_ids": [1, 2], "chosen_ids": chosen, "rejected_ids": rejected, **more}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [1, 2, 9, 4], 0.75),
        ([1, 2, 3, 4], [4, 3, 2, 1], 0.25),
        ([1, 2], [1, 2, 3, 3, 3, 3], 0.5),
        ([1], [2], 0.0),
        ([], [1], 0.0),
        ([], [], 0.0),
    ],
)
def test_similarity_is_the_share_of_tokens_in_common_and_in_order(one, other, expected):
    assert similarity(one, other) == expected


def test_similarity_is_that_of_the_plain_table():
    draw = random.Random(0)
    for _ in range(300):
        one, other = ([draw.randrange(5) for _ in range(draw.randrange(80))] for _ in range(2))
        assert similarity(one, other) == pytest.approx(by_table(one, other))
        assert similarity(one, other) == similarity(other, one)


def test_the_most_alike_pairs_are_named_by_their_source():
    rows = [
        row([3, 4, 5, 6, 7], [8, 9, 10], source="a.csv:2"),
        row([3, 4, 5, 6, 7], [3, 4, 5, 6, 8], source="a.csv:3"),
        row([3, 4, 5, 6, 7], [3, 4, 5, 9, 8, 7], source="a.csv:4"),
    ]
    found = survey(trainer(rows))
    assert [name for name, _ in found.closest] == ["a.csv:3", "a.csv:4", "a.csv:2"]
    assert found.closest[0][1] == 0.8
    assert found.alike == pytest.approx(1 / 3)
    assert found.chosen_longer == pytest.approx(1 / 3)


def test_a_row_without_a_source_is_named_by_its_place():
    assert survey(trainer([row([3], [4]), row([3], [3, 4])])).closest[0][0] == "train[1]"


@pytest.mark.parametrize(("mode", "tokens"), [("keep_start", 1.5), ("keep_end", 2.0)])
def test_what_max_length_cuts_is_counted_and_not_looked_at(mode, tokens):
    rows = [row([3, 4, 5], [3, 9]), row([3], [4])]
    found = survey(trainer(rows, limit=4, mode=mode))
    assert found.cut == 0.5
    assert answer_tokens(trainer(rows, limit=4, mode=mode))["chosen"] == tokens


def test_of_many_pairs_the_same_sample_is_taken_every_time():
    rows = [row([number, 1], [number, 2]) for number in range(SAMPLE + 500)]
    first, again = (survey(trainer(rows)) for _ in range(2))
    assert first.pairs == SAMPLE
    assert first == again

"""rows: the pairs of a batch are found again in the splits, by their ids."""

from types import SimpleNamespace

import pytest
from datasets import Dataset
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_wrap.diagnostics.batch_rows import Row, listed, rows_in


def row(number, **more):
    ids = {"prompt_ids": [1, number], "chosen_ids": [2, 3, 4], "rejected_ids": [5]}
    return ids | more


def trainer(train, held_out=None, limit=None, mode="keep_start"):
    return SimpleNamespace(
        train_dataset=Dataset.from_list(train),
        eval_dataset=held_out,
        args=SimpleNamespace(max_length=limit, truncation_mode=mode),
        processing_class=None,
    )


def batch(rows, limit=None, mode="keep_start"):
    return DataCollatorForPreference(pad_token_id=0, max_length=limit, truncation_mode=mode)(rows)


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
def test_each_pair_of_a_batch_is_found_in_its_order(limit, mode):
    rows = [row(number, source=f"a.csv:{number}") for number in range(10, 30)]
    rows[4] |= {"chosen_ids": [9]}
    if mode == "keep_end":  # which may cut all that tells rows apart
        rows = [r | {"chosen_ids": [3, r["prompt_ids"][1]]} for r in rows]
    picked = [rows[7], rows[4], rows[19]]
    found = rows_in(trainer(rows, limit=limit, mode=mode), batch(picked, limit, mode))
    assert [pair.name for pair in found] == ["a.csv:17", "a.csv:14", "a.csv:29"]


def test_the_longer_answer_as_it_is_cut_counts():
    rows = [row(1, source="a:1"), row(2, source="a:2", chosen_ids=[], rejected_ids=[7] * 9)]
    assert rows_in(trainer(rows, limit=8), batch(rows, limit=8)) == [Row("a:1", 5), Row("a:2", 8)]


def test_held_out_rows_are_found_in_one_split_or_in_several():
    train, held_out = [row(1)], Dataset.from_list([row(7), row(8)])
    several = {"one": Dataset.from_list([row(5)]), "two": held_out}
    picked = batch([row(8)])
    assert rows_in(trainer(train, held_out), picked)[0].name == "test[1]"
    assert rows_in(trainer(train, several), picked)[0].name == "two[1]"


def test_a_row_that_stands_nowhere_is_not_guessed():
    assert rows_in(trainer([row(1)]), batch([row(2)]))[0].name == "a row that was not found again"


def test_many_names_are_shortened():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"

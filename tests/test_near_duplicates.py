"""Test prompts that are in train except for case and punctuation: which, how many, and where."""

import random

import numpy as np
import pytest
from converting import pair, use_small_blocks, user, write_lines

from data_tools.dedupe import Split
from data_tools.keys import prompt_key
from data_tools.near_duplicates import NearDuplicates


def found(keys, parts=1):
    """The keys that are in both splits, noted in several parts that are merged."""
    candidates = np.unique(np.array([k for k, in_test in keys if in_test], np.uint64))
    whole = NearDuplicates()
    for part in range(parts):
        some, mine = NearDuplicates(candidates), keys[part::parts]
        some.add(np.array([k for k, _ in mine], np.uint64), np.array([t for _, t in mine], bool))
        whole.merge(some)
    return whole.found().tolist()


def test_a_key_counts_once_and_only_where_it_is_in_both_splits():
    assert found([(1, False), (1, False), (2, True), (2, True)]) == []
    keys = [(9, True), (7, True), (7, True), (5, True), (7, False), (7, False), (5, False)]
    assert found(keys) == [5, 7]


def test_parts_that_are_merged_find_what_the_whole_does():
    for seed in range(100):
        dice = random.Random(seed)
        keys = [(dice.randrange(8), dice.random() < 0.5) for _ in range(40)]
        splits = [{key for key, in_test in keys if in_test is side} for side in (True, False)]
        for parts in (1, 2, 7):
            assert found(keys, parts) == sorted(splits[0] & splits[1])


def spelt(split, word):
    """The word in some capitals, such that the split of one half puts it in this split."""
    halves = Split(0.5, 0)
    for number in range(300):
        shown = "".join(c.upper() if number >> at & 1 else c for at, c in enumerate(word))
        if halves.in_test(prompt_key(shown)) == (split == "test"):
            return shown
    raise AssertionError(f"no spelling of {word} is in {split}")


@pytest.mark.parametrize("block", [4_000_000, 40], ids=["one block", "many blocks"])
def test_the_first_kept_test_prompt_that_is_in_train_too_is_the_example(
    convert_file, monkeypatch, block
):
    use_small_blocks(monkeypatch, block=block)
    prompts = [
        spelt("train", "abcdefgh"),
        spelt("test", "nothing alike"),
        spelt("test", "ijklmnop"),  # contradictory below, so it is not the first that is kept
        spelt("train", "ijklmnop"),
        spelt("test", "abcdefgh"),
        spelt("test", "abcdefgh"),
        spelt("test", "qrstuvwx"),
        spelt("train", "qrstuvwx"),
    ]
    records = [pair(number, prompt=prompt) for number, prompt in enumerate(prompts)]
    records.append(records[2] | {"chosen": "R2", "rejected": "C2"})
    done = convert_file(records, "--test-size", "0.5", "--workers", "1")
    assert done.report["warnings"] == {"alike_across_splits": 2}
    assert done.report["warning_examples"] == {"alike_across_splits": "raw.jsonl:5"}
    assert "          2 alike_across_splits   raw.jsonl:5: test prompts that equal on" in done.out


def test_the_example_may_be_in_a_later_file_and_another_form(convert_file, tmp_path):
    one, other = spelt("train", "abcdefgh"), spelt("test", "abcdefgh")
    write_lines(tmp_path / "z.jsonl", [pair(7, prompt="?"), pair(8, prompt=other)])
    done = convert_file([pair(1, prompt=[user(one)])], "z.jsonl", "--test-size", "0.5")
    assert done.report["warning_examples"] == {"alike_across_splits": "z.jsonl:2"}

"""Test prompts that are in train except for case and punctuation: which, how many, and where."""

import pytest
from converting import pair, use_small_blocks, user, write_lines

from data_tools.keys import prompt_key
from data_tools.splits import Split


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

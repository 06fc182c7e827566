"""Prompts of test that stand in train but for case and punctuation: which, how many, and where."""

import json
import random

import numpy as np
import pytest

from data_tools.alike import AlikePrompts
from data_tools.keys import prompt_key
from data_tools.odd import loose_key
from data_tools.readers import stretches
from data_tools.settle import Split


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def alike(*prompts, pieces=1):
    """How many prompts of test stand in train too, found in several pieces and then together."""
    keys = [(loose_key(prompt), split == "test") for split, prompt in prompts]
    keys = [(key, in_test) for key, in_test in keys if key is not None]
    found = AlikePrompts()
    candidates = np.unique(np.array([key for key, in_test in keys if in_test], np.uint64))
    for piece in range(pieces):
        some = AlikePrompts(candidates)
        mine = keys[piece::pieces]
        some.add(np.array([k for k, _ in mine], np.uint64), np.array([t for _, t in mine], bool))
        found.merge(some)
    return len(found.found())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2 + 2?", "what is 2+2"),
        ("STRASSE", "straße!"),
        ("Café", "cafe\u0301…"),
        ("Hello", [user("hello!")]),
        ([user("A b"), assistant("c"), user("d")], [user("a-b"), assistant("C."), user("D?")]),
    ],
)
def test_prompts_alike_but_for_case_and_punctuation_are_found_across_the_splits(one, other):
    assert alike(("train", one), ("test", other)) == 1
    assert alike(("test", one), ("train", other)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("two words", "two worlds"),
        ("1 2", "3"),
        ("\u0915\u093f", "\u0915\u093e"),  # Devanagari: one letter, two vowel signs
        ("?", "!"),  # nothing is left of either
        ([user("a"), assistant("b"), user("c")], [user("ab"), assistant(""), user("c")]),
    ],
)
def test_prompts_of_other_letters_are_not_alike(one, other):
    assert alike(("train", one), ("test", other)) == 0


def test_prompts_alike_within_one_split_are_nobodys_leak():
    assert alike(("train", "a"), ("train", "A"), ("test", "b"), ("test", "B!")) == 0


def test_alike_prompts_of_test_count_once_however_often_they_stand():
    prompts = [("test", "x"), ("test", "a?"), ("test", "A"), ("test", "b"), ("train", "a")]
    assert alike(*prompts, ("train", "a!"), ("train", "B")) == 2


def test_pieces_together_find_what_the_whole_does():
    for seed in range(100):
        chance = random.Random(seed)
        words = [chance.choice("abcdefgh") + chance.choice(" .!") for _ in range(40)]
        prompts = [(chance.choice(("train", "test")), word) for word in words]
        letters = {s: {w[0] for split, w in prompts if split == s} for s in ("train", "test")}
        found = len(letters["train"] & letters["test"])
        assert [alike(*prompts, pieces=count) for count in (1, 2, 7)] == [found] * 3


def test_keys_that_no_test_prompt_has_are_not_held():
    found = AlikePrompts(np.array([2, 5], np.uint64))
    found.add(np.arange(10, dtype=np.uint64), np.zeros(10, bool))
    assert found._train.tolist() == [2, 5]
    alone = AlikePrompts()
    alone.add(np.arange(10, dtype=np.uint64), np.zeros(10, bool))
    assert alone._train.tolist() == []


# Through the command, which finds the place of the first one.


def on_side(split, word, forms=300):
    """A form of a word, told apart by its case, that the split of one half puts on this side."""
    halves = Split(0.5, 0)
    for number in range(forms):
        shown = "".join(c.upper() if number >> at & 1 else c for at, c in enumerate(word))
        if halves.in_test(prompt_key(shown)) == (split == "test"):
            return shown
    raise AssertionError(f"no form of {word} is in {split}")


def pair(prompt, number):
    return {"prompt": prompt, "chosen": f"C{number}", "rejected": "R"}


@pytest.mark.parametrize("size", [stretches.SIZE, 40])
def test_the_first_kept_pair_of_test_that_is_alike_is_the_example(convert_file, monkeypatch, size):
    monkeypatch.setattr(stretches, "SIZE", size)
    prompts = [
        on_side("train", "abcdefgh"),
        on_side("test", "nothing alike"),
        on_side("test", "ijklmnop"),  # contradictory below, so it is not the first that is kept
        on_side("train", "ijklmnop"),
        on_side("test", "abcdefgh"),
        on_side("test", "abcdefgh"),
        on_side("test", "qrstuvwx"),
        on_side("train", "qrstuvwx"),
    ]
    records = [pair(prompt, number) for number, prompt in enumerate(prompts)]
    records.append(records[2] | {"chosen": "R", "rejected": "C2"})
    done = convert_file(records, "--test-size", "0.5", "--workers", "1")
    assert done.report["warnings"] == {"alike_across_splits": 2}
    assert done.report["warning_examples"] == {"alike_across_splits": "raw.jsonl:5"}


def test_the_example_may_stand_in_a_later_file(convert_file, tmp_path):
    one, other = on_side("train", "abcdefgh"), on_side("test", "abcdefgh")
    (tmp_path / "z.jsonl").write_text(json.dumps(pair("?", 7)) + "\n" + json.dumps(pair(other, 8)))
    done = convert_file([pair(one, 1)], "z.jsonl", "--test-size", "0.5")
    assert done.report["warning_examples"] == {"alike_across_splits": "z.jsonl:2"}

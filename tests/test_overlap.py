"""What several datasets share, on rows worked by hand."""

from datasets import Dataset

from dpo_wrap.data.overlap import drop_train_test_overlap


def prompt_key(prompt):
    return prompt.encode().ljust(16, b".")


def pair_key(row):
    first, second = sorted((row["chosen"], row["rejected"]))
    key = f"{row['prompt']}{first}{second}".encode().ljust(16, b".")
    return key, row["chosen"] == first


def rows(*words):
    """`pab`: to the prompt p the answer a was better than b."""
    return Dataset.from_list(
        [dict(zip(("prompt", "chosen", "rejected"), w, strict=True)) for w in words]
    )


def told(*parts):
    notes = []
    paths = [f"d{n}" for n in range(len(parts))]
    made = [{split: rows(*words) for split, words in part.items()} for part in parts]
    return drop_train_test_overlap(made, paths, prompt_key, pair_key, notes), notes


def words(part):
    return ["".join(row[n] for n in ("prompt", "chosen", "rejected")) for row in part]


def test_a_prompt_that_one_tests_on_is_trained_on_by_none():
    parts, notes = told({"train": ["pab", "qab"], "test": ["rab"]}, {"train": ["rcd", "sab"]})
    assert [words(part["train"]) for part in parts] == [["pab", "qab"], ["sab"]]
    assert words(parts[0]["test"]) == ["rab"]
    assert list(parts[1]["train"]["dataset"]) == [1]
    assert notes == [
        "d0: 2 pairs to train on, 1 held out",
        "d1: 1 pairs to train on, 0 held out",
        "train: 1 pairs left out, as their prompts are held out for test",
    ]


def test_rows_that_nothing_is_left_out_of_stay_in_their_order():
    parts, notes = told({"train": ["pab", "qab"]}, {"train": ["rab"]})
    assert [words(part["train"]) for part in parts] == [["pab", "qab"], ["rab"]]
    assert len(notes) == 2


def test_both_ways_is_told_from_once_more():
    _, notes = told({"train": ["pab", "qab", "rab"]}, {"train": ["pba", "qab", "rac", "qab"]})
    assert [note[:40] for note in notes[2:]] == [
        "train: 1 comparisons are judged both way",
        "train: 1 pairs stand in another of the d",
    ]


def test_a_pair_of_three_datasets_counts_for_each_after_the_first():
    _, notes = told({"train": ["pab"]}, {"train": ["pab"]}, {"train": ["pab"]})
    assert notes[-1].startswith("train: 2 pairs stand in another")

"""Advice in a message leads to success: each refusal is provoked, and what it proposes is done."""

import re
from itertools import takewhile

import pytest
from converting import assistant, pair, user

LABELLED = [{"prompt": f"P{n}", "response_a": f"x{n}", "response_b": f"y{n}"} for n in range(6)]


def with_labels(*labels, **more):
    return [record | {"winner": w, **more} for record, w in zip(LABELLED, labels, strict=False)]


def words(message, start):
    """The option `start` with the words FIELD=VALUE after it."""
    option, *after = message[message.index(start) :].split()
    return [option, *(word.rstrip(",;") for word in takewhile(lambda word: "=" in word, after))]


REFUSALS = {
    "bare numbers": (with_labels(1, 2, 1, 2), "--label"),
    "booleans": (with_labels(True, False, True), "--label"),
    "a scale": (with_labels(1, 2, 3, 4, 5), "--label"),
    "a signed scale": (with_labels(-2, -1, 0, 1, 2), "--label"),
    "an even scale": (with_labels(1, 2, 3, 4), "--label"),
    "pointers": (
        [r | {"chosen": "A", "rejected": "B"} for r in LABELLED],
        "--map",
    ),
    "two labels": (with_labels("A", "B", preference="A"), "--map"),
    "an order of answers": (
        [r | {"winner": "A", "swapped": bool(n % 2)} for n, r in enumerate(LABELLED)],
        "--map",
    ),
    "text without a prompt": (
        [{"chosen": "C", "rejected": "R", "task": "Say hello"}],
        "--map",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_the_options_of_a_refusal_succeed(convert_file, case):
    records, option = REFUSALS[case]
    done = convert_file(records)
    assert (done.status, done.rows) == (2, [])
    followed = convert_file(records, *words(done.err.partition("(columns")[0], option))
    assert (followed.status, followed.err) == (0, "")
    assert followed.rows


PAIRS = [pair(n) for n in range(4)]
OTHER_ANSWERS = {
    "kto": [
        r | {"completion": f"z{n}", "label": n > 1, "prompt": "P"} for n, r in enumerate(PAIRS)
    ],
    "alpaca-eval": [
        r | {"instruction": f"I{n}", "output_1": "x", "output_2": "y", "preference": 1}
        for n, r in enumerate(PAIRS)
    ],
    "labelled-pairs": [record | pair(n, winner="A") for n, record in enumerate(LABELLED)],
}


@pytest.mark.parametrize("name", OTHER_ANSWERS)
def test_either_of_two_formats_of_the_same_records_can_be_chosen(convert_file, name):
    refused = convert_file(OTHER_ANSWERS[name])
    assert refused.status == 2 and "more than one format fits" in refused.err
    format = re.search(r"--format [\w-]+", refused.err)[0].split()
    ways = format, words(refused.err, "--map")
    done = [convert_file(OTHER_ANSWERS[name], *way) for way in ways]
    assert [run.status for run in done] == [0, 0]
    assert done[0].rows[0]["chosen"] != done[1].rows[0]["chosen"]


def test_the_texts_of_the_pair_in_other_columns_are_no_second_format(convert_file):
    records = [
        r | {"response_a": r["chosen"], "response_b": f" {r['rejected']}", "winner": "A"}
        for r in PAIRS
    ]
    assert convert_file(records).report["format"] == "preference"


def test_either_of_two_formats_can_be_chosen(convert_file):
    records = [pair(1), {"messages": [user("P"), assistant("C")], "rejected_response": "R"}]
    done = convert_file(records)
    names = re.search(r"--format (\S+),", done.err)[1].split("|")
    assert (done.status, len(names)) == (2, 2)
    for name in names:
        assert convert_file(records, "--format", name).status == 0


def test_unknown_columns_can_be_mapped_as_proposed(convert_file):
    records = [{"task": "P", "good": "C", "bad": "R"}]
    done = convert_file(records)
    assert "--map prompt=COLUMN chosen=COLUMN rejected=COLUMN" in done.err
    followed = convert_file(records, "--map", "prompt=task", "chosen=good", "rejected=bad")
    assert followed.status == 0


def test_bytes_that_do_not_decode_are_read_with_the_encoding_proposed(convert_file):
    text = "prompt,chosen,rejected\ncaf\u00e9,C,R\nP,C,R\n".encode("cp1252")
    done = convert_file(text, name="a.csv")
    assert len(done.rows) == 1
    option = re.search(r"(--encoding), e\.g\. (\w+)", done.rejects[0]["detail"]).groups()
    assert convert_file(text, *option, name="a.csv").rows[0]["prompt"] == "caf\u00e9"


def test_judgements_without_a_majority_are_kept_with_the_mode_proposed(convert_file):
    records = [
        {**LABELLED[0], "winner": w, "annotator": who} for w, who in (("A", "ann"), ("B", "bob"))
    ]
    done = convert_file(records)
    assert [reject["reason"] for reject in done.rejects] == ["disagreement"]
    option = re.search(r"(--annotators) (\w+)", done.rejects[0]["detail"]).groups()
    assert len(convert_file(records, *option).rows) == 2


def test_answers_in_between_are_paired_with_the_mode_proposed(convert_file):
    records = [{"prompt": "P", "response": f"r{n}", "score": n} for n in range(3)]
    done = convert_file(records)
    option = re.search(r"(--pairs) (all)", done.rejects[0]["detail"]).groups()
    assert len(convert_file(records, *option).rows) == 3


def test_the_splits_of_a_note_are_kept_with_its_option(convert_file):
    records = [pair(n, split="test" if n == 3 else "train") for n in range(6)]
    (note,) = convert_file(records).report["notes"]
    followed = convert_file(records, re.search(r"--keep-splits", note)[0])
    assert followed.report["splits"] == {"train": 5, "test": 1}


def test_another_output_directory_is_used_where_one_may_not_be_replaced(convert_file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    done = convert_file([pair()])
    assert (done.status, "-o" in done.err) == (2, True)
    assert convert_file([pair()], "-o", "other").status == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "x"

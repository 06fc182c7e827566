"""--map: every layout of a prompt and its answers, by column, by path and by template."""

import json
import shlex
from pathlib import Path

import pytest
from converting import assistant, pair, user


def kept(done):
    def text(side):
        return side if isinstance(side, str) else side[-1]["content"]

    return [
        tuple(text(row[side]) for side in ("prompt", "chosen", "rejected")) for row in done.rows
    ]


def reasons(done):
    return [(reject["line"], reject["reason"]) for reject in done.rejects]


DOCUMENT = Path(__file__).parents[1] / "docs" / "mapping.md"
EXAMPLES = [
    [cell.strip(" `") for cell in line.strip("|\n").split(" | ")]
    for line in DOCUMENT.read_text("utf-8").splitlines()
    if line.startswith("| `{")
]


@pytest.mark.parametrize(("record", "options", "expected"), EXAMPLES)
def test_an_example_of_the_document_gives_its_pairs(convert_file, record, options, expected):
    done = convert_file([json.loads(record)], *shlex.split(options))
    assert done.status == 0, done.err

    def text(side):
        return side if isinstance(side, str) else " ".join(turn["content"] for turn in side)

    found = [[text(row[side]) for side in ("prompt", "chosen", "rejected")] for row in done.rows]
    assert ", ".join(f"{p}: {c} > {r}" for p, c, r in found) == expected.strip()


def test_mapped_tools_are_carried_as_json(convert_file):
    record = {"q": "P", "fns": [{"name": "f"}], "good": "g", "bad": "b"}
    words = ["prompt=q", "tools=fns", "chosen=good", "rejected=bad"]
    (row,) = convert_file([record], "--map", *words).rows
    assert json.loads(row["tools"]) == [{"name": "f"}]


def test_a_rated_answer_a_record_is_compared_with_the_others_to_its_prompt(convert_file):
    records = [{"q": "P", "r": f"r{n}", "stars": n} for n in (2, 5, 3)] + [
        {"q": "Q", "r": "x", "stars": 1}
    ]
    done = convert_file(records, "--map", "prompt=q", "response=r", "score=stars")
    assert kept(done) == [("P", "r5", "r2")]
    assert reasons(done) == [(3, "unpaired"), (4, "unpaired")]
    done = convert_file(
        records, "--map", "prompt=q", "response=r", "score=stars", "--min-margin", "9"
    )
    assert {reason for _, reason in reasons(done)} == {"tie", "unpaired"}


def test_a_template_makes_a_text_of_several_columns(convert_file):
    records = [{"question": "Q?", "passage": "Facts.", "good": "g", "bad": "b"}]
    words = ["prompt={passage}\n\n{question}", "chosen=good", "rejected=bad"]
    done = convert_file(records, "--map", *words)
    assert kept(done) == [("Facts.\n\nQ?", "g", "b")]
    assert done.report["columns"]["unread"] == {}
    escaped = convert_file(records, "--map", "prompt={passage}\\n{question}", *words[1:])
    assert kept(escaped) == [("Facts.\nQ?", "g", "b")]


def test_a_template_with_a_missing_value_rejects_the_record(convert_file):
    records = [
        {"q": "Q", "p": None, "good": "g", "bad": "b"},
        {"q": "Q", "p": "F", "good": "g", "bad": "b"},
    ]
    done = convert_file(records, "--map", "prompt={p} {q}", "chosen=good", "rejected=bad")
    assert reasons(done) == [(1, "missing_field")]
    assert "p" in done.rejects[0]["detail"]


def test_whole_dialogues_are_mapped_without_a_prompt(convert_file):
    records = [{"x": [user("P"), assistant("C")], "y": [user("P"), assistant("R")]}]
    assert kept(convert_file(records, "--map", "chosen=x", "rejected=y")) == [("P", "C", "R")]
    shared = [{"from": "human", "value": "P"}]
    records = [
        {"x": [*shared, {"from": "gpt", "value": t}], "y": [*shared, {"from": "gpt", "value": "R"}]}
        for t in "CD"
    ]
    assert kept(convert_file(records, "--map", "chosen=x", "rejected=y")) == [
        ("P", "C", "R"),
        ("P", "D", "R"),
    ]


def test_several_columns_of_annotators_are_one_label(convert_file):
    text = "q,x,y,ann,bob,cem\nP,1,2,A,A,B\nQ,1,2,B,,B\nR,1,2,A,B,tie\n"
    done = convert_file(text, "--map", "prompt=q", "a=x", "b=y", "label=ann,bob,cem", name="a.csv")
    assert kept(done) == [("P", "1", "2"), ("Q", "2", "1")]
    assert reasons(done) == [(4, "disagreement")]
    assert done.report["agreement"]["annotators"] == 3
    assert {row["annotator"] for row in done.report["agreement"]["per_annotator"]} == {
        "ann",
        "bob",
        "cem",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prompt=q responses=r", "label or scores or ranks or ranking"),
        ("prompt=q a=x b=y", "label"),
        ("prompt=q a=x b=y score_a=s", "score_b"),
        ("prompt=q a=x b=y label=l score_a=s score_b=t", "one way"),
        ("prompt=q response=r", "score"),
        ("prompt=q chosen=x rejected=y label=l", "one way"),
        ("prompt=nothing.there chosen=x rejected=y", "nothing"),
        ("prompt={nothing} chosen=x rejected=y", "nothing"),
        ("promt=q chosen=x rejected=y", "prompt"),
    ],
)
def test_an_incomplete_mapping_is_refused_with_what_is_missing(convert_file, words, message):
    record = dict.fromkeys("qxyrslt", "1") | {"r": ["1", "2"]}
    done = convert_file([record], "--map", *words.split())
    assert done.status == 2
    assert message in done.err


def test_every_column_of_a_mapped_file_is_accounted_for(convert_file):
    records = [{"data": {"q": "P", "id": 1}, "good": "g", "bad": "b", "more": "x"}]
    done = convert_file(records, "--map", "prompt=data.q", "chosen=good", "rejected=bad")
    assert done.report["columns"]["unread"] == {"more": 1}
    assert done.report["columns"]["read"] == ["bad", "data", "good"]


def test_a_mapped_column_may_be_kept_under_a_name_with_a_comma(convert_file):
    text = '"question, asked",good,bad\nP,g,b\n'
    done = convert_file(
        text, "--map", "prompt=question, asked", "chosen=good", "rejected=bad", name="a.csv"
    )
    assert kept(done) == [("P", "g", "b")]


def test_an_order_that_does_not_name_every_answer_once_is_rejected(convert_file):
    records = [
        {"q": "P", "x": "1", "y": "2", "o": order}
        for order in ("A", "A>A", "A>B>C", "B=A", "B>A", None)
    ]
    done = convert_file(records, "--map", "prompt=q", "a=x", "b=y", "ranking=o")
    assert kept(done) == [("P", "2", "1")]
    assert reasons(done) == [
        (1, "unknown_label"),
        (2, "unknown_label"),
        (3, "unknown_label"),
        (4, "tie"),
        (6, "null_label"),
    ]


def test_a_position_in_a_list_needs_its_label_defined(convert_file):
    records = [{"q": f"P{n}", "r": ["x", "y"], "w": n % 2} for n in range(4)]
    done = convert_file(records, "--map", "prompt=q", "responses=r", "label=w")
    assert done.status == 2
    assert "--label first=" in done.err
    done = convert_file(
        records, "--map", "prompt=q", "responses=r", "label=w", "--label", "first=0,second=1"
    )
    assert kept(done)[:2] == [("P0", "x", "y"), ("P1", "y", "x")]


def test_a_constant_prompt_is_a_template_without_a_column(convert_file):
    records = [{"good": "g", "bad": "b"}, {"good": "h", "bad": "b"}]
    done = convert_file(records, "--map", "prompt={}Write a poem.", "chosen=good", "rejected=bad")
    assert kept(done) == [("Write a poem.", "g", "b"), ("Write a poem.", "h", "b")]


def test_a_mapped_dialogue_prompt_keeps_its_turns(convert_file):
    records = [pair(1, turns=[user("hi"), assistant("hello"), user("P")])]
    done = convert_file(records, "--map", "prompt=turns", "chosen=chosen", "rejected=rejected")
    assert [m["content"] for m in done.rows[0]["prompt"]] == ["hi", "hello", "P"]

"""The command from end to end: what is kept and rejected where, statuses, messages, accounting."""

import json
import os
from pathlib import Path

import pytest

from data_tools import convert
from data_tools.convert import Options, main
from data_tools.formats import FORMATS
from data_tools.record import ConvertError


def pair(number=1, **more):
    return {"prompt": f"P{number}", "chosen": f"C{number}", "rejected": f"R{number}"} | more


def files(directory="."):
    """Every file below `directory` with its bytes."""
    found = (path for path in sorted(Path(directory).rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


# What is kept, what is rejected, and where.


def test_a_csv_becomes_a_dataset_whose_rows_name_their_lines(convert_file):
    text = 'prompt,chosen,rejected\nP1,C1,R1\n"P\n2",C2,R2\nP3,C3,R3\n'
    done = convert_file(text, name="a.csv")
    assert done.status == 0
    assert done.err == ""
    assert done.rows == [
        pair(1, source="a.csv:2"),
        pair(2, prompt="P\n2", source="a.csv:3"),
        pair(3, source="a.csv:5"),
    ]
    assert sorted(os.listdir("out")) == [
        "README.md",
        "dataset_dict.json",
        "rejects.jsonl",
        "report.json",
        "train",
    ]


def test_every_reason_is_told_with_its_place_and_nothing_is_lost(convert_file):
    lines = [
        json.dumps(pair(1)),
        '{"prompt": "\\ud800"}',
        '{"prompt": "\\u0000"}',
        "{",
        "[1]",
        json.dumps({"prompt": "P"}),
        json.dumps(pair(2, chosen=[{"role": "user", "content": "x"}])),
        json.dumps(pair(3, prompt=[{"role": "assistant", "content": "x"}])),
        json.dumps(pair(4, prompt=" ")),
        json.dumps(pair(5, chosen="")),
        json.dumps(pair(6, rejected="C6 ")),
        json.dumps(pair(7, rejected="R" * 300)),
        json.dumps(pair(8)),
        json.dumps(pair(9, chosen="a", rejected="b")),
        json.dumps(pair(9, chosen="b", rejected="a")),
        "",
        json.dumps(pair(1, note="again")),
        "caf\udce9",
    ]
    Path("rows.jsonl").write_text('{"source": "raw.jsonl:13"}')
    content = "\n".join(lines).encode(errors="surrogateescape")
    done = convert_file(content, "--max-chars", "200", "--exclude-rows", "rows.jsonl")
    assert done.status == 0
    assert [(item["line"], item["record"], item["reason"]) for item in done.rejects] == [
        (2, 2, "bad_encoding"),
        (3, 3, "nul_byte"),
        (4, 4, "bad_json"),
        (5, 5, "wrong_type"),
        (6, 6, "missing_field"),
        (7, 7, "history_mismatch"),
        (8, 8, "bad_roles"),
        (9, 9, "empty_prompt"),
        (10, 10, "empty_response"),
        (11, 11, "identical_pair"),
        (12, 12, "overlong"),
        (13, 13, "excluded"),
        (14, 14, "contradictory"),
        (15, 15, "contradictory"),
        (17, 16, "duplicate"),
        (18, 17, "bad_encoding"),
    ]
    assert done.rejects[2] == {
        "file": "raw.jsonl",
        "line": 4,
        "record": 4,
        "reason": "bad_json",
        "detail": "this is not valid JSON: Expecting property name enclosed in double quotes at "
        "character 2; mend the record or leave it out",
        "raw": "{",
    }
    assert done.rejects[-2]["raw"] == pair(1, note="again")
    assert done.rejects[-1]["raw"] == r"caf\xe9"
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1"]
    assert done.report["records"] == {"read": 17, "converted": 1, "rejected": 16}
    assert done.report["pairs"] == {"made": 10, "kept": 1, "rejected": 9}


def test_labelled_pairs_follow_their_label_and_ties_are_told(convert_file):
    text = "question,answer1,answer2,label\nQ1,A,B,1\nQ2,A,B,2\nQ3,A,B,0\nQ4,A,B,\nQ5,A,B,9\n"
    done = convert_file(text, "--label", "first=1,second=2,tie=0", name="raw.csv")
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in done.rows] == [
        ("Q1", "A", "B"),
        ("Q2", "B", "A"),
    ]
    assert [(item["line"], item["reason"]) for item in done.rejects] == [
        (4, "tie"),
        (5, "null_label"),
        (6, "unknown_label"),
    ]
    assert done.report["first_answer_wins"] == 0.5


def test_a_record_that_gives_several_pairs_counts_once_and_its_pairs_each(convert_file):
    record = {"prompt": "P", "response_a": "A", "response_b": "B", "response_c": "C", "label": "c"}
    done = convert_file([record, record | {"response_b": ""}, record | {"label": "tie"}])
    assert [(row["chosen"], row["rejected"]) for row in done.rows] == [("C", "A"), ("C", "B")]
    assert [(item["record"], item["reason"]) for item in done.rejects] == [
        (2, "duplicate"),
        (2, "empty_response"),
        (3, "tie"),
    ]
    assert done.report["records"] == {"read": 3, "converted": 1, "rejected": 2}
    assert done.report["pairs"] == {"made": 4, "kept": 2, "rejected": 2}


def test_text_and_messages_mixed_all_become_messages(convert_file):
    said = [{"role": "user", "content": "P2"}]
    done = convert_file([pair(1), pair(2, prompt=said)])
    assert done.rows[0]["prompt"] == [{"role": "user", "content": "P1"}]
    assert done.rows[0]["chosen"] == [{"role": "assistant", "content": "C1"}]
    assert done.rows[1]["prompt"] == said


def test_dialogues_with_a_text_prompt_keep_the_prompt_out_of_the_answers(convert_file):
    def dialogue(text):
        return [{"role": "user", "content": "P"}, {"role": "assistant", "content": text}]

    done = convert_file([{"prompt": "P", "chosen": dialogue("C"), "rejected": dialogue("R")}])
    assert done.rows[0]["prompt"] == dialogue("")[:1]
    assert done.rows[0]["chosen"] == dialogue("C")[1:]


def test_answers_that_repeat_their_prompt_lose_it_and_the_report_says_so(convert_file):
    records = [pair(i, chosen=f"P{i} C", rejected=f"P{i} R") for i in range(3)]
    done = convert_file(records)
    assert [row["chosen"] for row in done.rows] == [" C", " C", " C"]
    assert "note      the answers begin with their prompt, which was taken off them" in done.out


def test_a_stray_record_is_told_which_shape_it_looks_like(convert_file):
    stray = {"question": "Q", "answer1": "A", "answer2": "B", "label": "a"}
    done = convert_file([pair(i) for i in range(200)] + [stray])
    assert done.rejects[0]["reason"] == "missing_field"
    assert done.rejects[0]["detail"] == (
        "prompt is missing or null; give it a text; it looks like labelled-pairs"
    )
    late = convert_file([pair(i) for i in range(1000)] + [stray] * 50)
    assert late.report["reasons"] == {"missing_field": 50}


@pytest.mark.parametrize("value", ["NA", "None", "null", "007", "True", "2024-01-01", "nan", "1e5"])
def test_a_cell_is_the_text_that_it_is(convert_file, value):
    done = convert_file(f"prompt,chosen,rejected\n{value},{value}!,{value}?\n", name="a.csv")
    assert done.rows[0]["prompt"] == value
    assert done.rows[0]["chosen"] == f"{value}!"


def test_kept_columns_travel_as_text(convert_file):
    done = convert_file(
        [pair(1, note=7, **{" tag ": None}), pair(2, note={"a": 1}), pair(3, tag="x")],
        "--keep",
        "note",
        "--keep",
        "tag",
    )
    assert [(row["note"], row["tag"]) for row in done.rows] == [
        ("7", None),
        ('{"a": 1}', None),
        (None, "x"),
    ]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("colour", "--keep colour: no such column; there are chosen, prompt, rejected"),
        ("source", "--keep source: the dataset has a column of that name anyway"),
    ],
)
def test_a_column_that_cannot_be_kept_is_refused(convert_file, column, message):
    done = convert_file([pair()], "--keep", column)
    assert (done.status, done.err) == (2, f"convert: {message}\n")
    done = convert_file([pair()], "--keep", "prompt", "--keep", "prompt")
    assert done.err == "convert: --keep prompt: is given twice; give it once\n"


def test_columns_named_like_ours_do_no_harm(convert_file):
    done = convert_file([pair(1, source="mine", train="x", tools=[], system="")])
    assert done.rows == [pair(1, source="raw.jsonl:1", tools="[]")]


# Statuses.


def test_when_no_pair_is_kept_the_rejects_stand_beside_until_the_next_success(convert_file):
    done = convert_file([pair(1, chosen="")])
    assert (done.status, done.err) == (1, "convert: no pair was kept: no dataset was written\n")
    assert "rejects   out.rejects.jsonl" in done.out
    assert done.rejects[0]["reason"] == "empty_response"
    assert sorted(os.listdir()) == ["out.rejects.jsonl", "raw.jsonl"]
    assert convert_file([pair(1)]).status == 0
    assert sorted(os.listdir()) == ["out", "raw.jsonl"]


def test_strict_leaves_no_dataset_and_an_older_one_as_it_was(convert_file):
    assert convert_file([pair(1)], "--strict").status == 0
    before = files("out")
    done = convert_file([pair(1), pair(1)], "--strict")
    assert (done.status, done.err) == (
        1,
        "convert: --strict, and something was rejected: no dataset was written\n",
    )
    assert files("out") == before
    beside = json.loads(Path("out.rejects.jsonl").read_text())
    assert beside["reason"] == "duplicate"


def test_check_reads_everything_and_writes_nothing(convert_file):
    done = convert_file([pair(1), pair(1)], "--check")
    assert done.status == 0
    assert "pairs     2 made, 1 kept, 1 rejected" in done.out
    assert "dataset" not in done.out
    assert os.listdir() == ["raw.jsonl"]
    done = convert_file([pair(1, chosen="")], "--check")
    assert (done.status, done.err) == (1, "convert: no pair was kept\n")
    assert convert_file([pair(1), pair(1)], "--check", "--strict").status == 1
    assert os.listdir() == ["raw.jsonl"]


def test_check_needs_no_place_to_write(convert_file):
    os.makedirs("out")
    Path("out/thesis.tex").write_text("mine")
    assert convert_file([pair()], "--check").status == 0


def test_json_prints_the_report_and_nothing_else_on_stdout(convert_file):
    done = convert_file([pair(1), pair(2, prompt="café"), pair(1)], "--json")
    assert json.loads(done.out) == done.report
    assert done.err == ""
    done = convert_file([pair(1, chosen="")], "--json", "--check")
    assert json.loads(done.out)["reasons"] == {"empty_response": 1}
    assert done.err == "convert: no pair was kept\n"


@pytest.mark.parametrize("content", ["", "\n\n", "﻿"])
def test_an_empty_input_is_status_one(convert_file, content):
    done = convert_file(content)
    assert (done.status, done.err) == (1, "convert: raw.jsonl: no records, the input is empty\n")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        (["--format", "nonsense"], "--format nonsense: unknown; known are preference"),
        (["--label", "1,2"], "--label 1,2: write --label first=X,second=Y"),
        (["--label", ""], "--label : write --label first=X,second=Y"),
        (["--label", "first=1,second=2"], "--label: the format preference has no label"),
        (["--map", "prompt=q"], "--map prompt=q: no such column; there are chosen, prompt"),
        (["--map", "question=prompt"], "--map question=prompt: unknown field 'question'"),
        (["--encoding", "utf-9"], "--encoding utf-9: no such encoding"),
        (["--exclude-rows", "gone"], "--exclude-rows gone: cannot be read (No such file"),
    ],
)
def test_an_option_that_does_not_fit_the_data_is_status_two_and_one_line(
    convert_file, options, begins
):
    done = convert_file([pair()], *options)
    assert done.status == 2
    assert done.err.startswith(f"convert: {begins}")
    assert done.err.count("\n") == 1
    assert os.listdir() == ["raw.jsonl"]


def test_a_file_that_breaks_off_late_leaves_no_dataset(convert_file):
    text = "[" + ",\n".join(json.dumps(pair(i)) for i in range(1200)) + ',\n{"prompt": "x'
    done = convert_file(text, name="raw.json")
    assert (done.status, done.err) == (
        2,
        "convert: raw.json: the array is unfinished: it breaks off on line 1201 after record "
        "1200; fetch the file again\n",
    )
    assert os.listdir() == ["raw.json"]


def test_a_header_of_whole_texts_makes_no_endless_message(convert_file):
    done = convert_file(f'{"long " * 5000},"two\nlines",c\n1,2,3\n', name="raw.csv")
    assert done.status == 2
    assert "two_lines" in done.err
    assert done.err.count("\n") == 1
    assert len(done.err) < 500


def test_the_list_of_formats_shows_each_with_its_polarity_and_an_example(capsys):
    assert main(["--list-formats"]) == 0
    printed = capsys.readouterr().out
    assert printed == convert.list_formats() + "\n"
    assert "labelled-pairs\n  A prompt, two to four answers in the order shown, and a" in printed
    assert printed.count("\n  polarity  ") == printed.count("\n  example   {") == len(FORMATS)


def test_convert_is_a_function_too(tmp_path):
    raw = tmp_path / "raw.jsonl"
    raw.write_text(json.dumps(pair()))
    done = convert.convert(Options((str(raw),), str(tmp_path / "out")))
    assert (done.status, done.figures["pairs"]["kept"]) == (0, 1)
    assert done.text().startswith("format    preference: 1 of the first 1 records fit")
    with pytest.raises(ConvertError, match="gone.csv: no such file"):
        convert.convert(Options((str(tmp_path / "gone.csv"),), str(tmp_path / "out")))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "data").glob("*.*")), ids=lambda path: path.name
)
def test_every_sample_that_is_shipped_converts(path, capsys):
    assert main([str(path), "--check"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_exactly_the_listed_pairs_are_excluded_and_a_repeat_that_stays_is_said(
    convert_file, tmp_path, workers
):
    def pair(prompt, chosen, rejected):
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    records = [
        *(pair("P", "good", "bad"), pair("Q", "bad", "good"), pair("Q", "bad ", "good")),
        *(pair("R", "bad", "good"), pair("R", "good", "bad"), pair("P", "good", "bad")),
    ]
    listed = "".join(f'{{"source": "raw.jsonl:{line}"}}\n' for line in (2, 4, 6))
    (tmp_path / "wrong.jsonl").write_text(listed, "utf-8")
    done = convert_file(records, "--exclude-rows", "wrong.jsonl", "--workers", workers)
    # What contradicted line 5 is gone, so it stays; line 6 is excluded before it is a duplicate.
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1", "raw.jsonl:3", "raw.jsonl:5"]
    assert done.report["reasons"] == {"excluded": 3}
    notes = [note for note in done.report["notes"] if "is listed in --exclude-rows" in note]
    assert [note.partition(": ")[0] for note in notes] == ["raw.jsonl:1", "raw.jsonl:3"]
    assert "as raw.jsonl:2; list this place too" in notes[1] and notes[1] in done.out

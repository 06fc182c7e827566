"""The command from end to end: what is kept and rejected where, statuses, messages and inputs."""

import io
import json
import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest
from converting import (
    as_lines,
    assistant,
    contents,
    pair,
    read_lines,
    use_small_blocks,
    user,
    write_lines,
)
from stepping import run_to_step

from data_tools.convert import list_formats, main
from data_tools.formats import FORMATS


def reasons(done):
    """(line, reason) of every reject."""
    return [(reject["line"], reject["reason"]) for reject in done.rejects]


# What is kept, what is rejected, and where.


def test_a_csv_becomes_a_dataset_whose_rows_name_their_lines(convert_file):
    text = 'prompt,chosen,rejected\nP1,C1,R1\n"P\n2",C2,R2\nP3,C3,R3\n'
    done = convert_file(text, name="a.csv")
    assert (done.status, done.err) == (0, "")
    assert done.rows == [
        pair(1, source="a.csv:2"),
        pair(2, prompt="P\n2", source="a.csv:3"),
        pair(3, source="a.csv:5"),
    ]
    files = ["README.md", "dataset_dict.json", "rejects.jsonl", "report.json", "train"]
    assert sorted(os.listdir("out")) == files


def test_every_reason_is_reported_with_its_place_and_all_counts_add_up(convert_file):
    lines = [
        json.dumps(pair(1)),
        '{"prompt": "\\ud800"}',
        '{"prompt": "\\u0000"}',
        "{",
        "[1]",
        json.dumps({"prompt": "P"}),
        json.dumps(pair(2, chosen=[user("x")])),
        json.dumps(pair(3, prompt=[assistant("x")])),
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
    write_lines("rows.jsonl", [{"source": "raw.jsonl:13"}])
    content = "\n".join(lines).encode(errors="surrogateescape")
    done = convert_file(content, "--max-chars", "200", "--exclude-rows", "rows.jsonl")
    assert done.status == 0
    codes = "bad_encoding nul_byte bad_json wrong_type missing_field history_mismatch bad_roles "
    codes += "empty_prompt empty_response identical_pair overlong excluded contradictory"
    expected = [(line, line, code) for line, code in enumerate(codes.split(), start=2)]
    last = [(15, 15, "contradictory"), (17, 16, "duplicate"), (18, 17, "bad_encoding")]
    found = [(reject["line"], reject["record"], reject["reason"]) for reject in done.rejects]
    assert found == expected + last
    detail = done.rejects[6].pop("detail")
    assert detail.startswith("turn 1 is from assistant after nothing (chosen); fix the turns")
    assert done.rejects[6] == {
        "file": "raw.jsonl",
        "line": 8,
        "record": 8,
        "reason": "bad_roles",
        "raw": pair(3, prompt=[assistant("x")]),
    }
    assert done.rejects[2]["raw"] == "{"
    assert done.rejects[-2]["raw"] == pair(1, note="again")
    assert done.rejects[-1]["raw"] == r"caf\xe9"
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1"]
    assert done.report["records"] == {"read": 17, "converted": 1, "rejected": 16}
    assert done.report["pairs"] == {"made": 10, "kept": 1, "rejected": 9}
    assert sum(done.report["reasons"].values()) == 16


def test_columns_with_the_names_of_ours_do_no_harm(convert_file):
    done = convert_file([pair(1, source="mine", train="x", tools=[], system="")])
    assert done.rows == [pair(1, source="raw.jsonl:1", tools="[]")]


# Pairs that are compared with all others.


def test_a_pair_that_differs_only_in_form_is_a_duplicate_that_names_the_first(convert_file):
    first = pair(1, prompt="café x")
    others = [first | {"prompt": " cafe\u0301\tx\n"}, first | {"chosen": "C1 ", "note": "n"}]
    others.append(first | {"prompt": [user("café  x", name=None)]})
    done = convert_file([pair(0), first, *others])
    assert reasons(done) == [(line, "duplicate") for line in (3, 4, 5)]
    assert {r["detail"] for r in done.rejects} == {"the same pair is at raw.jsonl:2, which is kept"}
    assert [reject["raw"] for reject in done.rejects] == others


def test_a_contradictory_group_is_rejected_as_a_whole(convert_file):
    sides = [("a", "b"), ("a", "c"), ("b", "a"), ("a", "b ")]
    done = convert_file([pair(1, chosen=c, rejected=r) for c, r in sides])
    assert reasons(done) == [(line, "contradictory") for line in (1, 3, 4)]
    assert {reject["detail"] for reject in done.rejects} == {
        "the same two answers to this prompt are also judged the other way; the first of these "
        "pairs is at raw.jsonl:1; decide which is right and remove the others"
    }
    assert [row["source"] for row in done.rows] == ["raw.jsonl:2"]


def test_duplicates_and_contradictions_are_found_over_files(convert_file, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/b.csv").write_text("prompt,chosen,rejected\nP1,C1,R1\nP2,R2,C2\nP3,C3,R3\n")
    done = convert_file([pair(1), pair(2)], "more", "--workers", "1")
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1", "more/b.csv:4"]
    assert [reject["file"] for reject in done.rejects] == ["raw.jsonl", "more/b.csv", "more/b.csv"]
    assert reasons(done) == [(2, "contradictory"), (2, "duplicate"), (3, "contradictory")]
    assert done.rejects[1]["detail"] == "the same pair is at raw.jsonl:1, which is kept"


@pytest.mark.parametrize("block", [4_000_000, 60], ids=["one block", "many blocks"])
def test_exactly_the_listed_pairs_are_excluded_and_equal_ones_elsewhere_are_noted(
    convert_file, monkeypatch, block
):
    use_small_blocks(monkeypatch, block=block)
    sides = [("P", "good", "bad"), ("Q", "bad", "good"), ("Q", "bad ", "good")]
    sides += [("R", "bad", "good"), ("R", "good", "bad"), ("P", "good", "bad")]
    write_lines("rows.jsonl", [{"source": f"raw.jsonl:{line}"} for line in (2, 4, 6)])
    records = [dict(zip(("prompt", "chosen", "rejected"), side, strict=True)) for side in sides]
    done = convert_file(records, "--exclude-rows", "rows.jsonl", "--workers", "1")
    # Line 4, which contradicted line 5, is gone, so 5 is kept; 6 is excluded, not a duplicate.
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1", "raw.jsonl:3", "raw.jsonl:5"]
    assert done.report["reasons"] == {"excluded": 3}
    assert done.report["notes"] == [
        f"raw.jsonl:{line}: kept, though the same pair is listed in --exclude-rows as "
        f"raw.jsonl:{listed}; list this place too, if neither is wanted"
        for line, listed in ((1, 6), (3, 2))
    ]


def test_excluded_sources_that_are_of_no_pair_are_noted(convert_file):
    write_lines("rows.jsonl", [{"source": "other.jsonl:1"}])
    done = convert_file([pair()], "--exclude-rows", "rows.jsonl")
    note = "--exclude-rows: none of its 1 sources is of a pair; write them as in this dataset's own"
    assert (done.status, done.report["notes"]) == (0, [f"{note} source column"])


def splits():
    """The prompts of each split."""
    lines = {name: read_lines(f"out/{name}.jsonl") for name in ("train", "test")}
    return {name: {row["prompt"] for row in rows} for name, rows in lines.items()}


def test_the_split_depends_on_the_prompt_alone_and_not_on_other_rows(convert_file):
    options = ("--to", "jsonl", "--test-size", "0.3")
    records = [pair(i // 2, chosen=f"C{i}") for i in range(400)]
    assert convert_file(records, *options).status == 0
    before = splits()
    assert not before["train"] & before["test"]
    assert 35 < len(before["test"]) < 85  # 60 of 200 expected
    random.Random(0).shuffle(records)
    counts = {name: len(prompts) for name, prompts in before.items()} | {"shared": 0}
    assert convert_file(records, *options).report["prompts"] == counts
    assert splits() == before
    convert_file(records[::3], *options)
    assert splits()["test"] == before["test"] & {record["prompt"] for record in records[::3]}
    convert_file(records, *options, "--seed", "1")
    assert splits() != before


def test_where_train_would_be_empty_every_pair_is_in_train(convert_file):
    done = convert_file([pair()], "--test-size", "0.999999")
    assert done.report["splits"] == {"train": 1, "test": 0}
    assert done.report["notes"] == ["train would have been empty, so every pair is in train"]


# Exit statuses.


def test_when_no_pair_is_kept_the_rejects_are_next_to_the_target_until_the_next_success(
    convert_file,
):
    done = convert_file([pair(1, chosen="")])
    assert (done.status, done.err) == (1, "convert: no pair was kept: no dataset was written\n")
    assert "rejects   out.rejects.jsonl" in done.out
    assert reasons(done) == [(1, "empty_response")]
    assert sorted(os.listdir()) == ["out.rejects.jsonl", "raw.jsonl"]
    assert convert_file([pair(1)]).status == 0
    assert sorted(os.listdir()) == ["out", "raw.jsonl"]


def test_strict_leaves_no_dataset_and_an_older_one_unchanged(convert_file):
    assert convert_file([pair(1)], "--strict").status == 0
    before = contents("out")
    done = convert_file([pair(1), pair(1)], "--strict")
    message = "convert: --strict, and something was rejected: no dataset was written\n"
    assert (done.status, done.err, reasons(done)) == (1, message, [(2, "duplicate")])
    assert contents("out") == before


def test_check_reads_everything_and_writes_nothing(convert_file):
    done = convert_file([pair(1), pair(1)], "--check")
    assert done.status == 0
    assert "pairs     2 made, 1 kept, 1 rejected" in done.out
    assert "dataset" not in done.out
    done = convert_file([pair(1, chosen="")], "--check")
    assert (done.status, done.err) == (1, "convert: no pair was kept\n")
    done = convert_file([pair(1), pair(1)], "--check", "--strict")
    assert (done.status, done.err) == (1, "convert: --strict, and something was rejected\n")
    assert os.listdir() == ["raw.jsonl"]
    Path("out").write_text("mine")
    assert convert_file([pair()], "--check").status == 0


def test_json_prints_the_report_and_nothing_else_on_stdout(convert_file):
    done = convert_file([pair(1), pair(2, prompt="café"), pair(1)], "--json")
    assert json.loads(done.out) == done.report
    assert done.err == ""
    done = convert_file([pair(1, chosen="")], "--json", "--check")
    assert json.loads(done.out)["reasons"] == {"empty_response": 1}
    assert done.err == "convert: no pair was kept\n"


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_input_is_status_one(convert_file, content):
    done = convert_file(content)
    assert (done.status, done.err) == (1, "convert: raw.jsonl: no records, the input is empty\n")
    assert not Path("out").exists()


REFUSED = {
    "--format nonsense": "--format nonsense: unknown; known are preference",
    "--label 1,2": "--label 1,2: write --label first=X,second=Y",
    "--label=": "--label : write --label first=X,second=Y",
    "--label first=1,second=2": "--label: the format preference has no label",
    "--map prompt=q": "--map prompt=q: no such column; there are chosen, prompt",
    "--map question=prompt": "--map question=prompt: unknown field 'question'",
    "--encoding utf-9": "--encoding utf-9: no such encoding",
    "--exclude-rows gone": "--exclude-rows gone: cannot be read (No such file",
    "--keep colour": "--keep colour: no such column; there are chosen, prompt, rejected",
    "--keep source": "--keep source: the dataset has a column of that name already",
    "--keep prompt --keep prompt": "--keep prompt: is given twice; give it once",
    "gone.csv": "gone.csv: no such file; check the path (it is taken as given)",
}


@pytest.mark.parametrize("options", REFUSED)
def test_an_option_that_does_not_fit_the_data_is_status_two_and_one_line(convert_file, options):
    done = convert_file([pair()], *options.split())
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"convert: {REFUSED[options]}")
    assert os.listdir() == ["raw.jsonl"]


def test_a_file_that_breaks_off_late_leaves_no_dataset(convert_file):
    text = "[" + ",\n".join(json.dumps(pair(i)) for i in range(1200)) + ',\n{"prompt": "x'
    done = convert_file(text, name="raw.json")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert re.match("convert: raw.json: .* breaks off on line 1201 after record 1200; ", done.err)
    assert os.listdir() == ["raw.json"]


# Inputs.


def test_standard_input_is_read_as_json_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stdin = io.BytesIO(as_lines(map(pair, range(3))).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
    assert main(["-", "--to", "jsonl", "--test-size", "0"]) == 0
    assert "3 read, 3 converted" in capsys.readouterr().out
    assert json.loads(Path("data/stdin/report.json").read_text())["inputs"] == ["-"]
    assert [row["source"] for row in read_lines("data/stdin/train.jsonl")] == ["-:1", "-:2", "-:3"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"prompt,chosen\na,b\n")))
    assert main(["-"]) == 2
    assert "-: standard input is JSON Lines; save anything else" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["-"]) == 2
    assert capsys.readouterr().err == (
        "convert: -: standard input is closed; pipe the records in or name a file\n"
    )


def test_directories_give_all_their_files_in_order_and_a_repeated_one_once(convert_file):
    os.makedirs("more/deeper")
    write_lines("more/deeper/c.jsonl", [pair(3)])
    write_lines("more/b.ndjson", [pair(2)])
    Path("more/notes.txt").write_text("none of ours")
    done = convert_file([pair(1)], "more", "raw.jsonl", "more/b.ndjson", "--workers", "1")
    assert done.report["inputs"] == ["raw.jsonl", "more/b.ndjson", "more/deeper/c.jsonl"]
    assert [row["prompt"] for row in done.rows] == ["P1", "P2", "P3"]
    assert done.report["notes"] == ["raw.jsonl: is named twice and read once"]


def test_how_a_file_was_read_is_reported_where_no_format_fits(convert_file):
    answers = [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]
    done = convert_file(json.dumps({"prompt": "P", "answers": answers}), name="raw.json")
    assert done.status == 2
    assert done.err.endswith("(raw.json: the records are the list under 'answers')\n")


@pytest.mark.parametrize("name", ["raw.jsonl", "raw.json"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, name):
    """Another text of the same length, five milliseconds later by the clock of the file system."""

    def write(number):
        Path(name).write_text(json.dumps(pair(number)))
        os.utime(name, ns=(10**18, 10**18 + 5_000_000 * number))

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    message = f"convert: {name}: changed while it was read; convert it again once it is complete"
    found = ""
    for step in range(100):
        write(1)
        argv = [name, "-o", "out", "--workers", "1"]
        status, err = run_to_step(argv, step, lambda: write(2))
        assert (status, err[: len(message)]) in ((0, ""), (1, message))
        found += str(status)
        if status == 0 and step > 5:
            break
    assert found.lstrip("0")[:-1] == "1" * found.count("1") and found.count("1") > 10


# The terminal, and Python.


def test_a_reader_that_closes_its_pipe_is_no_failure(convert_file, monkeypatch):
    class Closed(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    convert_file([pair()])
    for stdout in (Closed(), None):
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["raw.jsonl", "-o", "out"]) == 0


def test_the_handlers_of_signals_are_restored(convert_file):
    before = signal.getsignal(signal.SIGTERM)
    convert_file([pair()])
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_terminal_without_unicode_still_shows_the_report(convert_file, monkeypatch):
    convert_file([pair(1, prompt="é" * 200, chosen=[["é"]]), pair()])
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["raw.jsonl", "-o", "out"]) == 0
    assert rb"\xe9" in terminal.buffer.getvalue()


def test_listing_the_formats_shows_each_with_its_polarity_and_an_example(capsys):
    assert main(["--list-formats"]) == 0
    printed = capsys.readouterr().out
    assert printed == list_formats() + "\n"
    assert "labelled-pairs\n  A prompt, two to four answers in the order shown, and a" in printed
    assert printed.count("\n  polarity  ") == printed.count("\n  example   {") == len(FORMATS)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "data").glob("*.*")), ids=lambda path: path.name
)
def test_every_sample_that_is_shipped_converts(path, capsys):
    assert main([str(path), "--check"]) == 0
    assert capsys.readouterr().err == ""

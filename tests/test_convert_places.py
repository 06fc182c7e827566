"""Where the command reads and writes: collisions, foreign places, full disks, signals."""

import io
import json
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from data_tools import block, conversion, first_pass, second_pass, settle, swap, writer
from data_tools.convert import main


def pair(number=1, **more):
    return {"prompt": f"P{number}", "chosen": f"C{number}", "rejected": f"R{number}"} | more


def files(directory="."):
    """Every file below `directory` with its bytes."""
    found = (path for path in sorted(Path(directory).rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_without_o_the_dataset_goes_under_data_by_the_first_inputs_name(convert_file, capsys):
    convert_file([pair()], name="pairs.v1.jsonl")
    assert main(["pairs.v1.jsonl"]) == 0
    assert Path("data/pairs.v1/dataset_dict.json").exists()
    assert "dataset   data/pairs.v1\n" in capsys.readouterr().out


def test_several_files_are_one_dataset(convert_file, capsys):
    convert_file([pair(1)], name="a.jsonl")
    Path("more").mkdir()
    Path("more/b.csv").write_text("prompt,chosen,rejected\nP2,C2,R2\nP1,C1,R1\n")
    assert main(["a.jsonl", "-o", "both", "more"]) == 0
    rejects = json.loads(Path("both/rejects.jsonl").read_text())
    assert (rejects["file"], rejects["reason"]) == ("more/b.csv", "duplicate")
    assert rejects["detail"] == "the same pair stands at a.jsonl:1, which is kept"


def test_standard_input_is_read_as_json_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "".join(json.dumps(pair(i)) + "\n" for i in range(3))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["-"]) == 0
    assert "3 read, 3 converted" in capsys.readouterr().out
    assert json.loads(Path("data/stdin/report.json").read_text())["inputs"] == ["-"]


def test_a_closed_standard_input_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["-"]) == 2
    assert capsys.readouterr().err == (
        "convert: -: standard input is closed; pipe the records in or name a file\n"
    )


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["raw"], "raw"),
        (["raw/in.jsonl"], "raw"),
        (["raw/in.jsonl"], "."),
        (["raw/in.jsonl"], "raw/in.jsonl"),
        (["link/in.jsonl"], "raw"),
        (["raw"], "link"),
    ],
)
def test_an_output_over_an_input_is_refused(convert_file, capsys, inputs, output):
    convert_file([pair()])
    os.makedirs("raw")
    os.rename("raw.jsonl", "raw/in.jsonl")
    os.symlink("raw", "link")
    before = files()
    assert main([*inputs, "-o", output]) == 2
    assert capsys.readouterr().err.startswith(
        f"convert: {output}: this is where the input {inputs[0]} stands; name another output with"
    )
    assert files() == before


def test_the_default_output_may_collide_with_the_input_too(convert_file, capsys):
    convert_file([pair()])
    os.makedirs("data/raw")
    os.rename("raw.jsonl", "data/raw/raw.jsonl")
    assert main(["data/raw"]) == 2
    assert capsys.readouterr().err == (
        "convert: data/raw: this is where the input data/raw stands; name another output with -o\n"
    )


def test_a_foreign_directory_is_refused_and_left_untouched(convert_file):
    os.makedirs("out")
    Path("out/thesis.tex").write_text("mine")
    done = convert_file([pair()])
    assert (done.status, done.err) == (
        2,
        "convert: out: exists, and it holds thesis.tex; it is left alone, "
        "choose another place with -o\n",
    )
    assert files("out") == {"thesis.tex": b"mine"}


@pytest.mark.parametrize("text", ["{}", "not json", "[]", '{"records": 1}'])
def test_a_directory_that_only_looks_like_ours_is_refused(convert_file, text):
    os.makedirs("out/train")
    Path("out/report.json").write_text(text)
    Path("out/train/state.json").write_text("mine")
    done = convert_file([pair()])
    assert (done.status, done.err) == (
        2,
        "convert: out: exists, and it was not written by this command; it is left alone, "
        "choose another place with -o\n",
    )
    assert files("out")["train/state.json"] == b"mine"


def test_our_own_dataset_is_replaced_whole(convert_file):
    convert_file([pair(i) for i in range(40)], "--test-size", "0.5")
    done = convert_file([pair(1)], "--to", "parquet")
    assert done.status == 0
    assert sorted(os.listdir("out")) == [
        "README.md",
        "rejects.jsonl",
        "report.json",
        "train.parquet",
    ]
    assert sorted(os.listdir()) == ["out", "raw.jsonl"]


# A disk or a terminal that does not play along.


def test_a_place_that_cannot_be_written_is_one_clear_line(convert_file, monkeypatch):
    convert_file([pair()])
    before = files("out")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(swap.tempfile, "mkdtemp", refuse)
    done = convert_file([pair(2)])
    assert (done.status, done.err) == (
        1,
        "convert: out: cannot be written (Read-only file system); free some space or choose "
        "another place with -o\n",
    )
    assert files("out") == before


def test_a_file_where_a_folder_is_needed_is_one_clear_line(convert_file, capsys):
    convert_file([pair()])
    assert main(["raw.jsonl", "-o", "raw.jsonl/deeper"]) == 1
    assert capsys.readouterr().err.startswith("convert: raw.jsonl/deeper: cannot be written (")


@pytest.mark.parametrize("to", ["arrow", "parquet", "jsonl"])
def test_a_full_disk_is_one_clear_line_and_the_older_dataset_stands(convert_file, to):
    convert_file([pair()])
    before = files("out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = [pair(i, chosen=os.urandom(3000).hex()) for i in range(100)]
    Path("big.jsonl").write_text("".join(json.dumps(record) + "\n" for record in big))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        done = convert_file([pair()], "big.jsonl", "--to", to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.status == 1
    assert done.err.startswith("convert: out: cannot be written (")
    assert done.err.endswith("); free some space or choose another place with -o\n")
    assert done.err.count("\n") == 1
    assert files("out") == before
    assert sorted(os.listdir()) == ["big.jsonl", "out", "raw.jsonl"]


def test_no_place_for_temporary_files_is_one_clear_line(convert_file, monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(conversion.tempfile, "TemporaryDirectory", refuse)
    done = convert_file([pair()], "--check")
    assert (done.status, done.err) == (
        1,
        "convert: a temporary file: cannot be written (No usable temporary directory found); "
        "free some space or set TMPDIR to another place\n",
    )


def test_standard_input_that_cannot_be_copied_for_want_of_a_place_is_one_clear_line(
    monkeypatch, capsys
):
    def refuse(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(conversion.tempfile, "TemporaryFile", refuse)
    assert main(["-", "--check"]) == 1
    assert capsys.readouterr().err.startswith("convert: a temporary file: cannot be written (No us")


def judged(number, annotator="ann"):
    answers = {"prompt": f"P{number}", "response_a": f"A{number}", "response_b": f"B{number}"}
    return answers | {"winner": "a", "annotator": annotator}


def test_records_that_wait_for_others_go_through_a_file_beyond_memory(convert_file, monkeypatch):
    records = [judged(i, annotator) for annotator in ("ann", "bob") for i in range(100)]
    before = convert_file(records)
    assert [row["prompt"] for row in before.rows] == [f"P{i}" for i in range(100)]
    monkeypatch.setattr(conversion, "_SPOOL_IN_MEMORY", 1000)
    after = convert_file(records)
    assert (after.rows, after.report) == (before.rows, before.report)


def test_keys_beyond_memory_go_through_files_that_do_not_stay(convert_file, monkeypatch):
    spilled, spill = [], settle.Settlement._spill

    def counted(self):
        spilled.append(self)
        spill(self)

    monkeypatch.setattr(settle.Settlement, "_spill", counted)
    monkeypatch.setattr(settle.Settlement.__init__, "__defaults__", (None, 1000))
    done = convert_file([pair(i) for i in range(500)] + [pair(3)])
    assert spilled
    assert [row["prompt"] for row in done.rows] == [f"P{i}" for i in range(500)]
    assert done.report["reasons"] == {"duplicate": 1}
    assert sorted(os.listdir("out")) == [
        "README.md",
        "dataset_dict.json",
        "rejects.jsonl",
        "report.json",
        "train",
    ]


def stopped_while(room, name, number, monkeypatch):
    """A signal arrives when this function of the converter has done its work."""
    plain = getattr(room, name)

    def interrupted(*arguments):
        plain(*arguments)
        signal.raise_signal(number)

    monkeypatch.setattr(room, name, interrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("room", "name"),
    [
        (block, "parts_of"),
        (first_pass, "run"),
        (settle.Settlement, "finish"),
        (second_pass, "run"),
        (writer, "finish"),
    ],
    ids=["first pass", "after it", "settling", "second pass", "naming"],
)
def test_a_signal_stops_with_status_one_and_leaves_no_litter(
    convert_file, monkeypatch, number, room, name
):
    convert_file([pair()])
    before, handler = files("out"), signal.getsignal(number)
    stopped_while(room, name, number, monkeypatch)
    done = convert_file([pair(2)])
    assert (done.status, done.err) == (
        1,
        "convert: stopped; no dataset was written, an older one is as it was\n",
    )
    assert files("out") == before
    assert sorted(os.listdir()) == ["out", "raw.jsonl"]
    assert signal.getsignal(number) == handler


@pytest.mark.parametrize("error", [BrokenPipeError, OSError])
def test_a_reader_that_stops_listening_is_no_failure(convert_file, monkeypatch, error):
    class Closed(io.StringIO):
        def write(self, _):
            raise error

        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    convert_file([pair()])
    for stdout in (Closed(), None):
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["raw.jsonl", "-o", "out"]) == 0


def test_a_terminal_without_unicode_still_shows_the_report(convert_file, monkeypatch):
    convert_file([pair(1, prompt="é" * 200, chosen=["é"]), pair()])
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["raw.jsonl", "-o", "out"]) == 0
    assert rb"\xe9" in terminal.buffer.getvalue()


def test_a_strangers_file_where_rejects_would_go_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("out.rejects.jsonl").write_text("precious\n")
    for content in ("{}\n", json.dumps({"prompt": "P", "chosen": "A", "rejected": "B"})):
        Path("raw.jsonl").write_text(content)
        assert main(["raw.jsonl", "-o", "out", "--format", "preference"]) == 2
        assert "out.rejects.jsonl: exists and was not written by this" in capsys.readouterr().err
    assert Path("out.rejects.jsonl").read_text() == "precious\n"
    assert not Path("out").exists()


def test_excluding_rows_that_are_not_there_is_told(convert_file, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"source": "other.jsonl:1"}\n')
    record = {"prompt": "P", "chosen": "A", "rejected": "B"}
    done = convert_file([record], "--exclude-rows", "rows.jsonl")
    assert done.status == 0
    assert done.report["notes"] == [
        "--exclude-rows: none of its 1 sources meets a pair; write them as this dataset's own "
        "source column has them"
    ]


def test_how_the_file_was_read_is_told_where_nothing_fits(convert_file):
    one = {"prompt": "P", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]}
    done = convert_file(json.dumps(one), name="raw.json")
    assert done.status == 2
    assert done.err.endswith("(raw.json: the records are the list under 'answers')\n")


def test_a_file_that_is_named_twice_is_read_once_and_that_is_told(convert_file):
    record = {"prompt": "P", "chosen": "A", "rejected": "B"}
    done = convert_file([record], "raw.jsonl")
    assert done.report["records"]["read"] == 1
    assert done.report["notes"] == ["raw.jsonl: is named twice and read once"]

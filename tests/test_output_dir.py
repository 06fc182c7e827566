"""Where the dataset goes: what is replaced and refused, and what a stop at any moment leaves."""

import fcntl
import json
import os
import resource
import signal
import stat
import tempfile
from pathlib import Path

import pytest
from converting import contents, convert, pair, write_lines
from stepping import run_to_step

from data_tools.convert import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder with one empty folder above it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def converted(record, output="out", **options):
    """The exit status of a conversion of one record."""
    raw = write_lines("raw.jsonl", [record])
    return convert((raw,), output, workers=1, **options).status


def fail(output="out"):
    """Convert a pair that is rejected, which leaves an older dataset as it is."""
    assert converted(pair(chosen=""), output) == 1


def message(capsys, status, output="out"):
    """What stderr shows of a conversion to `output` that changes nothing."""
    write_lines("raw.jsonl", [pair()])
    before = contents()
    assert main(["raw.jsonl", "-o", output]) == status
    assert contents() == before
    return capsys.readouterr().err


def make(directory, **files):
    Path(directory).mkdir(parents=True)
    for name, text in files.items():
        Path(directory, name).write_text(text)


def test_without_o_the_dataset_is_under_data_with_the_name_of_the_first_input(capsys):
    write_lines("pairs.v1.jsonl", [pair()])
    assert main(["pairs.v1.jsonl"]) == 0
    assert Path("data/pairs.v1/dataset_dict.json").exists()
    assert "dataset   data/pairs.v1\n" in capsys.readouterr().out


def test_an_own_dataset_is_replaced_as_a_whole():
    assert converted(pair(1)) == converted(pair(2), to="parquet") == 0
    names = ["README.md", "rejects.jsonl", "report.json", "train.parquet"]
    assert sorted(os.listdir("out")) == names and sorted(os.listdir()) == ["out", "raw.jsonl"]


def test_folders_above_the_dataset_are_made_and_an_empty_one_is_used():
    os.makedirs("empty")
    assert converted(pair(), "a/b/out") == converted(pair(), "empty") == 0
    assert os.listdir("a/b") == ["out"]


def test_the_directory_has_the_permissions_of_any_new_one():
    before = os.umask(0o027)
    try:
        assert converted(pair()) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o750


# What is not replaced.


OVER_INPUT = [("raw", "raw"), ("raw/in.jsonl", "raw"), ("raw/in.jsonl", "."), ("raw", "link")]
OVER_INPUT += [("raw/in.jsonl", "raw/in.jsonl"), ("link/in.jsonl", "raw"), ("data/raw", None)]


@pytest.mark.parametrize(("raw", "output"), OVER_INPUT)
def test_an_output_over_an_input_is_refused(capsys, raw, output):
    for folder in ("raw", "data/raw"):
        make(folder, **{"in.jsonl": json.dumps(pair())})
    os.symlink("raw", "link")
    before = contents()
    assert main([raw, *(["-o", output] if output else [])]) == 2
    assert capsys.readouterr().err == (
        f"convert: {output or raw}: the input {raw} is there; name another output directory with "
        "-o\n"
    )
    assert contents() == before


def test_a_foreign_directory_is_refused(capsys):
    end = "; it is not replaced, choose another directory with -o\n"
    for text in ("{}", "not json", "[]", '{"records": 1}'):
        make(f"out {text}/train", **{"state.json": "mine"})
        Path(f"out {text}/report.json").write_text(text)
        what = "exists, and it was not written by this command"
        assert message(capsys, 2, f"out {text}") == f"convert: out {text}: {what}{end}"
    assert converted(pair()) == 0
    Path("out/thesis.tex").write_text("mine")
    assert message(capsys, 2) == f"convert: out: exists, and it holds thesis.tex{end}"


def test_what_is_no_directory_is_refused(capsys):
    os.symlink("gone", "a symbolic link")
    Path("no directory").write_text("x")
    for name in ("a symbolic link", "no directory"):
        assert message(capsys, 2, name) == (
            f"convert: {name}: exists and is {name}; choose another directory with -o\n"
        )


@pytest.mark.parametrize("text", ["precious\n", "{}\n", '{"file": 1}'])
def test_a_foreign_file_where_the_rejects_would_go_is_refused(capsys, text):
    Path("out.rejects.jsonl").write_text(text)
    assert message(capsys, 2) == (
        "convert: out.rejects.jsonl: exists and was not written by this command, which keeps "
        "rejects there when no pair is kept; move it or choose another directory with -o\n"
    )


# What cannot be written.


def test_a_place_that_cannot_be_written_is_one_line(capsys):
    assert message(capsys, 1, "/proc/out") == (
        "convert: /proc/out: cannot be written (No such file or directory); free some space or "
        "choose another directory with -o\n"
    )
    found = message(capsys, 1, "raw.jsonl/deeper")
    assert found.startswith("convert: raw.jsonl/deeper: cannot be written (")


@pytest.mark.parametrize("to", ["arrow", "parquet", "jsonl"])
def test_a_full_disk_is_one_line_and_the_older_dataset_is_unchanged(capsys, to):
    assert converted(pair()) == 0
    big = write_lines("big.jsonl", [pair(i, chosen=os.urandom(3000).hex()) for i in range(100)])
    before, limits = contents(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        status = main([big, "-o", "out", "--to", to, "--workers", "1"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = capsys.readouterr().err
    assert (status, found.count("\n")) == (1, 1)
    assert found.startswith("convert: out: cannot be written (")
    assert found.endswith("); free some space or choose another directory with -o\n")
    assert contents() == before
    assert sorted(os.listdir()) == ["big.jsonl", "out", "raw.jsonl"]


@pytest.mark.parametrize("raw", ["raw.jsonl", "-"])
def test_no_place_for_temporary_files_is_one_line(capsys, monkeypatch, raw):
    def refuse(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    write_lines("raw.jsonl", [pair()])
    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert main([raw, "--check"]) == 1
    assert capsys.readouterr().err == (
        "convert: a temporary file: cannot be written (No usable temporary directory found); "
        "free some space or set TMPDIR to another place\n"
    )


# What a killed run leaves, and what the next run makes of it.


def test_parts_of_killed_runs_are_removed_and_a_name_is_no_pattern():
    make("o[u]t*.part-abc", **{"report.json": "half"})
    make("o[u]t*.part-def/train")
    make("o[u]t*.part-ghi/work")
    for other in ("out.part-abc", "no[u]t*.part-abc"):
        make(other, train="of another dataset")
    assert converted(pair(), "o[u]t*") == 0
    assert sorted(os.listdir()) == ["no[u]t*.part-abc", "o[u]t*", "out.part-abc", "raw.jsonl"]


def test_what_only_looks_like_a_part_is_not_touched():
    make("out.part-1", **{"notes.txt": "mine"})
    Path("out.part-2").write_text("a file")
    make("elsewhere", train="mine")
    os.symlink("elsewhere", "out.part-3")
    before = contents()
    fail()
    assert before.items() <= contents().items()
    assert os.path.islink("out.part-3")


def test_the_part_of_a_run_that_still_writes_is_not_touched():
    make("out.part-1", train="half")
    lock = os.open("out.part-1", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    fail()
    assert contents("out.part-1") == {"train": b"half"}
    os.close(lock)
    fail()
    assert not os.path.exists("out.part-1")


def test_an_older_dataset_that_a_killed_run_moved_away_is_restored():
    assert converted(pair()) == 0
    older = contents("out")
    os.rename("out", "out.part-abc.older")
    fail()
    assert contents("out") == older and not list(Path().glob("out.part-*"))


class Stopped:
    """A conversion of pair 2 over one of pair 1, stopped before each file operation in turn."""

    def __init__(self, number):
        self._number, self._known = number, {}
        for name, which in (("newer", 2), ("older", 1)):
            assert converted(pair(which)) == 0
            self._known[name] = contents("out")

    def __iter__(self):
        """The exit status, stderr, and what is at the output directory."""
        argv = ["raw.jsonl", "-o", "out", "--workers", "1"]
        for step in range(200):
            assert converted(pair()) == 0
            write_lines("raw.jsonl", [pair(2)])
            status, err = run_to_step(argv, step, lambda: os.kill(os.getpid(), self._number))
            if status == 0:
                assert step > 15
                return
            yield status, err, self.state()

    def state(self):
        found = contents("out")
        names = [name for name, files in self._known.items() if files == found]
        return names[0] if names else "damaged" if found else "absent"


def test_after_a_kill_at_any_moment_the_older_or_the_newer_dataset_is_whole():
    states, stopped = [], Stopped(signal.SIGKILL)
    for status, _, state in stopped:
        assert status == -signal.SIGKILL
        fail()  # the next run removes what is left
        assert stopped.state() == ("older" if state == "absent" else state)
        assert sorted(os.listdir()) == ["out", "out.rejects.jsonl", "raw.jsonl"]
        states.append(state)
    # Between the two renames the older dataset is next to its place, until the next run.
    moves = ["older"] * states.count("older"), ["absent"], ["newer"] * states.count("newer")
    assert states == [state for part in moves for state in part]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_is_one_line_and_the_older_dataset_is_unchanged(number):
    expected = "convert: stopped; no dataset was written, an older one is unchanged\n"
    for status, err, state in Stopped(number):
        # Once the dataset is being moved into place it is too late to stop.
        assert (status, err, state) in ((1, expected, "older"), (0, "", "newer"))
        fail()
        assert sorted(os.listdir()) == ["out", "out.rejects.jsonl", "raw.jsonl"]

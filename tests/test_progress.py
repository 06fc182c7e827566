"""The progress bar: nothing on short runs, and a stderr that fails harms no run."""

import itertools
import os
import sys
from pathlib import Path

import pytest
from converting import pair, use_small_blocks, write_lines

from data_tools.convert import main


class Stream:
    """A stderr that writes to a file, as a terminal or not."""

    encoding = "utf-8"

    def __init__(self, path, is_terminal):
        self._file, self._is_terminal = open(path, "wb", buffering=0), is_terminal  # noqa: SIM115

    def isatty(self):
        return self._is_terminal

    def fileno(self):
        return self._file.fileno()

    def write(self, text):
        return self._file.write(text.encode())

    def flush(self):
        pass


@pytest.fixture
def status(tmp_path, monkeypatch):
    """The exit status of a run with this stderr, in many blocks of `seconds` each for tqdm."""
    monkeypatch.chdir(tmp_path)
    use_small_blocks(monkeypatch, block=500, shard=2000)
    write_lines("raw.jsonl", [pair(i) for i in range(200)])

    def run(stderr, seconds=0):
        clock = itertools.count(step=seconds)
        monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
        monkeypatch.setattr(sys, "stderr", stderr)
        return main(["raw.jsonl", "-o", "out", "--workers", "1"])

    return run


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "file"])
def test_a_short_run_shows_nothing(status, is_terminal):
    assert status(Stream("../stderr", is_terminal)) == 0
    assert Path("../stderr").read_bytes() == b""


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "file"])
def test_a_long_run_shows_how_far_each_pass_is(status, is_terminal):
    assert status(Stream("../stderr", is_terminal), seconds=11) == 0
    shown = Path("../stderr").read_bytes().decode()
    assert "checking: " in shown and "writing: " in shown and "B/s" in shown
    if is_terminal:
        assert shown.endswith(" \r")  # the bar is cleared
    else:
        assert all(line.startswith("convert: ") for line in shown.splitlines())


def pipe_without_a_reader():
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("target", ["full", "broken pipe", "missing"])
@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "file"])
def test_a_stderr_that_cannot_be_written_fails_no_run(status, is_terminal, target):
    path = "/dev/full" if target == "full" else pipe_without_a_reader()
    stderr = None if target == "missing" else Stream(path, is_terminal)
    assert status(stderr, seconds=11) == 0

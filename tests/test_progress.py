"""How far a run is: nothing for a short one, a bar on a terminal, a line every ten seconds."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools import blocks, progress, readers
from data_tools.blocks import Inputs
from data_tools.progress import Progress
from data_tools.readers import stretches


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


class Stream:
    """A file in place of stderr, which may say that it is a terminal."""

    encoding = "utf-8"

    def __init__(self, path, terminal):
        self._file, self._path, self._terminal = open(path, "wb"), path, terminal  # noqa: SIM115

    def fileno(self):
        return self._file.fileno()

    def isatty(self):
        return self._terminal

    def written(self):
        return self._path.read_bytes().decode()


@pytest.fixture
def stderr(tmp_path, monkeypatch):
    def put(terminal):
        stream = Stream(tmp_path / "stderr", terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return put


def ran(clock, seconds, each=1_000_000, total=None):
    """A phase of so many seconds, in each of which `each` bytes are done."""
    with Progress("checking", seconds * each if total is None else total) as shown:
        for _ in range(seconds):
            clock.now += 1
            shown.update(each)


def test_a_run_of_less_than_ten_seconds_says_nothing(clock, stderr):
    stream = stderr(terminal=False)
    ran(clock, 9)
    assert stream.written() == ""


def test_a_longer_run_says_every_ten_seconds_how_far_it_is_how_fast_and_what_is_left(clock, stderr):
    stream = stderr(terminal=False)
    ran(clock, 35, each=100_000_000)
    assert stream.written().splitlines() == [
        "convert: checking, 1.0 of 3.5 GB, 100 MB/s, 25 s left",
        "convert: checking, 2.0 of 3.5 GB, 100 MB/s, 15 s left",
        "convert: checking, 3.0 of 3.5 GB, 100 MB/s, 5 s left",
    ]


def test_a_line_comes_with_the_first_block_after_its_time(clock, stderr):
    stream = stderr(terminal=False)
    with Progress("writing", 10_000) as shown:
        for seconds in (19, 9, 1, 1000):
            clock.now += seconds
            shown.update(0 if seconds == 19 else 1000)
    assert stream.written().splitlines() == [
        "convert: writing, 0.0 of 10 kB",
        "convert: writing, 2.0 of 10 kB, 69 B/s, 2 min left",
        "convert: writing, 3.0 of 10 kB, 2.9 B/s, 40 min left",
    ]


def test_more_bytes_than_were_announced_are_the_new_total(clock, stderr):
    stream = stderr(terminal=False)
    ran(clock, 10, total=0)
    assert stream.written() == "convert: checking, 10 of 10 MB, 1.0 MB/s, 0 s left\n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0.0 B"), (9.94, "9.9 B"), (9.96, "10 B"), (999.4, "999 B"), (999.6, "1.0 kB")]
    + [(310e6, "310 MB"), (2.34e9, "2.3 GB"), (7e15, "7000 TB")],
)
def test_a_size_has_two_or_three_digits(count, shown):
    assert progress._size(count) == shown


def test_a_duration_is_in_the_unit_that_suits_it():
    seconds = (0.4, 99, 100, 5900, 9000)
    assert [*map(progress._duration, seconds)] == ["0 s", "99 s", "2 min", "98 min", "2.5 h"]


def test_a_terminal_gets_a_bar_that_is_cleared(clock, stderr):
    stream = stderr(terminal=True)
    ran(clock, 20)
    shown = stream.written()
    assert "checking: " in shown and "M/20.0M [" in shown and "B/s]" in shown
    assert "\n" not in shown
    *_, blank, rest = shown.split("\r")  # the last thing written is white space over the bar
    assert blank.strip() == rest == ""


def test_a_terminal_gets_no_bar_for_a_short_run(clock, stderr, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = stderr(terminal=True)
    with Progress("checking", 100) as shown:
        clock.now += 0.9
        shown.update(100)
    assert stream.written() == ""


def test_a_bar_is_cleared_where_the_run_is_stopped(clock, stderr):
    stream = stderr(terminal=True)
    with pytest.raises(KeyboardInterrupt), Progress("checking", 100) as shown:
        clock.now += 2
        shown.update(10)
        raise KeyboardInterrupt
    assert stream.written().endswith(" \r")


def closed(stream, patch):
    stream._file.close()


def missing(stream, patch):
    patch.setattr(sys, "stderr", None)


def full(stream, patch):
    with open("/dev/full", "wb") as file:
        os.dup2(file.fileno(), stream.fileno())


def without_tqdm(stream, patch):
    patch.setitem(sys.modules, "tqdm", None)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("broken", [closed, missing, full, without_tqdm])
def test_what_cannot_be_shown_harms_nothing(clock, stderr, monkeypatch, terminal, broken):
    stream = stderr(terminal)
    broken(stream, monkeypatch)
    ran(clock, 30)
    assert bool(stream.written()) == (broken is without_tqdm and not terminal)


@pytest.mark.parametrize("broken", [closed, full])
def test_a_terminal_that_goes_away_harms_nothing(clock, stderr, monkeypatch, broken):
    stream = stderr(terminal=True)
    with Progress("checking", 100) as shown:
        for number in range(10):
            clock.now += 2
            shown.update(10)
            if number == 3:
                broken(stream, monkeypatch)


LINES_THEN_END = """
import sys
from data_tools import progress
progress._EVERY = 0
with progress.Progress("checking", 10) as shown:
    shown.update(5)
    shown.update(5)
print("done")
"""


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", "2>/dev/null"])
def test_a_stderr_that_takes_nothing_leaves_the_exit_status_alone(redirected):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        f"'{sys.executable}' - {redirected}",
        shell=True,
        input=LINES_THEN_END,
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


# Sizes of blocks.

RECORDS = [{"a": os.urandom(40).hex(), "n": str(number)} for number in range(3000)]


def lines(encoding="utf-8"):
    return "".join(json.dumps(record) + "\n" for record in RECORDS).encode(encoding)


def cells(mark=","):
    return ("a,n\n" + "".join(f"{r['a']},{r['n']}\n" for r in RECORDS)).replace(",", mark).encode()


def parquet(path):
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=500, compression="none")


def packed(path):
    import pyarrow as pa

    noise = (json.dumps(record | {"b": os.urandom(200).hex()}) + "\n" for record in RECORDS)
    with pa.CompressedOutputStream(path, "zstd") as stream:  # which is read in large pieces
        stream.write("".join(noise).encode())


def spreadsheet(path):
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in (["a", "n"], *([r["a"], r["n"]] for r in RECORDS)):
        sheet.append(row)
    book.save(path)


CONTENTS = {
    "a.jsonl": lines,
    "a.csv": cells,
    "a.tsv": lambda: cells("\t"),
    "utf16.jsonl": lambda: lines("utf-16"),
    "array.json": lambda: json.dumps(RECORDS, indent=1).encode(),
    "lines.json": lines,
    "inside.json": lambda: json.dumps({"data": RECORDS}).encode(),
    "a.jsonl.gz": lambda: gzip.compress(lines()),
    "a.jsonl.zst": packed,
    "array.json.gz": lambda: gzip.compress(json.dumps(RECORDS).encode()),
    "a.parquet": parquet,
    "a.xlsx": spreadsheet,
}
AT_ONCE = {"inside.json", "a.xlsx"}  # the one as a whole, the other its texts before its rows


@pytest.mark.parametrize("name", CONTENTS)
def test_the_sizes_of_blocks_sum_up_to_that_of_the_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stretches, "SIZE", 20_000)
    monkeypatch.setattr(blocks, "_RECORDS", 150)
    make = CONTENTS[name]
    if make in (parquet, packed, spreadsheet):
        make(name)
    else:
        Path(name).write_bytes(make())
    inputs, whole = Inputs([name]), os.path.getsize(name)
    sizes = [source.size for source in inputs.sources(counted=False)]
    assert inputs.size == whole
    assert whole - 10 < sum(sizes) <= whole
    assert min(sizes) >= 0 and len(sizes) > 5
    if name not in AT_ONCE:
        assert max(sizes) < whole / 2
        half = sum(sizes[: len(sizes) // 2]) / whole
        assert 0.25 < half < 0.9


def test_the_sizes_of_standard_input_and_of_several_files_are_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blocks, "_RECORDS", 150)
    Path("a.jsonl").write_bytes(lines())
    Path("b.csv").write_bytes(cells())
    with open("a.jsonl", "rb") as stdin:
        inputs = Inputs([readers.STDIN, "b.csv"], stdin=stdin)
        assert inputs.size == len(lines()) + len(cells())
        sizes = [s.size for s in inputs.sources(counted=False) if s.file == readers.STDIN]
    assert sum(sizes) == len(lines()) and max(sizes) < len(lines()) / 2


class Recorded(Progress):
    phases = []

    def __init__(self, description, total):
        super().__init__(description, total)
        self.phases.append([description, total, 0])

    def update(self, count):
        super().update(count)
        self.phases[-1][2] += count


@pytest.fixture
def phases(monkeypatch):
    monkeypatch.setattr("data_tools.conversion.Progress", Recorded)
    monkeypatch.setattr(Recorded, "phases", [])
    return Recorded.phases


def test_a_conversion_tells_of_all_bytes_that_it_checks_and_writes(
    phases, convert_file, monkeypatch
):
    monkeypatch.setattr(stretches, "SIZE", 500)
    pairs = [{"prompt": f"P{n}", "chosen": "C", "rejected": "R"} for n in range(100)]
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    assert convert_file(text, "--workers", "1").status == 0
    (checking, whole, checked), (writing, parts, written) = phases
    assert (checking, whole, checked) == ("checking", len(text), len(text))
    assert writing == "writing" and parts == written > 0


def test_gathering_is_a_phase_of_its_own(phases, convert_file):
    unpaired = [
        {"prompt": f"P{n // 2}", "completion": f"A{n}", "label": n % 2 == 0} for n in range(20)
    ]
    text = "".join(json.dumps(record) + "\n" for record in unpaired)
    assert convert_file(text).status == 0
    assert [phase[0] for phase in phases] == ["checking", "checking", "writing"]
    assert phases[1][1:] == [len(text), len(text)]

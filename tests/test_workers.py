"""Several processes give what one gives, and a process that is lost is one line."""

import csv
import gc
import gzip
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from converting import as_lines, contents, convert, pair, use_small_blocks, write_lines

from data_tools.convert import main
from data_tools.record import BadRecord
from data_tools.workers import Processes, available

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def many_blocks(tmp_path, monkeypatch):
    """A folder where a few hundred records are many blocks and several shards."""
    monkeypatch.chdir(tmp_path)
    use_small_blocks(monkeypatch)


def labelled(dice, number):
    label = dice.choice(("a", "b", "a", "b", "tie", ""))
    record = {"prompt": f"P {number % 600}", "response_a": f"A\n{number % 7}", "response_b": "B"}
    return record | {"preference": label, "the task": f"T{number % 2}"}


def judged(dice, number):
    prompt = {"prompt": f"P {dice.randrange(250)}", "annotator_id": f"ann{dice.randrange(4)}"}
    return labelled(dice, number) | prompt


def rated(dice, number):
    record = {"prompt": f"P {dice.randrange(250)}", "response": f"A {number}", "verbosity": 1}
    return record | {"helpfulness": dice.randrange(5)}


def unpaired(dice, number):
    good = dice.choice((True, False))
    return {"prompt": f"P {dice.randrange(250)}", "completion": f"A {number}", "label": good}


def reply(dice, number):
    record = {"message_id": f"m{number}", "text": f"T {number}"}
    if number < 100:
        return record | {"parent_id": None, "role": "prompter", "rank": None}
    parent, rank = f"m{dice.randrange(100)}", dice.choice((0, 1, 2, None))
    return record | {"parent_id": parent, "role": "assistant", "rank": rank}


def as_table(path, records):
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter="\t" if path.endswith("tsv") else ",")
        rows.writerows([[*records[0]], *(record.values() for record in records)])


def as_sheet(path, records):
    import openpyxl

    book = openpyxl.Workbook()
    for row in ([*records[0]], *([*record.values()] for record in records)):
        book.active.append(row)
    book.save(path)


def as_zip(path, records):
    Path(path).write_bytes(gzip.compress(as_lines(records).encode()))


JSON = {
    "a.jsonl": write_lines,
    "b.json": lambda path, records: Path(path).write_text(json.dumps(records, indent=1)),
    "c.jsonl.gz": as_zip,
    "d.parquet": lambda path, records: pq.write_table(pa.Table.from_pylist(records), path),
}
TABLES = {"e.csv": as_table, "f.tsv": as_table, "g.xlsx": as_sheet}
MAP = {"prompt": "prompt", "a": "response_a", "b": "response_b", "label": "preference"}
RECORDS = {
    "labelled": (labelled, JSON | TABLES, {"keep": ("preference",)}),
    "mapped": (labelled, JSON | TABLES, {"map": MAP | {"system": "the task"}, "to": "parquet"}),
    "judged": (judged, JSON | TABLES, {"annotators": "unanimous", "to": "jsonl"}),
    "rated": (rated, JSON, {"pairs": "all", "min_margin": 2.0}),
    "unpaired": (unpaired, JSON, {}),
    "trees": (reply, JSON, {"pairs": "adjacent"}),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_any_number_of_workers_writes_the_same_bytes(kind):
    """What records share is in several files, each of another syntax and many blocks."""
    make, files, options = RECORDS[kind]
    dice = random.Random(kind)
    records = [make(dice, number) for number in range(800)]
    for at, (name, write) in enumerate(files.items()):
        write(name, records[at :: len(files)])
    found = []
    for count in (1, 2, 3) if kind == "labelled" else (1, 2):
        done = convert(files, f"out{count}", test_size=0.3, workers=count, **options)
        assert done.status == 0
        found.append(contents(f"out{count}"))
    assert found[1:] == found[:1] * (len(found) - 1)
    assert done.figures["records"]["read"] == 800
    assert min(done.figures["splits"].values()) > 5 and len(done.figures["reasons"]) > 0
    assert sum("train" in name and "-of-" in name for name in found[0]) > 1


def outcome(directory):
    """The rows, rejects and figures of a dataset in JSON Lines, in whichever shards."""
    rows = [path.read_text() for path in sorted(Path(directory).glob("train*"))]
    return "".join(rows), *(contents(directory)[name] for name in ("rejects.jsonl", "report.json"))


def test_records_that_go_on_past_the_cut_of_a_block_are_read_whole(monkeypatch):
    dice = random.Random(0)
    cells = ('5" screen', '"two\nlines"', '"say ""hi"""', "plain", '"open', 'a"b\nrow', '"\n\n\n"')
    for name in ("a.csv", "b.csv"):
        rows = [",".join([f"{name} {i}", *dice.sample(cells, 2)]) for i in range(600)]
        Path(name).write_text("\n".join(["prompt,chosen,rejected", *rows]), "utf-8")
    argv = ["a.csv", "b.csv", "--to", "jsonl", "--test-size", "0"]
    for workers in ("1", "2"):
        assert main([*argv, "-o", f"many{workers}", "--workers", workers]) == 0
    use_small_blocks(monkeypatch, block=10_000_000, shard=10_000_000)
    assert main([*argv, "-o", "one"]) == 0
    assert outcome("many1") == outcome("many2") == outcome("one")


def test_a_small_input_starts_no_process(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_context", None)
    raw = write_lines("raw.jsonl", [pair()])
    assert convert((raw,), "out", workers=4).status == 0


def leave_cycle():
    """Keep an exception in a frame that it passed: the frame holds it, and it the frame."""
    try:
        raise BadRecord("tie", "")
    except BadRecord as fault:
        kept = fault
    return kept.reason


def test_what_a_task_leaves_in_circles_is_freed_before_the_next():
    with Processes(1) as crew:
        assert crew.result(crew.submit(leave_cycle)) == "tie"
        assert crew.result(crew.submit(gc.collect)) == 0


def test_the_default_is_every_core_that_the_process_may_use():
    assert available() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("is_file", [True, False])
def test_a_program_without_a_main_guard_is_not_run_again_by_the_workers(is_file):
    write_lines("raw.jsonl", [pair(i) for i in range(400)])
    program = (
        "from data_tools import convert\n"
        "from data_tools.readers import blocks\n"
        "blocks.SIZE = 4000\n"
        "print('runs', convert('raw.jsonl', output='out', workers=2).status)\n"
    )
    Path("program.py").write_text(program)
    run = subprocess.run(
        [sys.executable, "program.py" if is_file else "-"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=program,
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.stderr) == ("runs 0\n", "")


def kill_first_worker():
    for _ in range(2000):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
            return
        time.sleep(0.01)


def test_a_worker_that_is_killed_is_one_line_and_leaves_nothing(capsys):
    write_lines("raw.jsonl", [pair(i) for i in range(4000)])
    killer = threading.Thread(target=kill_first_worker)
    killer.start()
    assert main(["raw.jsonl", "-o", "out", "--workers", "2"]) == 1
    killer.join()
    assert capsys.readouterr().err == (
        "convert: a worker process was killed, perhaps because memory ran out, or could not be "
        "started; try --workers 1\n"
    )
    assert os.listdir() == ["raw.jsonl"]


def processes_here():
    """The processes whose working directory is this one, without this process."""
    here = os.getcwd()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if int(pid) != os.getpid() and os.readlink(f"/proc/{pid}/cwd") == here:
                yield pid
        except OSError:
            continue


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_stopped_leaves_no_worker(number):
    write_lines("raw.jsonl", [pair(i, chosen="C" * 1000) for i in range(40_000)])
    run = subprocess.Popen(
        [sys.executable, "-m", "data_tools.convert", "raw.jsonl", "-o", "out", "--workers", "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not [*Path().glob("out.part-*/work/*")] and run.poll() is None:  # of some worker
        time.sleep(0.01)
    run.send_signal(number)
    message = run.communicate(timeout=60)[1]
    is_killed = number == signal.SIGKILL
    assert run.returncode == (-number if is_killed else 1)
    stopped = "convert: stopped; no dataset was written, an older one is unchanged\n"
    assert is_killed or message == stopped
    deadline = time.monotonic() + 20
    while [*processes_here()] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [*processes_here()]
    assert not os.path.exists("out")
    assert is_killed or os.listdir() == ["raw.jsonl"]

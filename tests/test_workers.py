"""Several processes give what one gives, and a stop in one of them is told."""

import csv
import filecmp
import gzip
import io
import json
import os
import signal

import pytest

from data_tools import blocks, conversion, workers
from data_tools.convert import Options, convert, main
from data_tools.readers import stretches
from data_tools.record import ConvertError

COLUMNS = ("prompt", "response_a", "response_b", "winner", "who", "the task")


def records(count):
    """Labelled pairs with every twentieth of them at fault, and some that stand twice."""
    for i in range(count):
        label = ("a", "b", "tie", "")[i % 20 if i % 20 < 4 else i % 2]
        values = (f"P {i % (count - 9)}", f"A\n{i % 7}", f"B {i % 5}", label, f"ann{i % 3}")
        yield dict(zip(COLUMNS, (*values, f"T{i % 2}"), strict=True))


def as_csv(found):
    out = io.StringIO(newline="")
    rows = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    rows.writeheader()
    rows.writerows(found)
    return out.getvalue().encode()


def as_lines(found):
    return "".join(json.dumps(record) + "\n" for record in found).encode()


CONTENTS = {
    "raw.csv": as_csv,
    "raw.jsonl": as_lines,
    "raw.json": lambda found: json.dumps(list(found), indent=1).encode(),
    "raw.jsonl.gz": lambda found: gzip.compress(as_lines(found)),
}


@pytest.fixture
def many_blocks(tmp_path, monkeypatch):
    """A folder of its own, where a few hundred records are many blocks and several shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stretches, "SIZE", 4000)
    monkeypatch.setattr(blocks, "_RECORDS", 100)
    monkeypatch.setattr(conversion, "_GATHERED", 50)
    monkeypatch.setattr(conversion, "_SHARD", 20_000)


def same_for_any_number(name, *options):
    with open(name, "wb") as file:
        file.write(CONTENTS[name](records(800)))
    for count in ("1", "2", "3"):
        assert main([name, *options, "-o", f"out{count}", "--workers", count]) == 0
    names = files("out1")
    assert "rejects.jsonl" in names and "train/state.json" in names
    assert sum(name.startswith("train/data-") for name in names) > 2
    for count in ("2", "3"):
        assert files(f"out{count}") == names
        assert filecmp.cmpfiles("out1", f"out{count}", names, shallow=False) == (names, [], [])


def files(folder):
    return sorted(
        os.path.relpath(os.path.join(here, name), folder)
        for here, _, names in os.walk(folder)
        for name in names
    )


MAPPED = ("--map", "prompt=prompt", "a=response_a", "b=response_b", "label=winner")


@pytest.mark.parametrize(
    "options",
    [(), MAPPED, (*MAPPED, "annotator=who"), (*MAPPED, "system=the task")],
    ids=["recognised", "mapped", "annotated", "spaced"],
)
def test_any_number_of_workers_writes_the_same_bytes(many_blocks, options):
    same_for_any_number("raw.csv", *options)


@pytest.mark.parametrize("name", [name for name in CONTENTS if name != "raw.csv"])
def test_any_number_of_workers_writes_the_same_bytes_of_any_syntax(many_blocks, name):
    same_for_any_number(name, "--keep", "who", "--test-size", "0.3")


@pytest.mark.parametrize("name", ["raw.jsonl", "raw.json"])
def test_any_number_of_workers_gathers_the_same_bytes(many_blocks, name):
    annotated = (*MAPPED, "annotator=who", "--annotators", "unanimous")
    same_for_any_number(name, *annotated, "--test-size", "0.3")


def pid_or_kill(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_a_worker_that_is_killed_is_told():
    with pytest.raises(ConvertError) as caught, workers.crew(2) as crew:
        list(workers.in_order(pid_or_kill, range(6), crew))
    assert caught.value.status == 1
    assert str(caught.value) == (
        "a worker process was killed, for want of memory perhaps, or could not be started; "
        "try --workers 1"
    )


@pytest.mark.parametrize("room", ["first_pass", "second_pass"])
def test_a_worker_that_is_killed_is_one_line_and_no_litter(many_blocks, monkeypatch, capsys, room):
    monkeypatch.setattr(f"data_tools.{room}.run", die)
    with open("raw.csv", "wb") as file:
        file.write(as_csv(records(800)))
    assert main(["raw.csv", "-o", "out", "--workers", "2"]) == 1
    assert capsys.readouterr().err == (
        "convert: a worker process was killed, for want of memory perhaps, or could not be "
        "started; try --workers 1\n"
    )
    assert os.listdir() == ["raw.csv"]


def die(*_):
    os._exit(9)


def test_a_small_input_starts_no_process(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "ProcessPoolExecutor", None)
    (tmp_path / "raw.csv").write_bytes(as_csv(records(100)))
    assert convert(Options((str(tmp_path / "raw.csv"),), str(tmp_path / "out"), workers=4)).output


def test_results_come_in_the_order_of_the_tasks_and_a_few_are_under_way():
    begun, found = [], []

    class Later:
        ahead = 3

        def submit(self, function, task):
            begun.append(task)
            return workers.Now(function, task)

    for result in workers.in_order(str, range(8), Later()):
        found.append(result)
        assert len(begun) <= len(found) + 2
    assert found == [str(task) for task in range(8)]
    assert list(workers.in_order(str, [], Later())) == []


def test_one_task_is_done_here_and_several_by_the_others():
    others = object()
    for count in range(4):
        tasks, crew = workers.alone_or(range(count), others)
        assert list(tasks) == list(range(count))
        assert (crew is others) == (count > 1)


def test_processes_are_as_many_as_asked_for_and_others_than_this_one():
    with workers.crew(2) as crew:
        found = set(workers.in_order(pid_or_kill, [0] * 20, crew))
    assert 1 <= len(found) <= 2 and os.getpid() not in found
    with workers.crew(1) as crew:
        assert set(workers.in_order(pid_or_kill, [0] * 20, crew)) == {os.getpid()}


def test_the_default_is_every_core_that_may_be_used():
    assert workers.available() == len(os.sched_getaffinity(0))

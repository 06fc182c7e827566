"""--scheduler: a Dask cluster in place of one machine's processes, and the same bytes."""

import builtins
import csv
import filecmp
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_tools import conversion, first_pass
from data_tools.convert import main
from data_tools.readers import stretches
from data_tools.record import ConvertError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the workers stand, as the command does."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture
def small(folder, monkeypatch):
    """Many blocks of a short file, and many shards."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(stretches, "SIZE", 20_000)
    monkeypatch.setattr(conversion, "_SHARD", 60_000)


@pytest.fixture(scope="module")
def shared(folder):
    with started(folder) as cluster:
        yield cluster


@pytest.fixture
def scheduler(shared, small):
    """The address of a scheduler with two worker processes."""
    return shared[0]


@pytest.fixture
def brittle(folder, small):
    """The address of a scheduler of the test's own, the two worker processes, and its own."""
    with started(folder) as cluster:
        yield cluster


@contextmanager
def started(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def start(*words):
        return subprocess.Popen([sys.executable, "-m", *words], env=environment, **quiet)

    host = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    processes = [start("distributed.cli.dask_scheduler", *host)]
    alone = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
    processes += [start("distributed.cli.dask_worker", address, *alone) for _ in range(2)]
    try:
        _wait_for(address, workers=2)
        yield address, processes[1:], processes[0]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def _wait_for(address, workers):
    from distributed import Client

    for _ in range(100):
        try:
            with Client(address, timeout="1s", set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=20)
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the scheduler did not start")


def write(name, count, annotated=False):
    """Labelled pairs, some of them at fault, repeated or contradicting each other."""
    dice = random.Random(0)
    heads = ["prompt", "response_a", "response_b", "winner", *(["annotator"] if annotated else [])]
    rows = [",".join(heads)]
    for _ in range(count):
        answers = dice.sample(["yes <br>", "no", '"it\n""is"', "é"], 2)
        row = [
            f"P {dice.randrange(count // 2)} {'word ' * 20}",
            *answers,
            dice.choice(["a", "b", "tie", ""]),
        ]
        rows.append(",".join([*row, *([f"ann{dice.randrange(3)}"] if annotated else [])]))
    Path(name).write_text("\n".join(rows) + "\n", "utf-8")


def meanwhile(monkeypatch, act):
    """Let something happen once five blocks are known of; returns what counts them."""
    settle, seen = conversion.Conversion._settle, []

    def acting(self, *arguments):
        seen.append(arguments)
        if len(seen) == 5:
            act(self)
        settle(self, *arguments)

    monkeypatch.setattr(conversion.Conversion, "_settle", acting)
    return seen


def same(one, other):
    names = sorted(
        os.path.relpath(os.path.join(here, name), one)
        for here, _, files in os.walk(one)
        for name in files
    )
    assert any(name.startswith("train/data-00001-of-") for name in names)
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


@pytest.mark.parametrize("annotated", [False, True], ids=["settled", "gathered"])
def test_a_cluster_writes_the_same_bytes(scheduler, annotated, monkeypatch, capsys):
    monkeypatch.setattr(conversion, "_GATHERED", 500)
    write("raw.csv", 3000, annotated)
    with open("raw.csv", encoding="utf-8", newline="") as rows:
        lines = [json.dumps(row) + "\n" for row in csv.DictReader(rows)]
    Path("raw.jsonl").write_text("".join(lines), "utf-8")
    for name in ("raw.csv", "raw.jsonl"):
        alone, many = f"alone-{annotated}-{name}", f"many-{annotated}-{name}"
        assert main([name, "-o", alone, "--workers", "1"]) == 0
        assert main([name, "-o", many, "--scheduler", scheduler]) == 0
        assert capsys.readouterr().err == ""
        same(alone, many)


def test_a_worker_that_is_killed_changes_nothing(brittle, monkeypatch, capsys):
    address, workers, _ = brittle
    write("raw.csv", 6000)
    assert main(["raw.csv", "-o", "alone", "--workers", "1"]) == 0
    seen = meanwhile(monkeypatch, lambda _: workers[0].send_signal(signal.SIGKILL))
    assert main(["raw.csv", "-o", "fewer", "--scheduler", address]) == 0
    assert workers[0].wait() == -signal.SIGKILL and len(seen) > 20
    assert capsys.readouterr().err == ""
    same("alone", "fewer")


def test_a_fault_of_a_task_is_told_as_without_a_cluster(scheduler, capsys):
    write("raw.csv", 3000)
    relative = os.path.relpath("raw.csv", "..")
    os.chdir("..")  # where the workers do not stand
    assert main([relative, "-o", "out", "--scheduler", scheduler]) == 2
    said = capsys.readouterr().err
    assert said == f"convert: {relative}: cannot be read (No such file or directory)\n"


def test_a_worker_that_has_another_file_of_that_name_is_told(scheduler, tmp_path, capsys):
    write("raw.csv", 3000)
    there = os.getcwd()
    os.chdir(tmp_path)
    write("raw.csv", 4000)
    assert main(["raw.csv", "-o", "out", "--scheduler", scheduler]) == 2
    assert capsys.readouterr().err == (
        f"convert: raw.csv: a worker has another file of that name in {there}; start the workers "
        "where they see the files of the command\n"
    )


def test_a_worker_that_cannot_write_is_not_taken_for_a_lost_scheduler(
    scheduler, monkeypatch, capsys
):
    write("raw.csv", 3000)
    meanwhile(monkeypatch, lambda run: os.rename(run._work, f"{run._work}-moved"))
    assert main(["raw.csv", "-o", "unwritten", "--scheduler", scheduler]) == 1
    assert capsys.readouterr().err == (
        "convert: unwritten: cannot be written (No such file or directory); free some space or "
        "choose another place with -o\n"
    )


def test_where_all_workers_are_gone_is_one_line(brittle, monkeypatch, capsys):
    from data_tools import cluster

    address, workers, _ = brittle
    monkeypatch.setattr(cluster, "_LOOK", 0.2)
    monkeypatch.setattr(cluster, "_ALONE", 5)
    write("raw.csv", 3000)
    meanwhile(monkeypatch, lambda _: [worker.kill() for worker in workers])
    assert main(["raw.csv", "-o", "unmanned", "--scheduler", address]) == 1
    assert capsys.readouterr().err == (
        "convert: --scheduler: no worker is left; each needs this package and its requirements; "
        "start it again, or leave the option out\n"
    )
    assert main(["raw.csv", "-o", "unmanned", "--scheduler", address]) == 1  # from the start
    said = capsys.readouterr().err
    assert said.startswith(f"convert: --scheduler {address}: it has no workers; start some with")
    assert said.count("\n") == 1
    assert not list(Path().glob("unmanned*"))


def test_a_scheduler_that_is_killed_is_one_line(brittle, monkeypatch, capfd):
    address, _, process = brittle
    write("raw.csv", 3000)
    meanwhile(monkeypatch, lambda _: process.kill())
    assert main(["raw.csv", "-o", "unled", "--scheduler", address]) == 1
    said = capfd.readouterr().err
    assert said.startswith("convert: --scheduler: the scheduler is gone (")
    assert said.count("\n") == 1


def test_a_conversion_that_is_stopped_leaves_no_task_on_the_cluster(scheduler, monkeypatch, capsys):
    from distributed import Client

    write("raw.csv", 3000)
    meanwhile(monkeypatch, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["raw.csv", "-o", "stopped", "--scheduler", scheduler]) == 1
    assert capsys.readouterr().err == (
        "convert: stopped; no dataset was written, an older one is as it was\n"
    )
    with Client(scheduler, timeout="5s", set_as_default=False) as client:
        for _ in range(50):
            if not (
                left := client.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.tasks])
            ):
                break
            time.sleep(0.1)
    assert left == []


@pytest.mark.parametrize("address", ["nowhere", "http://127.0.0.1:9", "tcp://127.0.0.1:port"])
def test_what_is_no_address_is_told_at_once(address, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("raw.csv", 100)
    begun = time.monotonic()
    assert main(["raw.csv", "--scheduler", address]) == 2
    assert time.monotonic() - begun < 8
    said = capsys.readouterr().err
    assert said.startswith(f"convert: --scheduler {address}: no scheduler answers there (")
    assert said.count("\n") == 1


def test_a_refusal_travels_with_its_status():
    told = pickle.loads(pickle.dumps(ConvertError("full", status=1)))
    assert (str(told), told.status) == ("full", 1)


def test_where_no_scheduler_answers_is_one_line(tmp_path, monkeypatch, capsys):
    from data_tools import cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    write("raw.csv", 100)
    assert main(["raw.csv", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("convert: --scheduler tcp://127.0.0.1:9: no scheduler answers there (")
    assert said.count("\n") == 1


def test_without_dask_the_mend_is_named(tmp_path, monkeypatch, capsys):
    plain = builtins.__import__

    def missing(name, *rest):
        if name == "distributed":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.chdir(tmp_path)
    write("raw.csv", 100)
    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["raw.csv", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err == (
        "convert: --scheduler: Dask is not installed; pip install -r requirements-dask.txt\n"
    )


def test_workers_beside_a_scheduler_are_refused(capsys):
    assert main(["raw.csv", "--workers", "2", "--scheduler", "tcp://h:1"]) == 2
    assert capsys.readouterr().err == (
        "convert: --workers beside --scheduler: its workers are as many as it has\n"
    )


def test_a_task_may_be_run_again(tmp_path, monkeypatch):
    """What a lost worker has written does not stand in the way of the next one."""
    monkeypatch.chdir(tmp_path)
    write("raw.csv", 50)
    assert main(["raw.csv", "-o", "once"]) == 0
    run = first_pass.run
    monkeypatch.setattr(first_pass, "run", lambda *words: (run(*words), run(*words))[1])
    assert main(["raw.csv", "-o", "twice"]) == 0
    assert Path("once/report.json").read_bytes() == Path("twice/report.json").read_bytes()

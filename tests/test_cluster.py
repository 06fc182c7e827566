"""--scheduler: a Dask cluster in place of one machine's processes, and the same bytes."""

import builtins
import filecmp
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools import conversion, first_pass
from data_tools.convert import main
from data_tools.readers import stretches

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the workers stand, as the command does."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture
def scheduler(folder, monkeypatch):
    """The address of a scheduler with two worker processes, and these."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(stretches, "SIZE", 20_000)
    monkeypatch.setattr(conversion, "_SHARD", 60_000)
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
    _wait_for(address, workers=2)
    yield address, processes[1:]
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
    address, _ = scheduler
    write("raw.csv", 3000, annotated)
    assert main(["raw.csv", "-o", f"alone{annotated}", "--workers", "1"]) == 0
    assert main(["raw.csv", "-o", f"many{annotated}", "--scheduler", address]) == 0
    assert capsys.readouterr().err == ""
    same(f"alone{annotated}", f"many{annotated}")


def test_a_worker_that_is_killed_changes_nothing(scheduler, monkeypatch, capsys):
    address, workers = scheduler
    write("raw.csv", 6000)
    assert main(["raw.csv", "-o", "alone", "--workers", "1"]) == 0
    settle, seen = conversion.Conversion._settle, []

    def killing(self, *arguments):
        seen.append(arguments)
        if len(seen) == 5:
            os.kill(workers[0].pid, signal.SIGKILL)
        settle(self, *arguments)

    monkeypatch.setattr(conversion.Conversion, "_settle", killing)
    assert main(["raw.csv", "-o", "fewer", "--scheduler", address]) == 0
    assert workers[0].wait() == -signal.SIGKILL and len(seen) > 20
    assert capsys.readouterr().err == ""
    same("alone", "fewer")


def test_a_fault_of_a_task_is_told_as_without_a_cluster(scheduler, capsys):
    address, _ = scheduler
    write("raw.csv", 3000)
    relative = os.path.relpath("raw.csv", "..")
    os.chdir("..")  # where the workers do not stand
    assert main([relative, "-o", "out", "--scheduler", address]) == 2
    said = capsys.readouterr().err
    assert said == f"convert: {relative}: cannot be read (No such file or directory)\n"


def test_where_no_scheduler_answers_is_one_line(tmp_path, monkeypatch, capsys):
    from data_tools import cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_PATIENCE", "1s")
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

"""--scheduler: a Dask cluster in place of the processes of one machine, and the same bytes."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from converting import contents, use_small_blocks, write_lines

from data_tools.convert import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working directory of the workers and of the command."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(autouse=True)
def small_blocks(folder, monkeypatch):
    monkeypatch.chdir(folder)
    use_small_blocks(monkeypatch, block=20_000, records=200, shard=60_000)


@pytest.fixture(scope="module")
def scheduler(folder):
    """The address of a scheduler with two worker processes."""
    with started(folder) as cluster:
        yield cluster[0]


@pytest.fixture
def brittle(folder):
    """The address of a scheduler of the test's own, the two workers, and the scheduler."""
    with started(folder) as cluster:
        yield cluster


@contextmanager
def started(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(*words):
        command = [sys.executable, "-m", *words, "--no-dashboard"]
        return subprocess.Popen(command, env=environment, **quiet)

    processes = [start("distributed.cli.dask_scheduler", "--host", address)]
    worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny")
    processes += [start(*worker) for _ in range(2)]
    try:
        with client(address) as found:
            found.wait_for_workers(2, timeout=60)
        yield address, processes[1:], processes[0]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def client(address):
    from distributed import Client

    return Client(address, timeout="60s", set_as_default=False)


def labelled(count, is_annotated=False):
    """Labelled pairs, some of them faulty, repeated or contradicting each other."""
    dice = random.Random(0)
    for _ in range(count):
        answers = dice.sample(["yes <br>" * 9, "no", 'it\n"is"', "é" * 30], 2)
        record = {"prompt": f"P {dice.randrange(count // 2)}", "winner": dice.choice("abab ")}
        record |= dict(zip(("response_a", "response_b"), answers, strict=True))
        yield record | ({"annotator": f"ann{dice.randrange(3)}"} if is_annotated else {})


def convert(output, *options):
    return main(["raw.jsonl", "-o", output, *options])


@contextmanager
def meanwhile(output, act):
    """Let `act` run in a thread once the files of some blocks are there."""

    def wait():
        deadline = time.monotonic() + 60
        while len([*Path().glob(f"{output}.part-*/work/*")]) < 10 and time.monotonic() < deadline:
            time.sleep(0.005)
        acted.append(act())

    acted = []
    (thread := threading.Thread(target=wait)).start()
    yield
    thread.join()
    assert acted


@pytest.mark.parametrize("is_annotated", [False, True], ids=["alone", "grouped"])
def test_a_cluster_writes_the_same_bytes(scheduler, is_annotated, capsys):
    write_lines("raw.jsonl", labelled(6000, is_annotated))
    assert convert("own", "--workers", "1") == 0
    assert convert("many", "--scheduler", scheduler) == 0
    assert capsys.readouterr().err == ""
    assert contents("own") == contents("many")
    assert len([*Path("many/train").glob("data-*")]) > 2


def test_a_worker_that_is_killed_changes_nothing(brittle, capsys):
    address, workers, _ = brittle
    write_lines("raw.jsonl", labelled(8000))
    assert convert("own", "--workers", "1") == 0
    with meanwhile("fewer", lambda: workers[0].send_signal(signal.SIGKILL)):
        assert convert("fewer", "--scheduler", address) == 0
    assert workers[0].wait() == -signal.SIGKILL
    assert capsys.readouterr().err == ""
    assert contents("own") == contents("fewer")


def test_a_worker_that_sees_another_file_or_none_is_one_line(scheduler, tmp_path, capsys):
    write_lines("raw.jsonl", labelled(3000))
    os.chdir(tmp_path)
    write_lines("raw.jsonl", labelled(4000))
    write_lines("other.jsonl", labelled(4000))
    for name in ("raw.jsonl", "other.jsonl"):
        assert main([name, "-o", "out", "--scheduler", scheduler]) == 1
        assert re.fullmatch(f"convert: {name}: .*\n", capsys.readouterr().err)
    assert not list(Path().glob("out*"))


def test_where_all_workers_are_gone_is_one_line(brittle, monkeypatch, capsys):
    address, workers, _ = brittle
    monkeypatch.setattr("data_tools.workers._INTERVAL", 0.2)
    monkeypatch.setattr("data_tools.workers._PATIENCE", 5)
    write_lines("raw.jsonl", labelled(8000))
    with meanwhile("lost", lambda: [worker.kill() for worker in workers]):
        assert convert("lost", "--scheduler", address) == 1
    assert capsys.readouterr().err == (
        "convert: --scheduler: no worker is left; each needs this package and its requirements; "
        "start it again, or remove the option\n"
    )
    assert convert("lost", "--scheduler", address) == 1  # without any from the start
    assert capsys.readouterr().err == (
        f"convert: --scheduler {address}: it has no workers; start some with `dask worker "
        f"{address}` in {os.getcwd()}\n"
    )
    assert not list(Path().glob("lost*"))


def test_a_scheduler_that_is_killed_is_one_line(brittle, capfd):
    address, _, process = brittle
    write_lines("raw.jsonl", labelled(8000))
    with meanwhile("lost", process.kill):
        assert convert("lost", "--scheduler", address) == 1
    message = capfd.readouterr().err
    assert re.fullmatch(r"convert: --scheduler: the scheduler is gone \(.*\n", message)


def test_a_conversion_that_is_stopped_leaves_no_task_on_the_cluster(scheduler, capsys):
    write_lines("raw.jsonl", labelled(8000))
    with meanwhile("stopped", lambda: os.kill(os.getpid(), signal.SIGTERM)):
        assert convert("stopped", "--scheduler", scheduler) == 1
    assert capsys.readouterr().err.startswith("convert: stopped; no dataset was written")
    with client(scheduler) as found:
        deadline = time.monotonic() + 20
        while left := found.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.tasks]):
            assert time.monotonic() < deadline, left


@pytest.mark.parametrize(
    "address", ["nowhere", "http://127.0.0.1:9", "tcp://127.0.0.1:port", "tcp://127.0.0.1:9"]
)
def test_where_no_scheduler_answers_is_one_line(monkeypatch, capfd, address):
    monkeypatch.setattr("data_tools.workers._TIMEOUT", 1.0)
    write_lines("raw.jsonl", labelled(100))
    assert convert("out", "--scheduler", address) == 2
    start = f"convert: --scheduler {address}: no scheduler answers there ("
    assert re.fullmatch(re.escape(start) + ".*\n", capfd.readouterr().err)


def test_without_dask_the_requirement_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    write_lines("raw.jsonl", labelled(100))
    assert convert("out", "--scheduler", "tcp://127.0.0.1:9") == 2
    assert capsys.readouterr().err == (
        "convert: --scheduler: Dask is not installed; pip install distributed\n"
    )

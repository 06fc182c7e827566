"""The quickstart's metric modules, through evaluate.load, offline."""

import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

ROOT = Path(__file__).parent.parent
GOOD = "The soup at the harbour inn was delicious."
BAD = "The soup at the harbour inn was inedible."


@pytest.fixture(params=["sentiment", "well_formed"])
def loaded(request):
    return request.param, evaluate.load(f"quickstart/metrics/{request.param}.py")


def test_a_module_gives_its_mean_and_one_value_a_prediction(loaded):
    name, module = loaded
    found = module.compute(predictions=[GOOD, BAD, GOOD + " And so on"])
    each = found[f"{name}_per_example"]
    assert len(each) == 3
    assert found[name] == pytest.approx(sum(each) / 3)
    assert each == {"sentiment": [1.0, -1.0, 1.0], "well_formed": [1.0, 1.0, 0.0]}[name]


@pytest.mark.slow
def test_two_processes_at_once_need_neither_a_cache_nor_a_network(tmp_path):
    script = """
import socket

def refuse(*_):
    raise AssertionError("the network was asked")

socket.socket.connect = refuse
import evaluate
module = evaluate.load("quickstart/metrics/sentiment.py")
print([module.compute(predictions=["It was good."])["sentiment"] for _ in range(5)])
"""
    environment = os.environ | {"HF_HOME": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "0"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "[0.5, 0.5, 0.5, 0.5, 0.5]\n"), err

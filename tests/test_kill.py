"""dpo_wrap.train killed at any moment and resumed ends as an uninterrupted run does."""

import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time

import pytest
import yaml
from training import ROWS, adapter_weights, metrics, same, without_times

from dpo_wrap.train import main

pytestmark = pytest.mark.slow
STEPS = 60


def attempt(config, log):
    """The command in this process, its output appended to a file."""
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main([config]))


@pytest.fixture
def process(tmp_path, tiny_model_dir):
    """A function that starts a run in a process that is forked from one with TRL imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dpo_wrap.training.session"])
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))

    def start(out, **more):
        keys = {
            "model_path": str(tiny_model_dir),
            "dataset_path": str(tmp_path / "pairs.json"),
            "output_dir": str(out),
            "batch_size": 4,
            "max_steps": STEPS,
            "learning_rate": 1e-3,
            "lora_dropout": 0.1,
            "save_total_limit": 1,
        }
        config = tmp_path / f"{out.name}.yaml"
        config.write_text(yaml.safe_dump(keys | more))
        child = context.Process(target=attempt, args=(str(config), str(tmp_path / "log")))
        child.start()
        return child

    return start


def until(seen, child):
    """Wait, without sleeping, until `seen()` is true."""
    while not seen():
        assert child.exitcode is None, "the process ended before it could be killed"


def steps_logged(out):
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def unfinished_checkpoints(out):
    return {p for p in out.glob("checkpoint-*") if not (p / "dpo_wrap.json").exists()}


def killed(child):
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def finished(child, tmp_path):
    """What all processes of the run printed, once this one has succeeded."""
    child.join()
    text = (tmp_path / "log").read_text("utf-8")
    assert child.exitcode == 0, text
    return text


def test_ten_kills_at_random_moments_change_nothing(process, tmp_path):
    keys = {"logging_steps": 1, "save_steps": 5, "eval_strategy": "epoch"}
    whole, out = tmp_path / "whole", tmp_path / "out"
    finished(process(whole, **keys), tmp_path)
    chance = random.Random(0)
    moments = ["starting"] * 2 + ["training"] * 5 + ["saving"] * 3
    chance.shuffle(moments)
    for moment in moments:
        stale = unfinished_checkpoints(out)
        child = process(out, **keys)
        if moment == "starting":
            time.sleep(chance.uniform(0, 1))
        elif moment == "training":
            target = steps_logged(out) + chance.randint(1, 8)
            until(lambda target=target: steps_logged(out) >= target, child)
            time.sleep(chance.uniform(0, 0.02))
        else:
            until(lambda stale=stale: unfinished_checkpoints(out) - stale, child)
            time.sleep(chance.uniform(0, 0.005))
        killed(child)
    text = finished(process(out, **keys), tmp_path)
    assert text.count("resuming from") > 3 and "is not complete; skipped" in text
    assert same(adapter_weights(whole), adapter_weights(out))
    lines, expected = metrics(out), metrics(whole)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line, other in zip(lines, expected, strict=True):
        assert without_times(line) == pytest.approx(without_times(other), abs=1e-6)


def test_logging_windows_that_a_kill_cuts_are_marked_and_the_others_are_equal(process, tmp_path):
    keys = {"logging_steps": 4, "save_steps": 3, "max_steps": 24, "save_total_limit": None}
    whole, out = tmp_path / "whole", tmp_path / "out"
    finished(process(whole, **keys), tmp_path)
    for step in (6, 9, 18):
        child = process(out, **keys)
        until(lambda step=step: (out / f"checkpoint-{step}/dpo_wrap.json").exists(), child)
        killed(child)
    # Between the last step and run.json.
    child = process(out, **keys)
    until(lambda: (out / "adapter_model.safetensors").exists(), child)
    killed(child)
    assert not (out / "run.json").exists()
    text = finished(process(out, **keys), tmp_path)
    starts = [int(step) for step in re.findall(r"resuming from .*checkpoint-(\d+)", text)]
    assert len(starts) == 4 and starts[-1] == 24
    cut = {step // 4 * 4 + 4 for step in starts if step % 4}
    lines, expected = metrics(out), metrics(whole)
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    assert {line["step"] for line in lines if "partial" in line} == cut != set()
    for line, other in zip(lines, expected, strict=True):
        if line["step"] not in cut:
            assert without_times(line) == pytest.approx(without_times(other), abs=1e-6)
    assert same(adapter_weights(whole), adapter_weights(out))

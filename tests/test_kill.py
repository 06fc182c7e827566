"""dpo_wrap.train killed at any moment: gone on with, it ends where it would have ended."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import yaml
from training import ROWS, adapter_weights, metrics, same

from dpo_wrap.train import main

pytestmark = pytest.mark.slow
STEPS = 120


def attempt(config, log):
    """One process of the command, its output appended to a file."""
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main([config]))


@pytest.fixture
def process(tmp_path, tiny_model_dir):
    """A function that starts a run in a process forked from one that has imported TRL."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dpo_wrap.session"])
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
    """Wait, without pausing, until something is seen of the process."""
    while not seen():
        assert child.exitcode is None, "it ended before it could be killed"


def steps_logged(out):
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def unfinished_checkpoints(out):
    return [p for p in out.glob("checkpoint-*") if not (p / "dpo_wrap.json").exists()]


def without_times(line):
    return {k: v for k, v in line.items() if not k.endswith(("runtime", "per_second"))}


def test_ten_kills_at_random_moments_change_nothing(process, tmp_path):
    keys = {"logging_steps": 1, "save_steps": 5, "eval_strategy": "epoch"}
    whole, out = tmp_path / "whole", tmp_path / "out"
    child = process(whole, **keys)
    child.join()
    assert child.exitcode == 0, (tmp_path / "log").read_text()
    chance = random.Random(0)
    moments = ["starting"] * 2 + ["training"] * 5 + ["saving"] * 3
    chance.shuffle(moments)
    for moment in moments:
        child, before = process(out, **keys), steps_logged(out)
        stale = set(unfinished_checkpoints(out))
        if moment == "starting":
            time.sleep(chance.uniform(0, 1))
        elif moment == "training":
            until(lambda: (out / "config.resolved.yaml").exists(), child)
            target = before + chance.randint(1, 8)
            until(lambda target=target: steps_logged(out) >= target, child)
            time.sleep(chance.uniform(0, 0.02))
        else:
            until(lambda stale=stale: set(unfinished_checkpoints(out)) - stale, child)
            time.sleep(chance.uniform(0, 0.005))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        print(moment, steps_logged(out), [p.name for p in out.glob("checkpoint-*")], [p.name for p in unfinished_checkpoints(out)])
    child = process(out, **keys)
    child.join()
    assert child.exitcode == 0, (tmp_path / "log").read_text()
    print((tmp_path/"log").read_text().count("skipped"), (tmp_path/"log").read_text().count("going on from"))
    assert same(adapter_weights(whole), adapter_weights(out))
    lines, expected = metrics(out), metrics(whole)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line, other in zip(lines, expected, strict=True):
        assert without_times(line) == pytest.approx(without_times(other), abs=1e-6)

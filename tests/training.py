"""What tests of training share: pairs, a short run of the command, and its results."""

import json
from pathlib import Path

import torch
import yaml
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file

from dpo_wrap.train import main

GOOD, BAD = ("lovely", "sunny", "kind", "bright"), ("awful", "grim", "cruel", "dull")
ROWS = [
    {"prompt": f"Day {i}: it was", "chosen": f" {GOOD[i % 4]}.", "rejected": f" {BAD[i // 4 % 4]}."}
    for i in range(24)
]
TALK = [
    {"prompt": [{"role": "user", "content": r["prompt"]}]}
    | {n: [{"role": "assistant", "content": r[n].strip()}] for n in ("chosen", "rejected")}
    for r in ROWS
]


def runner(model, tmp_path):
    """A function that trains on 24 pairs for 6 steps: (exit status, output directory).

    It takes options of the command and keys of the config; a key that is None is removed.
    """
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))
    keys = {
        "model_path": str(model),
        "dataset_path": str(tmp_path / "pairs.json"),
        "output_dir": str(tmp_path / "out"),
        "batch_size": 4,
        "max_steps": 6,
        "logging_steps": 2,
        "learning_rate": 1e-2,
    }

    def start(*options, **more):
        given = {name: value for name, value in (keys | more).items() if value is not None}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
        status = main([str(tmp_path / "config.yaml"), *options])
        return status, Path(given["output_dir"])

    return start


def held_out(tmp_path):
    """The path of a saved dataset with 18 pairs in train and 6 in test."""
    splits = {"train": Dataset.from_list(ROWS[:18]), "test": Dataset.from_list(ROWS[18:])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "split"))
    return str(tmp_path / "split")


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def run_json(out):
    return json.loads((out / "run.json").read_text())


def without_times(line):
    """A log without what may differ between two runs of one step."""
    return {k: v for k, v in line.items() if not k.endswith(("runtime", "per_second"))}


def adapter_weights(out):
    return load_file(out / "adapter_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

"""Helpers of the tests of eval: pairs, configs of small runs, and the figures that eval writes."""

import json
import random
from pathlib import Path

import yaml

from dpo_wrap import eval as eval_command
from dpo_wrap import train

SHORT = ("--samples", "2", "--max-new-tokens", "6")


def write_pairs(path: Path, count: int) -> Path:
    """Pairs in which the chosen answer has other letters than the rejected one."""
    draw = random.Random(0)
    rows = [
        {
            "prompt": f"{number}:" + "".join(draw.choices("xyz", k=draw.randint(1, 6))),
            "chosen": "".join(draw.choices("abc", k=draw.randint(2, 9))),
            "rejected": "".join(draw.choices("def", k=draw.randint(2, 9))),
        }
        for number in range(count)
    ]
    return write_lines(path, rows)


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def write_config(folder: Path, model: Path, data: Path, **keys) -> Path:
    """The config of a small LoRA run, with these keys changed; a key of None is left out."""
    config = {
        "model_path": str(model),
        "dataset_path": str(data),
        "output_dir": str(folder / "run"),
        "batch_size": 8,
        "num_epochs": 2,
        "learning_rate": 5e-3,
        "lora_r": 4,
        "gradient_checkpointing": False,
        "per_device_eval_batch_size": 4,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    kept = {name: value for name, value in (config | keys).items() if value is not None}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    return path


def train_run(folder: Path, model: Path, data: Path, **keys) -> Path:
    """The config of a finished run."""
    config = write_config(folder, model, data, **keys)
    assert train.main([str(config)]) == 0
    return config


def keys_of(config: Path) -> dict:
    return yaml.safe_load(config.read_text(encoding="utf-8"))


def run_of(config: Path) -> Path:
    return Path(keys_of(config)["output_dir"])


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures_of(config: Path) -> dict:
    return json.loads((run_of(config) / "eval.json").read_text(encoding="utf-8"))


def evaluated(config: Path, *options: str) -> dict:
    assert eval_command.main([str(config), "--max-new-tokens", "6", *options]) == 0
    return figures_of(config)


def refused(capsys, *words: str) -> str:
    capsys.readouterr()
    assert eval_command.main(list(words)) == 2
    return capsys.readouterr().err

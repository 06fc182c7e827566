"""What the tests of eval share: pairs, configs of small runs, a look at what eval found."""

import json
import random
from pathlib import Path

import yaml

from dpo_wrap import eval as eval_command

SHORT = ("--samples", "2", "--max-new-tokens", "6")


def write_pairs(path: Path, count: int) -> Path:
    """Pairs in which the chosen answer is of other letters than the rejected one."""
    draw = random.Random(0)
    rows = [
        {
            "prompt": f"{number}:" + "".join(draw.choices("xyz", k=draw.randint(1, 6))),
            "chosen": "".join(draw.choices("abc", k=draw.randint(2, 9))),
            "rejected": "".join(draw.choices("def", k=draw.randint(2, 9))),
        }
        for number in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def write_config(folder: Path, model: Path, data: Path, **keys) -> Path:
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
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config | keys), encoding="utf-8")
    return path


def run_of(config: Path) -> Path:
    return Path(yaml.safe_load(config.read_text(encoding="utf-8"))["output_dir"])


def figures_of(config: Path) -> dict:
    return json.loads((run_of(config) / "eval.json").read_text(encoding="utf-8"))


def evaluated(config: Path, *options: str) -> dict:
    assert eval_command.main([str(config), "--max-new-tokens", "6", *options]) == 0
    return figures_of(config)


def refused(capsys, *words: str) -> str:
    capsys.readouterr()
    assert eval_command.main(list(words)) == 2
    return capsys.readouterr().err

"""The README's walks from a raw file to figures, each command in turn, on the tiny random model."""

import json
import re
import shlex
from pathlib import Path

import pytest

from data_tools import convert
from dpo_wrap import eval as eval_command
from dpo_wrap import train

ROOT = Path(__file__).parent.parent
MAINS = {
    "data_tools.convert": convert.main,
    "dpo_wrap.train": train.main,
    "dpo_wrap.eval": eval_command.main,
}


@pytest.fixture
def small(tiny_model_dir, tmp_path, monkeypatch):
    """Replace the sizes of real use: the options that each command gets on top."""
    monkeypatch.chdir(ROOT)
    keys = {
        "model_path": tiny_model_dir,
        "output_dir": tmp_path / "run",
        "dataset_path": tmp_path / "data",
        "max_length": 128,
        "max_steps": 2,
        "save_strategy": "no",
    }
    sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    return {
        "data_tools.convert": ["-o", str(tmp_path / "data")],
        "dpo_wrap.train": sets,
        "dpo_wrap.eval": [*sets, "--samples", "2", "--max-new-tokens", "4"],
    }


def run(command: str, extra: list[str]) -> int:
    module, *words = shlex.split(command)
    words = [word for word in words if word not in ("--set", "dataset_path=data/raw")]
    return MAINS[module]([*words, *extra])


@pytest.mark.slow
def test_own_data_in_five_lines(small, tmp_path, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Your own data")[1].split("\n## ")[0]
    commands = re.findall(r"^python -m ([^\n#]+)", section, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        "data_tools.convert",
        "dpo_wrap.train",
        "dpo_wrap.train",
        "dpo_wrap.eval",
    ]
    commands[0] = commands[0].replace("raw.csv", "data/raw.csv")
    for command in commands:
        extra = small[command.split()[0]]
        if "max_seq_length" in (ROOT / "configs/dpo_config.yaml").read_text(encoding="utf-8"):
            extra = [word.replace("max_length=", "max_seq_length=") for word in extra]
        assert run(command, extra) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "3,180 kept" in out and "dry run: nothing was written" in out
    assert json.loads((tmp_path / "run/eval.json").read_text(encoding="utf-8"))["examples"] > 50


@pytest.mark.slow
def test_the_quickstarts_config_trains_and_is_judged_by_its_metrics(small, tmp_path):
    raw = str(ROOT / "data/raw.csv")
    assert convert.main([raw, *small["data_tools.convert"], "--test-size", "0.02"]) == 0
    config = str(ROOT / "configs/quickstart.yaml")
    off = ["--set", "eval_strategy=no", "--set", "eval_steps=null"]
    assert train.main([config, *small["dpo_wrap.train"], *off]) == 0
    assert eval_command.main([config, *small["dpo_wrap.eval"]]) == 0
    found = json.loads((tmp_path / "run/eval.json").read_text(encoding="utf-8"))
    assert set(found["metrics"]) == {"sentiment", "well_formed"}
    assert found["metrics"]["well_formed"]["policy"] == 0  # a random model writes no reviews

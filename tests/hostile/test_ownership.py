"""A user's files in output_dir are never replaced, and no two commands write to one run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from training import ROWS, run_json

from dpo_wrap import eval as evaluation
from dpo_wrap import merge, suspects
from dpo_wrap.errors import ModelError
from dpo_wrap.ownership import locked
from dpo_wrap.training import session

ROOT = Path(__file__).parents[2]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--resume", "never")])
@pytest.mark.parametrize(
    "name", ["README.md", "model.safetensors", "checkpoint-7/notes.txt", "dataset/raw.jsonl"]
)
def test_a_file_that_no_run_wrote_is_not_replaced(run, tmp_path, capsys, name, options):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    before = contents(tmp_path / "out")
    assert run(*options)[0] == 2
    error = capsys.readouterr().err
    assert name.partition("/")[0] in error and "move them" in error
    assert contents(tmp_path / "out") == before


def test_raw_data_inside_the_conversion_of_a_run_are_not_replaced(run, tmp_path, capsys):
    out = tmp_path / "exp1"
    (out / "dataset").mkdir(parents=True)
    raw = out / "dataset/raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (out / "README.md").write_text("my notes")
    before = contents(out)
    for options in [("--dry-run",), ()]:
        assert run(*options, output_dir=str(out), dataset_path=str(raw))[0] == 2
    assert contents(out) == before
    (out / "README.md").unlink()
    assert run(output_dir=str(out), dataset_path=str(raw))[0] == 2
    assert "needed for the conversion of" in capsys.readouterr().err
    assert raw.is_file()


def test_other_files_in_output_dir_stay_next_to_the_run(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    raw = out / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert run(dataset_path=str(raw))[0] == 0
    assert (out / "notes.txt").read_text() == "mine" and raw.is_file()
    assert run(dataset_path=str(raw), max_steps=8)[0] == 0


def test_a_checkpoint_that_was_put_into_a_run_is_not_deleted(run, capsys):
    _, out = run()
    (out / "checkpoint-1").mkdir()
    (out / "checkpoint-1/model.bin").write_text("mine")
    assert run(max_steps=8, save_total_limit=1)[0] == 2
    assert "checkpoint-1, which no run wrote" in capsys.readouterr().err
    assert (out / "checkpoint-1/model.bin").is_file()


def test_an_adapter_in_a_checkpoint_of_the_same_run_is_refused(run, capsys):
    _, out = run(save_steps=3)
    assert run(adapter_path=str(out / "checkpoint-3"))[0] == 2
    assert "where training writes" in capsys.readouterr().err


def test_every_command_refuses_a_run_that_another_process_writes(run, tmp_path, capsys):
    _, out = run()
    config = str(tmp_path / "config.yaml")
    commands = {
        "train": lambda: run()[0],
        "dry run": lambda: run("--dry-run")[0],
        "never": lambda: run("--resume", "never")[0],
        "eval": lambda: evaluation.main([config]),
        "merge": lambda: merge.main([str(out), str(tmp_path / "merged")]),
        "suspects": lambda: suspects.main([config]),
    }
    before = contents(out)
    with locked(out, "train"):
        for name, command in commands.items():
            capsys.readouterr()
            assert command() == 2, name
            error = capsys.readouterr().err
            assert f"in use by process {os.getpid()} (python -m dpo_wrap.train)" in error, name
    assert contents(out) == before and not Path(f"{out}.lock").exists()
    assert commands["train"]() == 0


def test_the_lock_of_a_killed_process_does_not_count(run, tmp_path):
    code = "import os, pathlib, signal\nfrom dpo_wrap.ownership import locked\n"
    code += f"with locked(pathlib.Path({str(tmp_path / 'out')!r}), 'train'):\n"
    code += "    os.kill(os.getpid(), signal.SIGKILL)\n"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert (tmp_path / "out.lock").is_file()
    assert run()[0] == 0
    assert not (tmp_path / "out.lock").exists()


FOREIGN = """
import pathlib
from transformers import GPT2Config, GPT2LMHeadModel
pathlib.Path(__file__).with_name("executed").touch()
pathlib.Path({trace!r}).touch()
class Config(GPT2Config):
    model_type = "foreign"
class Model(GPT2LMHeadModel):
    config_class = Config
"""


def test_a_run_directory_does_not_decide_that_foreign_code_is_run(run, tmp_path, capsys):
    _, out = run()
    base, trace = Path(run_json(out)["config"]["model_path"]), tmp_path / "executed"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for file in base.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    (foreign / "code.py").write_text(FOREIGN.format(trace=str(trace)))
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "foreign", "architectures": ["Model"]}
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (foreign / "config.json").write_text(json.dumps(config))
    resolved = out / "config.resolved.yaml"
    marker, _, text = resolved.read_text().partition("\n")
    for trust in (
        {"trust_remote_code": True},
        {"model_init_kwargs": {"trust_remote_code": True}},
    ):
        keys = yaml.safe_load(text) | {"model_path": str(foreign), **trust}
        resolved.write_text(f"{marker}\n{yaml.safe_dump(keys)}")
        assert merge.main([str(out), str(tmp_path / "merged")]) == 2
        own = [str(tmp_path / "config.yaml"), "--set", f"model_path={foreign}"]
        assert evaluation.main(own) == 2
        other = tmp_path / "other"
        assert run(output_dir=str(other))[0] == 0
        assert evaluation.main([str(tmp_path / "config.yaml"), "--against", str(out)]) == 2
        assert not trace.exists()
    error = capsys.readouterr().err
    assert str(foreign) in error


def test_a_refused_run_leaves_no_directory(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise ModelError("no")

    monkeypatch.setattr(session, "measure_step_zero", refuse)
    before = {path.name for path in tmp_path.iterdir()} | {"config.yaml"}
    assert run()[0] == 2
    assert {path.name for path in tmp_path.iterdir()} == before

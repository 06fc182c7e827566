"""What commands print: no control characters from data, no secrets, and a closed output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from training import ROWS

from dpo_wrap import eval as evaluation
from dpo_wrap.terminal import printable
from dpo_wrap.train import main

ROOT = Path(__file__).parents[2]
ESCAPE, OVERRIDE = "\x1b]0;owned\x07\x1b[2J", "\u202e"
TOKEN = "hf_" + "Ab1" * 11


def test_escape_sequences_of_data_and_names_do_not_reach_the_terminal(run, tmp_path, capsys):
    rows = [row | {"prompt": f"{ESCAPE}{OVERRIDE}{row['prompt']}"} for row in ROWS]
    raw = tmp_path / f"pairs{ESCAPE[:8]}.json"
    raw.write_text(json.dumps(rows))
    assert run("--dry-run", dataset_path=str(raw))[0] == 0
    assert run(dataset_path=str(raw))[0] == 0
    main([str(tmp_path / f"none{ESCAPE}.yaml")])
    evaluation.main([str(tmp_path / "config.yaml"), "--split", "train", "--samples", "1"])
    shown = "".join(capsys.readouterr())
    assert "\\x1b]0;owned\\x07" in shown and "\\u202e" in shown
    assert not {"\x1b", "\x07", OVERRIDE} & {*shown}


def test_printable_keeps_what_is_text():
    text = "naïve\t日本語　全角\u00a0🙂\nnext"
    assert printable(text) == text


@pytest.mark.parametrize(
    "keys",
    [
        {"hub_token": 7},
        {"hub_tokn": "secret-value"},
        {"model_init_kwargs": {"token": TOKEN}, "beta": -1},
        {"model_path": f"https://user:secret-value@host/{TOKEN}"},
    ],
)
def test_a_secret_is_in_no_message(tmp_path, capsys, keys):
    config = {"model_path": "gpt2", "dataset_path": "none.json", "output_dir": "out"} | keys
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main([str(tmp_path / "c.yaml")]) == 2
    (tmp_path / "d.yaml").write_text("model_path: gpt2\ndataset_path: none.json\noutput_dir: out\n")
    options = [f"--set={key}={json.dumps(value)}" for key, value in keys.items()]
    assert main([str(tmp_path / "d.yaml"), *options]) == 2
    shown = "".join(capsys.readouterr())
    assert TOKEN not in shown and "secret-value" not in shown and shown.count("c.yaml") > 0


def test_a_secret_is_not_in_the_resolved_config(run):
    status, out = run(hub_token=TOKEN, run_name=f"run with {TOKEN}", report_to="wandb")
    if status == 2:  # without that tracker
        status, out = run(hub_token=TOKEN, hub_model_id=f"me/{TOKEN}")
    assert status == 0
    for path in out.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".json", ".html", ".md", ".jsonl"):
            assert TOKEN not in path.read_text(), path


def test_a_reader_that_leaves_does_not_stop_the_training(run, tmp_path):
    assert run("--dry-run")[0] == 0
    command = f"{sys.executable} -m dpo_wrap.train {tmp_path}/config.yaml | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert "Broken pipe" not in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out/run.json").is_file()


def test_backticks_in_names_let_no_html_into_the_cards(tmp_path, monkeypatch):
    from data_tools import convert
    from dpo_wrap.report.card import code_span

    name = "a`<img src=x>`b"
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.csv").write_text(f"prompt,chosen,rejected,{name}\nP,C,R,k\n")
    convert(f"{name}.csv", output="out", keep=[name])
    card = Path("out/README.md").read_text()
    assert f"- `` {name}.csv ``" in card and f"| `` {name} `` |" in card
    assert code_span("a``b") == "``` a``b ```" and code_span("a") == "`a`"

"""Every command with everything local, no Hub variable set, and no socket to be had."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import ROWS

ROOT = Path(__file__).parent.parent

# Refused and reported at any attempt, also where a library would swallow the error.
CODE = """
import socket, sys
def refuse(*a, **k):
    print('a connection was asked for', a, file=sys.stderr)
    raise OSError('no network')
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from data_tools import convert
from dpo_wrap import eval, merge, train
import os
os.chdir({folder!r})
mains = {{'convert': convert.main, 'train': train.main, 'eval': eval.main, 'merge': merge.main}}
for command, *words in {commands!r}:
    status = mains[command](words)
    if status:
        sys.exit(f'{{command}} ended with {{status}}')
"""


@pytest.mark.slow
def test_every_command_passes_without_a_network_and_calls_nobody(tiny_model_dir, tmp_path):
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "c.yaml").write_text(
        f"model_path: {tiny_model_dir}\ndataset_path: data/raw\noutput_dir: run\nmax_steps: 2\n"
    )
    commands = [
        ["convert", "raw.jsonl", "--test-size", "0.3"],
        ["train", "c.yaml", "--dry-run"],
        ["train", "c.yaml"],
        ["eval", "c.yaml", "--samples", "2", "--max-new-tokens", "4"],
        ["merge", "run", "merged"],
    ]
    code = CODE.format(folder=str(tmp_path), commands=commands)
    online = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "CI"))}
    online["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", code], env=online, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a connection was asked for" not in done.stderr
    assert (tmp_path / "merged" / "model.safetensors").is_file()

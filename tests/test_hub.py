"""hub: what is a path, what can be a name, and when the Hub is used."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dpo_wrap import hub
from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError
from tests.training import ROWS

ROOT = Path(__file__).parent.parent


@pytest.fixture
def settings(tmp_path):
    def make(**keys):
        keys = {"model_path": "gpt2", "dataset_path": "d", "output_dir": "o"} | keys
        (tmp_path / "c.yaml").write_text(json.dumps(keys, indent=0))
        return load_settings(str(tmp_path / "c.yaml"))

    return make


@pytest.fixture
def environment(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HTTPS_PROXY", "https_proxy"):
        # Set first, so that what a test leaves is removed too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("names", "possible"),
    [
        (["gpt2", "owner/name", "Qwen/Qwen2.5-0.5B"], True),
        (["./gpt2", "/models/gpt2", "~/gpt2", "a/b/c", "a//b", "a\\b"], False),
        (["data/pairs.json", "raw.csv.gz"], False),
    ],
)
def test_a_name_on_the_hub_does_not_look_like_a_path(names, possible):
    assert [hub.is_hub_name(name) for name in names] == [possible] * len(names)


def test_all_mistyped_paths_are_refused_at_once(settings):
    keys = {"dataset_path": ["gpt2", "data/pears.json"], "metrics": ["no.py"]}
    with pytest.raises(ConfigError) as caught:
        hub.check_paths(settings(model_path="./nowhere", **keys))
    lines = str(caught.value).splitlines()
    assert "model_path './nowhere' does not exist; give the path of a model's directory" in lines[0]
    assert "dataset_path 'data/pears.json' does not exist; give the path of a dataset" in lines[1]
    assert "metrics 'no.py' does not exist; give the path of a metric module" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "holds more than a run; name a directory of its own"),
        ("..", "holds more than a run; name a directory of its own"),
        ("/", "holds more than a run; name a directory of its own"),
        ("data", "is dataset_path 'data' or inside it"),
        ("data/run", "is dataset_path 'data' or inside it"),
        ("model", "is model_path 'model' or inside it"),
        ("file/below/it", "file is a file; name a directory"),
    ],
)
def test_a_run_needs_a_directory_of_its_own(settings, tmp_path, monkeypatch, out, message):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        hub.check_paths(settings(model_path="model", dataset_path="data", output_dir=out))
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1
    hub.check_paths(settings(model_path="model", dataset_path="data", output_dir="new/run"))


def test_an_input_inside_an_older_run_is_not_moved_with_it(settings, tmp_path):
    (tmp_path / "run/checkpoint-2").mkdir(parents=True)
    keys = {"output_dir": str(tmp_path / "run")}
    hub.check_moving(settings(**keys))
    with pytest.raises(ConfigError, match="adapter_path .* is inside .* --resume never renames"):
        hub.check_moving(settings(adapter_path=str(tmp_path / "run/checkpoint-2"), **keys))


def test_a_home_directory_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert hub.located("~/model") == str(tmp_path / "model")
    assert hub.located("gpt2") == "gpt2"


class Connection:
    def close(self):
        pass


@pytest.mark.parametrize("reachable", [True, False])
def test_an_unreachable_hub_is_disabled(settings, environment, monkeypatch, reachable):
    addresses = []

    def connect(address, timeout):
        addresses.append(address)
        if not reachable:
            raise OSError("no network")
        return Connection()

    monkeypatch.setattr(socket, "create_connection", connect)
    pushing = settings(push_to_hub=True)
    hub.configure_environment(pushing)
    assert addresses == [("huggingface.co", 443)]
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert ("HF_HUB_OFFLINE" in os.environ) is not reachable
    if reachable:
        hub.check_push(pushing)
    else:
        with pytest.raises(ConfigError, match="push_to_hub: the Hub cannot be reached.*hf upload"):
            hub.check_push(pushing)


def test_the_hub_is_disabled_without_asking_if_everything_is_local(
    settings, environment, tmp_path, monkeypatch
):
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    hub.configure_environment(settings(model_path=str(tmp_path), dataset_path=str(tmp_path)))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


# Connections are refused and reported, because a library may swallow the error.
CODE = """
import socket, sys
def refuse(*a, **k):
    print('a connection was attempted', a, file=sys.stderr)
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
def test_no_command_connects_to_anything_if_everything_is_local(tiny_model_dir, tmp_path):
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
    assert "a connection was attempted" not in done.stderr
    assert (tmp_path / "merged" / "model.safetensors").is_file()

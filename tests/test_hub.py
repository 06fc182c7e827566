"""hub: what is a path, what can be a name, and when the Hub is left alone."""

import json
import os
import socket

import pytest

from dpo_wrap import hub
from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError


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
        # Set first, so that what a test leaves behind is undone too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "name", ["gpt2", "owner/name", "Qwen/Qwen2.5-0.5B", "openai-community/gpt2"]
)
def test_a_name_or_owner_and_name_can_be_on_the_hub(name):
    assert hub.is_hub_name(name)


@pytest.mark.parametrize(
    "name",
    ["./gpt2", "/models/gpt2", "~/gpt2", "a/b/c", "data/pairs.json", "raw.csv.gz", "a//b", "a\\b"],
)
def test_what_looks_like_a_path_is_one(name):
    assert not hub.is_hub_name(name)


def test_mistyped_paths_are_refused_all_at_once(settings):
    with pytest.raises(ConfigError) as caught:
        hub.check_paths(settings(model_path="./nowhere", dataset_path=["gpt2", "data/pears.json"]))
    lines = str(caught.value).splitlines()
    assert "model_path './nowhere' does not exist; give the path of a model's directory" in lines[0]
    assert "dataset_path 'data/pears.json' does not exist; give the path of a dataset" in lines[1]
    assert len(lines) == 2


def test_a_metric_module_that_does_not_exist_is_refused_before_training(settings, tmp_path):
    with pytest.raises(ConfigError, match="metrics: 'no.py' does not exist"):
        hub.check_paths(settings(metrics=["no.py"], output_dir=str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (".", "holds more than a run; name a directory of its own"),
        ("..", "holds more than a run; name a directory of its own"),
        ("/", "holds more than a run; name a directory of its own"),
        ("data", "is or lies in dataset_path"),
        ("data/run", "is or lies in dataset_path"),
        ("model", "is or lies in model_path"),
        ("file/below/it", "file is a file; name a directory"),
    ],
)
def test_a_run_has_a_directory_to_itself(settings, tmp_path, monkeypatch, out, said):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        hub.check_paths(settings(model_path="model", dataset_path="data", output_dir=out))
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1
    hub.check_paths(settings(model_path="model", dataset_path="data", output_dir="new/run"))


def test_what_a_run_is_made_from_is_not_moved_aside(settings, tmp_path):
    (tmp_path / "run/checkpoint-2").mkdir(parents=True)
    keys = {"output_dir": str(tmp_path / "run")}
    hub.check_moving(settings(**keys))
    with pytest.raises(ConfigError, match="adapter_path .* lies in .* would move aside"):
        hub.check_moving(settings(adapter_path=str(tmp_path / "run/checkpoint-2"), **keys))


def test_with_everything_local_the_hub_is_switched_off_unasked(
    settings, environment, tmp_path, monkeypatch
):
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("asked"))
    hub.settle_environment(settings(model_path=str(tmp_path), dataset_path=str(tmp_path)))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_a_hub_out_of_reach_is_switched_off(settings, environment, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    hub.settle_environment(settings())
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_hub_in_reach_stays_on_with_telemetry_off(settings, environment, monkeypatch):
    asked = []

    class Connection:
        def close(self):
            pass

    monkeypatch.setattr(
        socket, "create_connection", lambda address, timeout: asked.append(address) or Connection()
    )
    hub.settle_environment(settings())
    assert asked == [("huggingface.co", 443)]
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_a_home_folder_is_filled_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert hub.located("~/model") == str(tmp_path / "model")
    assert hub.located("gpt2") == "gpt2"


def test_a_push_that_cannot_be_done_is_refused_before_training(settings, environment, monkeypatch):
    pushing = settings(push_to_hub=True)
    monkeypatch.setattr(hub, "_reachable", lambda: False)
    hub.settle_environment(pushing)
    with pytest.raises(ConfigError, match="push_to_hub: the Hub cannot be reached.*hf upload"):
        hub.check_push(pushing)
    monkeypatch.setattr(hub, "_reachable", lambda: True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.settle_environment(pushing)
    hub.check_push(pushing)

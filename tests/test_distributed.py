"""dpo_wrap.train in several processes: two equal one process with twice the batch."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from training import ROWS, adapter_weights, metrics, without_times

from dpo_wrap.errors import ConfigError
from dpo_wrap.train import main
from dpo_wrap.training import prepare

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs/accelerate"
# 24 are in train, so that no process has to fill its last batch; one is in test.
PAIRS = [*ROWS, ROWS[0] | {"prompt": "Day 24: it was"}]


def launched(name):
    """A config as accelerate's launcher reads it."""
    options = ["--config_file", str(CONFIGS / name), "-m", "dpo_wrap.train", "config.yaml"]
    return _validate_launch_command(launch_command_parser().parse_args(options))


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.iterdir()))
def test_accelerate_knows_every_key_of_a_shipped_config(name):
    arguments, config, _ = launched(name)
    assert arguments.num_processes == 2
    assert {*config.fsdp_config, *config.deepspeed_config} <= vars(arguments).keys()
    # The file's comment has the line that uses it.
    assert f"--config_file configs/accelerate/{name} -m dpo_wrap.train CONFIG" in (
        (CONFIGS / name).read_text()
    )


def test_the_fsdp_config_is_fsdp_2_and_saves_whole_weights(monkeypatch):
    arguments, _, _ = launched("fsdp.yaml")
    assert arguments.use_fsdp
    for name, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.state_dict_type.name) == (2, "FULL_STATE_DICT")
    assert not plugin.cpu_ram_efficient_loading


def test_the_zero3_config_is_stage_3_and_saves_whole_weights(monkeypatch):
    arguments, config, _ = launched("zero3.yaml")
    assert arguments.use_deepspeed
    arguments.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)
    for name, value in prepare_deepspeed_cmd_env(arguments)[1].items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 3 and plugin.zero3_save_16bit_model


def test_processes_that_accelerate_does_not_connect_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    prepare._check_connected(SimpleNamespace(world_size=2))
    with pytest.raises(ConfigError, match="2 processes were launched and accelerate connects 1"):
        prepare._check_connected(SimpleNamespace(world_size=1))


@pytest.fixture(scope="module")
def folder(tiny_model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "pairs.json").write_text(json.dumps(PAIRS))
    return folder


@pytest.fixture
def config(tiny_model_dir, folder):
    """A function that writes a config of 12 steps of 4 pairs: its path."""

    def write(name, **more):
        keys = {
            "model_path": str(tiny_model_dir),
            "dataset_path": str(folder / "pairs.json"),
            "output_dir": str(folder / name),
            "batch_size": 2,
            "max_steps": 12,
            "logging_steps": 1,
            "save_steps": 3,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "learning_rate": 1e-2,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(keys | more))
        return folder / f"{name}.yaml"

    return write


def launch(config):
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(CONFIGS / "cpu.yaml"), "-m", "dpo_wrap.train", str(config)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process):
    """Exit status and output."""
    text = process.communicate(timeout=120)[0]
    return process.returncode, text


def last_worker(process):
    """The id of the last process that the launcher started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return int(children.split()[-1])


def read_until(process, start):
    """The output up to a line."""
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith(start):
            return text
    raise AssertionError(f"{start!r} was not printed:\n{text}")


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_equal_one_with_twice_the_batch(config, folder, capsys):
    assert main([str(config("one", batch_size=4))]) == 0
    two = config("two")
    # One of the two is killed; the other cannot continue.
    process = launch(two)
    first = read_until(process, "step 4/12")
    os.kill(last_worker(process), signal.SIGKILL)
    status, text = ended(process)
    assert status == 1
    assert first.count("converted, 25 of 25 pairs kept") == 1
    assert first.count("step 0: loss 0.6931 = ln 2, margin 0.0000") == 1
    assert "another process of this run has ended; the same command resumes" in text
    # Warnings of torch start with [W; tracebacks do not.
    assert not re.search(r"\[rank\d\]:(?!\[W)", first + text)
    assert main([str(two)]) == 2
    assert "the run there differs in processes (2 there, 1 here)" in capsys.readouterr().err
    # One of the two is asked to stop; both do, after the same step.
    process = launch(two)
    first = read_until(process, "step 7/12")
    # On a busy machine the kill comes some steps later.
    assert re.search(f"resuming from {re.escape(str(folder))}/two/checkpoint-[36]\n", first)
    os.kill(last_worker(process), signal.SIGTERM)
    status, text = ended(process)
    assert status == 1
    assert text.count("stopped by SIGTERM after step ") == 1
    status, text = ended(launch(two))
    assert status == 0, text
    assert "converted" not in text
    assert text.count("trained 12 steps on 24 pairs") == 1
    one, two = folder / "one", folder / "two"
    lines, expected = metrics(two), metrics(one)
    assert [line["step"] for line in lines] == list(range(1, 13))
    for line, other in zip(lines, expected, strict=True):
        assert without_times(line) == pytest.approx(without_times(other), rel=1e-6, abs=1e-6)
    before, after = adapter_weights(one), adapter_weights(two)
    assert before.keys() == after.keys() and len(after) > 0
    for name in before:
        assert after[name].numpy() == pytest.approx(before[name].numpy(), abs=1e-6)
    assert {path.name for path in one.iterdir()} - {path.name for path in two.iterdir()} == set()


@pytest.mark.slow
def test_a_refusal_is_printed_once_and_ends_both_processes(config, folder):
    (folder / "same.json").write_text(json.dumps([r | {"rejected": r["chosen"]} for r in PAIRS]))
    status, text = ended(launch(config("refused", dataset_path=str(folder / "same.json"))))
    # The launcher exits with 1 for any status but 0, and reports that of the process.
    assert status == 1 and "exitcode  : 2" in text
    assert text.count("no pair could be kept (identical_pair 25)") == 1
    assert "[rank" not in text
    assert not (folder / "refused").exists()


@pytest.mark.slow
def test_a_reference_precomputed_in_two_processes_gives_the_same_run(config, folder):
    assert main([str(config("plain", batch_size=4, max_steps=3))]) == 0
    keys = {"precompute_ref_log_probs": True, "max_steps": 3}
    status, text = ended(launch(config("precomputed", **keys)))
    assert status == 0, text
    losses = [[line["loss"] for line in metrics(folder / n)] for n in ("plain", "precomputed")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.slow
def test_prefix_sharing_in_two_processes_changes_no_figure(config, folder):
    for way in ("on", "off"):
        status, text = ended(launch(config(way, prefix_sharing=way, max_steps=6)))
        assert status == 0, text
        assert text.count(f"prefix sharing: {way}, ") == 1
    shared, plain = metrics(folder / "on"), metrics(folder / "off")
    assert len(shared) == len(plain) >= 6
    for line, other in zip(shared, plain, strict=True):
        assert without_times(line) == pytest.approx(without_times(other), rel=1e-5, abs=1e-5)

"""dpo_wrap.train in several processes: on two over gloo it is one process with twice the batch."""

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
# 24 of them in train, so that no process fills its last batch up; one in test.
PAIRS = [*ROWS, ROWS[0] | {"prompt": "Day 24: it was"}]


def launched(name):
    """accelerate's own reading of a config, as its launcher would act on it."""
    options = ["--config_file", str(CONFIGS / name), "-m", "dpo_wrap.train", "config.yaml"]
    return _validate_launch_command(launch_command_parser().parse_args(options))


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.iterdir()))
def test_accelerate_knows_every_key_of_a_shipped_config(name):
    arguments, config, _ = launched(name)
    assert arguments.num_processes == 2
    assert {*config.fsdp_config, *config.deepspeed_config} <= vars(arguments).keys()
    # Named in the file as the line that runs it.
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
    """Exit status and what was printed."""
    said = process.communicate(timeout=120)[0]
    return process.returncode, said


def last_worker(process):
    """The id of the process that the launcher started last."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return int(children.split()[-1])


def read_until(process, start):
    """What was printed up to a line."""
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(start):
            return said
    raise AssertionError(f"{start!r} was not printed:\n{said}")


@pytest.mark.slow
def test_two_processes_stopped_and_gone_on_with_equal_one_of_twice_the_batch(
    config, folder, capsys
):
    assert main([str(config("one", batch_size=4))]) == 0
    two = config("two")
    # One of the two is killed; the other has nobody to go on with.
    process = launch(two)
    first = read_until(process, "step 4/12")
    os.kill(last_worker(process), signal.SIGKILL)
    status, said = ended(process)
    assert status == 1
    assert first.count("converted, 25 of 25 pairs kept") == 1
    assert first.count("step 0: loss 0.6931 = ln 2, margin 0.0000") == 1
    assert "another process of this run has ended; the same command goes on" in said
    # What torch warns of begins with [W; a traceback would not.
    assert not re.search(r"\[rank\d\]:(?!\[W)", first + said)
    assert main([str(two)]) == 2
    assert "made with others: processes (2 there, 1 here)" in capsys.readouterr().err
    # One of the two is asked to stop; both do, after the same step.
    process = launch(two)
    first = read_until(process, "step 7/12")
    # On a busy machine it is killed some steps later.
    assert re.search(f"going on from {re.escape(str(folder))}/two/checkpoint-[36]\n", first)
    os.kill(last_worker(process), signal.SIGTERM)
    status, said = ended(process)
    assert status == 1
    assert said.count("stopped by SIGTERM after step ") == 1
    status, said = ended(launch(two))
    assert status == 0, said
    assert "converted" not in said
    assert said.count("trained 12 steps on 24 pairs") == 1
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
def test_a_refusal_in_one_process_is_said_once_and_ends_the_other(config, folder):
    (folder / "same.json").write_text(json.dumps([r | {"rejected": r["chosen"]} for r in PAIRS]))
    status, said = ended(launch(config("refused", dataset_path=str(folder / "same.json"))))
    # The launcher makes 1 of every status that is not 0; its own report names the process's.
    assert status == 1 and "exitcode  : 2" in said
    assert said.count("no pair could be kept (identical_pair 25)") == 1
    assert "[rank" not in said
    assert not (folder / "refused").exists()


@pytest.mark.slow
def test_a_reference_computed_before_in_two_processes_gives_the_same_run(config, folder):
    assert main([str(config("plain", batch_size=4, max_steps=3))]) == 0
    keys = {"precompute_ref_log_probs": True, "max_steps": 3}
    status, said = ended(launch(config("precomputed", **keys)))
    assert status == 0, said
    losses = [[line["loss"] for line in metrics(folder / n)] for n in ("plain", "precomputed")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.slow
def test_two_processes_that_share_prompts_have_the_figures_of_two_that_do_not(config, folder):
    for way in ("on", "off"):
        status, said = ended(launch(config(way, prefix_sharing=way, max_steps=6)))
        assert status == 0, said
        assert said.count(f"prefix sharing: {way}, ") == 1
    shared, plain = metrics(folder / "on"), metrics(folder / "off")
    assert len(shared) == len(plain) >= 6
    for line, other in zip(shared, plain, strict=True):
        assert without_times(line) == pytest.approx(without_times(other), rel=1e-5, abs=1e-5)

"""run_dir: which runs are resumed, which are refused, and that nothing is lost."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from training import ROWS, TALK, adapter_weights, metrics, run_json, same

from dpo_wrap import run_dir
from dpo_wrap.errors import ConfigError
from dpo_wrap.ownership import MARKER
from dpo_wrap.training import session

ROOT = Path(__file__).parent.parent


@pytest.fixture
def resumed(run, capsys):
    """A function that runs the command again: what it printed."""

    def again(*options, **keys):
        capsys.readouterr()
        assert run(*options, **keys)[0] == 0
        return capsys.readouterr().out

    return again


@pytest.fixture
def refused(run, capsys):
    def refuse(*options, **keys):
        capsys.readouterr()
        assert run(*options, **keys)[0] == 2
        return capsys.readouterr().err

    return refuse


@pytest.fixture
def stop(run, monkeypatch, capsys):
    """A function that starts a run and sends SIGTERM in a step: the directory and the message."""

    def start(in_step, **keys):
        class Interrupted(session.Progress):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step + 1 == in_step:
                    signal.raise_signal(signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(session, "Progress", Interrupted)
            status, out = run(**keys)
        assert status == 1 and not (out / "run.json").exists()
        return out, capsys.readouterr().err.splitlines()[-1]

    return start


def test_a_stopped_run_is_resumed_to_the_same_weights(run, stop, resumed, tmp_path):
    _, whole = run(output_dir=str(tmp_path / "whole"), lora_dropout=0.1)
    out, error = stop(in_step=3, lora_dropout=0.1)
    assert error.startswith("stopped by SIGTERM after step 3 of 6; ")
    assert f"saved {out}/checkpoint-3, from which the same command resumes" in error
    assert f"resuming from {out / 'checkpoint-3'}" in resumed(lora_dropout=0.1)
    assert same(adapter_weights(whole), adapter_weights(out))
    expected, lines = metrics(whole), metrics(out)
    assert [line["step"] for line in lines] == [line["step"] for line in expected] == [2, 4, 6]
    assert [line["step"] for line in lines if "partial" in line] == [4]
    assert [line["loss"] for line in lines][::2] == [line["loss"] for line in expected][::2]
    assert run_json(out)["step_0"]["margin"] == 0


@pytest.mark.parametrize(
    "keys", [{"lora": False, "learning_rate": 1e-4}, {"adapter_path": "first"}]
)
def test_full_weights_and_adapters_are_resumed_to_the_same_weights_too(run, stop, tmp_path, keys):
    if "adapter_path" in keys:
        run(output_dir=str(tmp_path / "first"))
        keys = {"adapter_path": str(tmp_path / "first"), "lora_dropout": 0.1}
    _, whole = run(output_dir=str(tmp_path / "whole"), **keys)
    out, _ = stop(in_step=3, **keys)
    assert run(**keys)[0] == 0
    name = "model.safetensors" if "lora" in keys else "adapter_model.safetensors"
    assert same(load_file(whole / name), load_file(out / name))


def test_a_stopped_run_can_be_resumed_even_with_save_only_model(stop, resumed):
    out, _ = stop(in_step=3, save_only_model=True, save_steps=2)
    text = resumed(save_only_model=True, save_steps=2)
    assert f"resuming from {out / 'checkpoint-3'}" in text


def test_a_finished_run_is_left_as_it_is(run, resumed):
    _, out = run()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    nothing = "already finished with this config and these data; nothing to do"
    assert nothing in resumed()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    # Written out or not, a default is the same, and these keys change no weight.
    assert nothing in resumed(weight_decay=0.0)
    assert nothing in resumed(report_to="tensorboard", logging_dir="logs", save_total_limit=2)
    # The Hub's keys need a network before anything else.
    done = run_json(out)
    hub = {"push_to_hub": True, "hub_model_id": "me/mine", "hub_strategy": "end"}
    asked = done | {"config": done["config"] | hub, "processes": 2}
    assert run_dir.where_to_start(out, "auto", asked).finished == done
    asked = done | {"config": done["config"] | {"seed": 1}, "processes": 1}
    with pytest.raises(ConfigError, match="seed [(]42 there, 1 here[)]"):
        run_dir.where_to_start(out, "auto", asked)


def test_another_config_or_other_data_are_refused_by_name(run, refused, tmp_path):
    _, out = run()
    error = refused(beta=0.2, lora_r=4)
    assert "beta (0.1 there, 0.2 here), lora.r (8 there, 4 here)" in error
    assert "--resume never" in error
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS[:20]))
    before = (out / "dataset/report.json").read_bytes()
    assert "the run there differs in the data;" in refused()
    assert (out / "dataset/report.json").read_bytes() == before
    refused("--dry-run")


def test_other_weights_under_the_same_path_are_refused(run, refused, tiny_model_dir, tmp_path):
    model = shutil.copytree(tiny_model_dir, tmp_path / "base")
    run(model_path=str(model))
    weights = load_file(model / "model.safetensors")
    save_file({n: w + 1 for n, w in weights.items()}, model / "model.safetensors", {"format": "pt"})
    error = refused(model_path=str(model), max_steps=8)
    assert "the run there differs in the initial weights;" in error


def test_another_chat_template_is_refused(run, refused, tmp_path):
    (tmp_path / "talk.json").write_text(json.dumps(TALK))
    file = tmp_path / "mine.jinja"
    keys = {"dataset_path": str(tmp_path / "talk.json"), "chat_template": str(file)}
    file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    assert run(**keys)[0] == 0
    file.write_text("{% for m in messages %}({{ m['content'] }}){% endfor %}")
    assert "the run there differs in the chat template;" in refused(**keys)


def test_never_renames_the_old_run(run, resumed):
    _, out = run()
    text = resumed("--resume", "never", beta=0.2)
    assert f"the old run was renamed to {out}.old-1" in text
    assert run_json(out)["config"]["beta"] == 0.2
    assert "beta" not in run_json(out.parent / "out.old-1")["config"]
    assert (out / "dataset/report.json").is_file()
    resumed("--resume", "never", beta=0.2)
    assert (out.parent / "out.old-2/run.json").is_file()


def test_a_finished_run_can_be_extended_but_not_shortened(run, resumed, refused):
    _, out = run()
    text = resumed(max_steps=10)
    assert f"resuming from {out / 'checkpoint-6'}" in text
    assert "max_steps was 6 and is 10: learning_rate follows the schedule of the longer run" in text
    assert [line["step"] for line in metrics(out)] == [2, 4, 6, 8, 10]
    assert run_json(out)["steps"] == 10
    assert "max_steps (10 there, 8 here)" in refused(max_steps=8)


def test_with_a_constant_rate_an_extended_run_equals_the_longer_one(run, resumed, tmp_path):
    keys = {"max_steps": None, "lr_scheduler_type": "constant"}
    _, whole = run(output_dir=str(tmp_path / "whole"), num_epochs=2, **keys)
    _, out = run(num_epochs=1, **keys)
    text = resumed(num_epochs=2, **keys)
    assert f"resuming from {out / 'checkpoint-6'}" in text and "schedule" not in text
    assert same(adapter_weights(whole), adapter_weights(out))
    assert metrics(whole) == metrics(out)


def test_a_damaged_checkpoint_is_skipped_with_a_line(stop, resumed):
    out, _ = stop(in_step=5, save_steps=2)
    damaged = out / "checkpoint-5/optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:-10] + b"0123456789")
    (out / "checkpoint-4/dpo_wrap.json").unlink()
    text = resumed(save_steps=2)
    assert f"{out / 'checkpoint-5'} is damaged (optimizer.pt); skipped" in text
    assert f"{out / 'checkpoint-4'} is not complete; skipped" in text
    assert f"resuming from {out / 'checkpoint-2'}" in text
    assert [line["step"] for line in metrics(out)] == [2, 4, 6]


EARLY = {
    "max_steps": 12,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_rewards/accuracies",
    "early_stopping_patience": 1,
}


@pytest.mark.parametrize("keys", [{"max_steps": 4}, EARLY], ids=["max_steps", "early stopping"])
def test_a_run_that_ended_before_run_json_takes_no_further_step(run, resumed, keys):
    # Of 24 pairs in batches of 4 an epoch has 6 steps: both runs end within one.
    _, out = run(**keys)
    before, lines, steps = adapter_weights(out), metrics(out), run_json(out)["steps"]
    assert steps < 6
    (out / "run.json").unlink()
    (out / "adapter_model.safetensors").unlink()
    assert f"resuming from {out}/checkpoint-{steps}" in resumed(**keys)
    assert run_json(out)["steps"] == steps
    assert metrics(out) == lines
    assert same(adapter_weights(out), before)


def test_a_finished_run_without_its_weights_gets_them_back(run, resumed):
    _, out = run()
    before = adapter_weights(out)
    (out / "adapter_model.safetensors").unlink()
    assert "the run is finished, but its weights are missing" in resumed()
    assert same(adapter_weights(out), before)


def test_weights_without_a_checkpoint_are_not_overwritten(run, refused):
    _, out = run(save_strategy="no")
    error = refused(save_strategy="no", max_steps=8)
    assert "holds trained weights and no checkpoint to resume from" in error
    (out / "run.json").unlink()
    refused(save_strategy="no")


def test_the_damage_of_every_checkpoint_is_named(run, refused):
    _, out = run(max_steps=2)
    damaged = out / "checkpoint-2/optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    for options in ([], ["--dry-run"]):
        error = refused(*options, max_steps=4)
        assert f"({out / 'checkpoint-2'} is damaged (optimizer.pt); skipped); choose" in error


def test_a_run_that_left_no_checkpoint_starts_at_step_0(resumed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.resolved.yaml").write_text(MARKER)
    (tmp_path / "out/metrics.jsonl").write_text('{"step": 2}\n')
    assert "an earlier run left no complete checkpoint; starting at step 0" in resumed()
    assert [line["step"] for line in metrics(tmp_path / "out")] == [2, 4, 6]


def test_resume_takes_the_path_of_a_matching_checkpoint(run, resumed, refused):
    _, out = run(save_steps=2)
    (out / "run.json").unlink()
    keys, path = {"save_steps": 2}, str(out / "checkpoint-2")
    error = refused("--resume", str(out / "checkpoint-9"), **keys)
    assert "the checkpoint does not exist; there are" in error
    error = refused("--resume", str(out), **keys)
    assert f"--resume {out}: a run, not a checkpoint; it has {out}/checkpoint-" in error
    assert "beta (0.1 there, 0.3 here)" in refused("--resume", path, beta=0.3, **keys)
    elsewhere = out.parent / "elsewhere"
    resumed("--resume", path, output_dir=str(elsewhere), **keys)
    assert same(adapter_weights(elsewhere), adapter_weights(out))
    assert metrics(elsewhere) == metrics(out)
    error = refused("--resume", path, output_dir=str(elsewhere), **keys)
    assert f"output_dir {elsewhere} holds another run" in error
    resumed("--resume", path, **keys)
    assert [line["step"] for line in metrics(out)] == [2, 4, 6]
    assert not any("partial" in line for line in metrics(out))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_stopped_leaves_a_run_to_resume(resumed, tmp_path, number):
    keys = {"max_steps": 3000, "save_steps": 10, "save_total_limit": 2}
    resumed("--dry-run", **keys)
    command = [sys.executable, "-m", "dpo_wrap.train", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 24/"):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait() == 1
    assert f"stopped by {number.name} after step" in rest and "Traceback" not in rest
    assert not (tmp_path / "out/run.json").exists()
    text = resumed("--dry-run", **keys)
    assert "resuming from" in text and "steps: 3000, of which" in text

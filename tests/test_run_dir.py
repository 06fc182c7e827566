"""run_dir and checkpoints: what is gone on with, what is refused, what is not lost."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from training import ROWS, TALK, adapter_weights, metrics, runner, same

from dpo_wrap.errors import ConfigError
from dpo_wrap.training import run_dir, session

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


@pytest.fixture
def stop_at(monkeypatch):
    """Send the process SIGTERM in this step, as if somebody had."""

    def arrange(step):
        class Interrupted(session.Progress):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step + 1 == step:
                    signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(session, "Progress", Interrupted)

    return arrange


def test_a_stopped_run_goes_on_to_the_same_weights(run, stop_at, tmp_path, capsys, monkeypatch):
    _, whole = run(output_dir=str(tmp_path / "whole"), lora_dropout=0.1)
    with monkeypatch.context():
        stop_at(3)
        status, out = run(lora_dropout=0.1)
        monkeypatch.undo()
    assert status == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped by SIGTERM after step 3 of 6; ")
    assert "checkpoint-3 holds it" in said
    assert not (out / "run.json").exists()
    status, _ = run(lora_dropout=0.1)
    assert status == 0
    assert f"going on from {out / 'checkpoint-3'}" in capsys.readouterr().out
    assert same(adapter_weights(whole), adapter_weights(out))
    expected, lines = metrics(whole), metrics(out)
    assert [line["step"] for line in lines] == [line["step"] for line in expected] == [2, 4, 6]
    assert [line["step"] for line in lines if "partial" in line] == [4]
    assert [line["loss"] for line in lines][::2] == [line["loss"] for line in expected][::2]
    assert json.loads((out / "run.json").read_text())["step_0"]["margin"] == 0


def test_a_stop_leaves_all_that_is_needed_even_where_weights_alone_are_saved(
    run, stop_at, capsys, monkeypatch
):
    with monkeypatch.context():
        stop_at(3)
        assert run(save_only_model=True, save_steps=2)[0] == 1
        monkeypatch.undo()
    status, out = run(save_only_model=True, save_steps=2)
    assert status == 0
    assert f"going on from {out / 'checkpoint-3'}" in capsys.readouterr().out


def test_a_finished_run_says_so_and_does_nothing(run, capsys):
    _, out = run()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    assert run()[0] == 0
    assert "finished before, with this config and these data; nothing to do" in (
        capsys.readouterr().out
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    # A default that is written out is no other config.
    assert run(weight_decay=0.0)[0] == 0


def test_where_figures_and_copies_go_is_no_other_run(run, capsys):
    _, out = run()
    capsys.readouterr()
    assert run(report_to="tensorboard", logging_dir="logs", save_total_limit=2)[0] == 0
    assert "nothing to do" in capsys.readouterr().out
    # These want a network before anything else.
    done = json.loads((out / "run.json").read_text())
    hub = {"push_to_hub": True, "hub_model_id": "me/mine", "hub_strategy": "end"}
    asked = done | {"config": done["config"] | hub, "processes": 2}
    assert run_dir.where_to_start(out, "auto", asked).finished == done
    asked = done | {"config": done["config"] | {"seed": 1}, "processes": 1}
    with pytest.raises(ConfigError, match="seed [(]42 there, 1 here[)]"):
        run_dir.where_to_start(out, "auto", asked)


def test_another_config_or_other_data_are_refused_by_name(run, tmp_path, capsys):
    _, out = run()
    assert run(beta=0.2, lora_r=4)[0] == 2
    said = capsys.readouterr().err
    assert "beta (0.1 there, 0.2 here), lora.r (8 there, 4 here)" in said
    assert "--resume never" in said
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS[:20]))
    before = (out / "dataset/report.json").read_bytes()
    assert run()[0] == 2
    assert "made with others: the data" in capsys.readouterr().err
    assert (out / "dataset/report.json").read_bytes() == before
    assert run("--dry-run")[0] == 2


def test_other_weights_under_the_same_path_are_refused(run, tiny_model_dir, tmp_path, capsys):
    model = shutil.copytree(tiny_model_dir, tmp_path / "base")
    run(model_path=str(model))
    weights = load_file(model / "model.safetensors")
    save_file({n: w + 1 for n, w in weights.items()}, model / "model.safetensors", {"format": "pt"})
    assert run(model_path=str(model), max_steps=8)[0] == 2
    assert "made with others: the weights that it starts from;" in capsys.readouterr().err


def test_never_moves_the_older_run_aside(run, capsys):
    _, out = run()
    assert run("--resume", "never", beta=0.2)[0] == 0
    assert f"the older run was moved to {out}.old-1" in capsys.readouterr().out
    assert json.loads((out / "run.json").read_text())["config"]["beta"] == 0.2
    assert "beta" not in json.loads((out.parent / "out.old-1/run.json").read_text())["config"]
    assert (out / "dataset/report.json").is_file()
    assert run("--resume", "never", beta=0.2)[0] == 0
    assert (out.parent / "out.old-2/run.json").is_file()


def test_more_steps_go_on_from_a_finished_run(run, capsys):
    _, out = run()
    capsys.readouterr()
    assert run(max_steps=10)[0] == 0
    said = capsys.readouterr().out
    assert f"going on from {out / 'checkpoint-6'}" in said
    assert (
        "max_steps 6 before, 10 now: learning_rate goes on by the schedule of the longer run"
        in said
    )
    assert [line["step"] for line in metrics(out)] == [2, 4, 6, 8, 10]
    assert json.loads((out / "run.json").read_text())["steps"] == 10
    assert run(max_steps=8)[0] == 2
    assert "max_steps (10 there, 8 here)" in capsys.readouterr().err


def test_more_epochs_go_on_too_and_with_a_constant_rate_are_the_longer_run(run, tmp_path, capsys):
    keys = {"max_steps": None, "lr_scheduler_type": "constant"}
    _, whole = run(output_dir=str(tmp_path / "whole"), num_epochs=2, **keys)
    _, out = run(num_epochs=1, **keys)
    capsys.readouterr()
    assert run(num_epochs=2, **keys)[0] == 0
    said = capsys.readouterr().out
    assert f"going on from {out / 'checkpoint-6'}" in said and "schedule" not in said
    assert same(adapter_weights(whole), adapter_weights(out))
    assert metrics(whole) == metrics(out)


def test_a_damaged_checkpoint_is_skipped_with_a_line(run, stop_at, monkeypatch, capsys):
    with monkeypatch.context():
        stop_at(5)
        _, out = run(save_steps=2)
        monkeypatch.undo()
    damaged = out / "checkpoint-5/optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:-10] + b"0123456789")
    (out / "checkpoint-4/dpo_wrap.json").unlink()
    capsys.readouterr()
    assert run(save_steps=2)[0] == 0
    said = capsys.readouterr().out
    assert f"{out / 'checkpoint-5'} is damaged (optimizer.pt); skipped" in said
    assert f"{out / 'checkpoint-4'} is not complete; skipped" in said
    assert f"going on from {out / 'checkpoint-2'}" in said
    assert [line["step"] for line in metrics(out)] == [2, 4, 6]


def test_a_run_that_ended_before_its_last_file_takes_no_step_too_many(run, capsys):
    # Of 24 pairs in batches of 4 an epoch is 6 steps: the run ends within one.
    _, out = run(max_steps=4)
    before, lines = adapter_weights(out), metrics(out)
    (out / "run.json").unlink()
    (out / "adapter_model.safetensors").unlink()
    assert run(max_steps=4)[0] == 0
    assert f"going on from {out / 'checkpoint-4'}" in capsys.readouterr().out
    assert same(adapter_weights(out), before)
    assert metrics(out) == lines
    assert json.loads((out / "run.json").read_text())["steps"] == 4


def test_a_run_that_stopped_early_does_so_again_before_its_last_file(run, capsys):
    keys = {
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_rewards/accuracies",
        "early_stopping_patience": 1,
    }
    _, out = run(**keys)
    lines, before = metrics(out), adapter_weights(out)
    steps = json.loads((out / "run.json").read_text())["steps"]
    assert steps < 12
    (out / "run.json").unlink()
    assert run(**keys)[0] == 0
    assert json.loads((out / "run.json").read_text())["steps"] == steps
    assert metrics(out) == lines
    assert same(adapter_weights(out), before)


def test_a_finished_run_without_its_weights_gets_them_back(run, capsys):
    _, out = run()
    before = adapter_weights(out)
    (out / "adapter_model.safetensors").unlink()
    assert run()[0] == 0
    assert "finished before, but its weights are gone" in capsys.readouterr().out
    assert same(adapter_weights(out), before)


def test_weights_without_a_checkpoint_are_not_written_over(run, capsys):
    _, out = run(save_strategy="no")
    assert run(save_strategy="no", max_steps=8)[0] == 2
    assert "holds trained weights and no checkpoint to go on from" in capsys.readouterr().err
    (out / "run.json").unlink()
    assert run(save_strategy="no")[0] == 2


def test_a_run_that_left_no_checkpoint_starts_anew(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/metrics.jsonl").write_text('{"step": 2}\n')
    assert run()[0] == 0
    assert "left nothing to go on from; starting at step 0" in capsys.readouterr().out
    assert [line["step"] for line in metrics(tmp_path / "out")] == [2, 4, 6]


def test_resume_takes_the_path_of_a_checkpoint_and_holds_it_to_the_match(run, capsys):
    _, out = run(save_steps=2)
    (out / "run.json").unlink()
    assert run("--resume", str(out / "checkpoint-9"), save_steps=2)[0] == 2
    assert "the checkpoint does not exist; there are" in capsys.readouterr().err
    assert run("--resume", str(out / "checkpoint-2"), beta=0.3, save_steps=2)[0] == 2
    assert "beta (0.1 there, 0.3 here)" in capsys.readouterr().err
    elsewhere = str(out.parent / "elsewhere")
    path = str(out / "checkpoint-2")
    assert run("--resume", path, save_steps=2, output_dir=elsewhere)[0] == 0
    assert same(adapter_weights(out.parent / "elsewhere"), adapter_weights(out))
    assert metrics(out.parent / "elsewhere") == metrics(out)
    capsys.readouterr()
    assert run("--resume", path, save_steps=2, output_dir=elsewhere)[0] == 2
    assert f"another run stands in output_dir {elsewhere}" in capsys.readouterr().err
    assert run("--resume", path, save_steps=2)[0] == 0
    assert [line["step"] for line in metrics(out)] == [2, 4, 6]
    assert not any("partial" in line for line in metrics(out))


@pytest.mark.parametrize(
    "keys", [{"lora": False, "learning_rate": 1e-4}, {"adapter_path": "first"}]
)
def test_full_weights_and_adapters_go_on_to_the_same_weights_too(
    run, stop_at, tmp_path, monkeypatch, keys
):
    if "adapter_path" in keys:
        run(output_dir=str(tmp_path / "first"))
        keys = {"adapter_path": str(tmp_path / "first"), "lora_dropout": 0.1}
    _, whole = run(output_dir=str(tmp_path / "whole"), **keys)
    with monkeypatch.context():
        stop_at(3)
        assert run(**keys)[0] == 1
        monkeypatch.undo()
    status, out = run(**keys)
    assert status == 0
    name = "model.safetensors" if "lora" in keys else "adapter_model.safetensors"
    assert same(load_file(whole / name), load_file(out / name))


def test_a_changed_template_is_not_gone_on_with(run, tmp_path, capsys):
    (tmp_path / "talk.json").write_text(json.dumps(TALK))
    file = tmp_path / "mine.jinja"
    keys = {"dataset_path": str(tmp_path / "talk.json"), "chat_template": str(file)}
    file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    assert run(**keys)[0] == 0
    file.write_text("{% for m in messages %}({{ m['content'] }}){% endfor %}")
    assert run(**keys)[0] == 2
    assert "made with others: the chat template" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_stopped_leaves_a_run_to_go_on_with(run, tmp_path, capsys, number):
    keys = {"max_steps": 3000, "save_steps": 10, "save_total_limit": 2}
    assert run("--dry-run", **keys)[0] == 0
    command = [sys.executable, "-m", "dpo_wrap.train", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("step 24/"):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait() == 1
    assert f"stopped by {number.name} after step" in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "out/run.json").exists()
    capsys.readouterr()
    assert run("--dry-run", **keys)[0] == 0
    said = capsys.readouterr().out
    assert "going on from" in said and "steps: 3000, of which" in said


def test_the_run_named_in_place_of_its_checkpoint_is_refused_with_those_inside(run, capsys):
    _, out = run(save_steps=3, save_strategy="steps")
    assert run("--resume", str(out), save_steps=3, save_strategy="steps")[0] == 2
    said = capsys.readouterr().err
    assert f"--resume {out}: a run, not one of its checkpoints; there are {out}/checkpoint-" in said

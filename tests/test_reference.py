"""The reference's log-probabilities: when they are computed beforehand, and how they are kept."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from training import adapter_weights, held_out, metrics, runner, same

from dpo_wrap.training import session
from dpo_wrap.training.trainer import PreparedTrainer

CONFIG = "config.resolved.yaml"
EVALUATED = {"eval_strategy": "steps", "eval_steps": 3}


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


@pytest.fixture
def split(tmp_path):
    return held_out(tmp_path)


@pytest.fixture
def passes(monkeypatch):
    """The splits of which the reference's log-probabilities were computed, batch by batch."""
    asked, whole = [], []
    ask, precompute = PreparedTrainer.compute_ref_log_probs, PreparedTrainer._precompute_ref_logps

    def one(self, *given):
        asked.append(whole[-1])
        return ask(self, *given)

    def all_of(self, rows, name, size):
        whole.append(name)
        return precompute(self, rows, name, size)

    monkeypatch.setattr(PreparedTrainer, "compute_ref_log_probs", one)
    monkeypatch.setattr(PreparedTrainer, "_precompute_ref_logps", all_of)
    return asked


@pytest.mark.parametrize(
    ("keys", "ahead"),
    [
        ({"max_steps": None, "num_epochs": 2}, True),
        ({"max_steps": None, "num_epochs": 1}, False),
        ({"max_steps": 7}, True),
        ({"max_steps": 6}, False),
        ({"max_steps": 7, "gradient_accumulation_steps": 2}, True),
        ({"max_steps": 3, "gradient_accumulation_steps": 2}, False),
        ({"max_steps": 7, "precompute_ref_log_probs": False}, False),
        ({"max_steps": 7, "prefix_sharing": "off"}, False),
        ({"max_steps": 6, "precompute_ref_log_probs": True}, True),
        ({"max_steps": 7, "lora": False}, True),
        ({"max_steps": 7, "lora": False, "sync_ref_model": True}, False),
    ],
    ids=str,
)
def test_the_reference_is_computed_once_where_several_epochs_ask_for_it(
    run, capsys, passes, keys, ahead
):
    status, out = run(learning_rate=1e-4, **keys)
    assert status == 0
    assert passes == ["train"] * (6 if ahead else 0)
    said, resolved = capsys.readouterr().out, yaml.safe_load((out / CONFIG).read_text())
    chosen = ahead and "precompute_ref_log_probs" not in keys
    assert ("precompute_ref_log_probs: true by default, for " in said) is chosen
    assert resolved.get("precompute_ref_log_probs", False) is ahead
    assert not list(out.glob("reference-*.safetensors"))


def test_the_held_out_splits_reference_is_computed_once_too(run, passes, split):
    status, _ = run(dataset_path=split, max_steps=10, **EVALUATED)
    assert status == 0
    assert passes == ["train"] * 5 + ["eval"]


@pytest.mark.parametrize("keys", [{}, {"lora": False}, {"precompute_ref_log_probs": True}], ids=str)
def test_a_dry_run_asks_the_reference_of_the_rows_that_it_shows(run, passes, capsys, keys):
    """Of a batch of the first and one of the longest, and as the run itself would."""
    status, _ = run("--dry-run", max_steps=20, **keys)
    assert status == 0
    assert 1 <= len(passes) <= 2
    said = capsys.readouterr().out
    chosen = "precompute_ref_log_probs: true by default, for 3.33 epochs" in said
    assert chosen is ("precompute_ref_log_probs" not in keys)
    assert ", its log-probabilities computed before the first step" in said
    assert "step 0: loss 0.6931 = ln 2, margin 0.0000" in said


def stopped(monkeypatch, at):
    """Let a run end like a crash after a step."""
    plain = session.Progress.on_step_end

    def ended(self, args, state, control, **named):
        plain(self, args, state, control, **named)
        if state.global_step == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(session.Progress, "on_step_end", ended)


def test_a_run_gone_on_with_takes_up_the_reference_that_was_computed(
    run, passes, split, tmp_path, monkeypatch
):
    keys = {"dataset_path": split, "max_steps": 10, "logging_steps": 1, "save_steps": 2}
    status, whole = run(output_dir=str(tmp_path / "whole"), **keys)
    assert status == 0
    passes.clear()
    files = {path: path.stat().st_mtime_ns for path in Path(split).rglob("*")}
    with monkeypatch.context() as patch:
        stopped(patch, at=7)
        status, out = run(**keys)
    assert status == 1 and passes == ["train"] * 5
    assert [path.name for path in out.glob("reference-*")] == ["reference-train.safetensors"]
    status, _ = run(**keys)
    assert status == 0 and passes == ["train"] * 5
    assert not list(out.glob("reference-*"))
    assert same(adapter_weights(whole), adapter_weights(out))
    # Nothing is written beside the user's data.
    assert {path: path.stat().st_mtime_ns for path in Path(split).rglob("*")} == files


def flipped(data):
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-3], lambda data: data[: len(data) // 2], flipped],
    ids=["empty", "three bytes less", "half", "a bit"],
)
def test_a_damaged_reference_is_computed_anew(run, passes, split, tmp_path, monkeypatch, damage):
    keys = {"dataset_path": split, "max_steps": 10, "save_steps": 2}
    status, whole = run(output_dir=str(tmp_path / "whole"), **keys)
    passes.clear()
    with monkeypatch.context() as patch:
        stopped(patch, at=3)
        _, out = run(**keys)
    (kept,) = out.glob("reference-*")
    kept.write_bytes(damage(kept.read_bytes()))
    status, _ = run(**keys)
    assert status == 0 and len(passes) == 10
    assert same(adapter_weights(whole), adapter_weights(out))


def test_a_run_that_left_rows_out_is_gone_on_with(run, passes, monkeypatch):
    """Their numbers skip rows, which `datasets` writes anew where it joins columns to them."""
    keys = {"max_length": 22, "overlength": "drop", "max_steps": None, "num_epochs": 3}
    keys |= {"save_strategy": "epoch", "batch_size": 2}
    with monkeypatch.context() as patch:
        stopped(patch, at=12)
        status, out = run(**keys)
    assert status == 1 and 0 < len(passes) < 12  # some of 24 pairs are left out, two a batch
    count = len(passes)
    status, _ = run(**keys)
    assert status == 0 and len(passes) == count


@pytest.mark.parametrize("what", ["tokenizer.json", "config.json"])
def test_a_reference_of_files_that_changed_since_is_not_taken_up(
    run, passes, tiny_model_dir, tmp_path, monkeypatch, what
):
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    keys = {"model_path": str(tmp_path / "model"), "max_steps": 10}
    with monkeypatch.context() as patch:
        stopped(patch, at=3)
        run(**keys)
    assert len(passes) == 6
    file = tmp_path / "model" / what
    found = json.loads(file.read_text())
    changed = {"normalizer": {"type": "Lowercase"}, "layer_norm_epsilon": 1e-3}
    name = "normalizer" if "normalizer" in found else "layer_norm_epsilon"
    file.write_text(json.dumps(found | {name: changed[name]}))
    status, out = run(**keys)
    assert status == 0 and len(passes) == 12
    assert json.loads((out / "run.json").read_text())["step_0"]["fault"] is None


def test_what_a_user_keeps_beside_a_run_stays(run):
    _, out = run("--dry-run")
    out.mkdir()
    (out / "reference-answers.arrow").write_text("mine")
    status, _ = run(max_steps=7)
    assert status == 0
    assert (out / "reference-answers.arrow").read_text() == "mine"


def test_a_reference_of_another_run_is_not_taken_up(run, passes, split, monkeypatch):
    keys = {"dataset_path": split, "max_steps": 10, "save_strategy": "no"}
    with monkeypatch.context() as patch:
        stopped(patch, at=3)
        run(**keys)
    assert len(passes) == 5
    status, out = run("--resume", "never", max_length=30, **keys)
    assert status == 0 and len(passes) == 10
    assert list(Path(f"{out}.old-1").glob("reference-*"))


def test_a_longer_run_goes_on_from_one_of_a_single_epoch(run, capsys, passes):
    keys = {"logging_steps": 1, "lr_scheduler_type": "constant"}
    assert run(max_steps=6, **keys)[0] == 0
    status, out = run(max_steps=12, **keys)
    assert status == 0
    assert "going on from" in capsys.readouterr().out
    assert passes == ["train"] * 6
    assert [line["step"] for line in metrics(out)] == list(range(1, 13))


def test_the_frozen_copy_of_an_adapter_drops_nothing_beforehand(run, tmp_path, capsys):
    """peft makes the copy ready to train; TRL computes its log-probabilities before it trains."""
    status, first = run(output_dir=str(tmp_path / "first"))
    assert status == 0
    status, out = run(adapter_path=str(first), lora_dropout=0.5, max_steps=7)
    assert status == 0
    said = capsys.readouterr().out
    assert "precompute_ref_log_probs: true by default" in said
    step_0 = json.loads((out / "run.json").read_text())["step_0"]
    assert step_0["fault"] is None and abs(step_0["margin"]) < 1e-4


@pytest.mark.parametrize("beforehand", [True, False])
def test_a_copy_of_the_full_weights_is_spoken_of_only_where_there_is_one(
    run, capsys, tiny_model_dir, beforehand
):
    keys = {"lora": False, "precompute_ref_log_probs": beforehand, "learning_rate": 1e-4}
    assert run("--dry-run", **keys)[0] == 0
    said = capsys.readouterr().out
    assert (f"reference: a frozen copy of {tiny_model_dir}" in said) is not beforehand
    computed = f"reference: {tiny_model_dir}, its log-probabilities computed before"
    assert (computed in said) is beforehand

"""The reference's log-probabilities: when they are precomputed, and how they are stored."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from training import adapter_weights, held_out, metrics, run_json, same

from dpo_wrap.training import session
from dpo_wrap.trl_hooks import PreparedTrainer

CONFIG = "config.resolved.yaml"


@pytest.fixture
def split(tmp_path):
    return held_out(tmp_path)


@pytest.fixture
def passes(monkeypatch):
    """The split of each batch whose reference log-probabilities were precomputed."""
    computed, splits = [], []
    compute = PreparedTrainer.compute_ref_log_probs
    precompute = PreparedTrainer._precompute_ref_logps

    def one_batch(self, *given):
        computed.append(splits[-1])
        return compute(self, *given)

    def all_batches(self, rows, name, size):
        splits.append(name)
        return precompute(self, rows, name, size)

    monkeypatch.setattr(PreparedTrainer, "compute_ref_log_probs", one_batch)
    monkeypatch.setattr(PreparedTrainer, "_precompute_ref_logps", all_batches)
    return computed


@pytest.fixture
def crash(run, monkeypatch):
    """A function that starts a run and ends it after a step, without a checkpoint of that step."""

    def start(*options, after, **keys):
        def ended(self, args, state, control, **named):
            if state.global_step == after:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(session.Progress, "on_step_end", ended)
            status, out = run(*options, **keys)
        assert status == 1
        return out

    return start


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
def test_the_reference_is_computed_once_if_there_are_several_epochs(
    run, capsys, passes, keys, ahead
):
    status, out = run(learning_rate=1e-4, **keys)
    assert status == 0
    assert passes == ["train"] * (6 if ahead else 0)
    text, resolved = capsys.readouterr().out, yaml.safe_load((out / CONFIG).read_text())
    by_default = ahead and "precompute_ref_log_probs" not in keys
    assert ("precompute_ref_log_probs: true by default, for " in text) is by_default
    assert resolved.get("precompute_ref_log_probs", False) is ahead
    assert not list(out.glob("reference-*.safetensors"))


def test_a_precomputed_reference_gives_the_same_run(run, tmp_path):
    _, plain = run()
    _, out = run(precompute_ref_log_probs=True, output_dir=str(tmp_path / "pre"))
    assert run_json(out)["step_0"]["margin"] == pytest.approx(0, abs=1e-5)
    losses = [[line["loss"] for line in metrics(folder)] for folder in (plain, out)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert not list((out / "dataset").rglob("cache-*"))


def test_the_test_split_is_precomputed_too(run, passes, split):
    assert run(dataset_path=split, max_steps=10, eval_strategy="steps", eval_steps=3)[0] == 0
    assert passes == ["train"] * 5 + ["eval"]


@pytest.mark.parametrize("keys", [{}, {"lora": False}, {"precompute_ref_log_probs": True}], ids=str)
def test_a_dry_run_computes_the_reference_of_few_rows(run, passes, capsys, tiny_model_dir, keys):
    """The first batch and one of the longest rows, precomputed as the run itself would."""
    assert run("--dry-run", max_steps=20, **keys)[0] == 0
    assert 1 <= len(passes) <= 2
    out = capsys.readouterr().out
    by_default = "precompute_ref_log_probs: true by default, for 3.33 epochs" in out
    assert by_default is ("precompute_ref_log_probs" not in keys)
    copy = "" if "lora" in keys else " with the adapter off"
    assert f"reference: {tiny_model_dir}{copy}, its log-probabilities computed before" in out
    assert "step 0: loss 0.6931 = ln 2, margin 0.0000" in out


def test_a_resumed_run_reads_the_stored_reference(run, crash, passes, split, tmp_path):
    keys = {"dataset_path": split, "max_steps": 10, "logging_steps": 1, "save_steps": 2}
    status, whole = run(output_dir=str(tmp_path / "whole"), **keys)
    assert status == 0
    passes.clear()
    files = {path: path.stat().st_mtime_ns for path in Path(split).rglob("*")}
    out = crash(after=7, **keys)
    assert passes == ["train"] * 5
    assert [path.name for path in out.glob("reference-*")] == ["reference-train.safetensors"]
    assert run(**keys)[0] == 0 and passes == ["train"] * 5
    assert not list(out.glob("reference-*"))
    assert same(adapter_weights(whole), adapter_weights(out))
    # Nothing is written next to the user's data.
    assert {path: path.stat().st_mtime_ns for path in Path(split).rglob("*")} == files


def flipped(data):
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-3], flipped], ids=["empty", "cut", "flipped"]
)
def test_a_damaged_reference_is_computed_again(run, crash, passes, split, damage):
    keys = {"dataset_path": split, "max_steps": 10, "save_steps": 2}
    out = crash(after=3, **keys)
    (stored,) = out.glob("reference-*")
    stored.write_bytes(damage(stored.read_bytes()))
    assert run(**keys)[0] == 0 and len(passes) == 10


def test_a_run_with_dropped_rows_reads_the_stored_reference(run, crash, passes):
    """`datasets` keeps indices of the remaining rows, and rewrites them when columns are added."""
    keys = {"max_length": 22, "overlength": "drop", "max_steps": None, "num_epochs": 3}
    keys |= {"save_strategy": "epoch", "batch_size": 2}
    crash(after=12, **keys)
    count = len(passes)
    assert 0 < count < 12  # of 24 pairs, some are dropped
    assert run(**keys)[0] == 0 and len(passes) == count


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_reference_of_other_model_files_is_computed_again(
    run, crash, passes, tiny_model_dir, tmp_path, name
):
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    keys = {"model_path": str(tmp_path / "model"), "max_steps": 10}
    crash(after=3, **keys)
    assert len(passes) == 6
    file = tmp_path / "model" / name
    found = json.loads(file.read_text())
    if name == "tokenizer.json":
        found["normalizer"] = {"type": "Lowercase"}
    else:
        found["layer_norm_epsilon"] = 1e-3
    file.write_text(json.dumps(found))
    status, out = run(**keys)
    assert status == 0 and len(passes) == 12
    assert run_json(out)["step_0"]["fault"] is None


def test_other_files_in_the_run_directory_are_kept(run):
    _, out = run("--dry-run")
    out.mkdir()
    (out / "reference-answers.arrow").write_text("mine")
    assert run(max_steps=7)[0] == 0
    assert (out / "reference-answers.arrow").read_text() == "mine"


def test_a_reference_of_another_run_is_computed_again(run, crash, passes, split):
    keys = {"dataset_path": split, "max_steps": 10, "save_strategy": "no"}
    crash(after=3, **keys)
    assert len(passes) == 5
    status, out = run("--resume", "never", max_length=30, **keys)
    assert status == 0 and len(passes) == 10
    assert list(Path(f"{out}.old-1").glob("reference-*"))


def test_the_frozen_copy_of_an_adapter_has_no_dropout_when_it_is_precomputed(run, tmp_path, capsys):
    """peft leaves the copy in training mode, and TRL precomputes before it trains."""
    _, first = run(output_dir=str(tmp_path / "first"))
    status, out = run(adapter_path=str(first), lora_dropout=0.5, max_steps=7)
    assert status == 0
    assert "precompute_ref_log_probs: true by default" in capsys.readouterr().out
    step_0 = run_json(out)["step_0"]
    assert step_0["fault"] is None and abs(step_0["margin"]) < 1e-4

"""Runs that share prompts: what is said, that no figure changes, when it is off and why."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from training import ROWS, adapter_weights, metrics, runner, same, without_times
from transformers import BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM

from dpo_wrap.running import session
from dpo_wrap.running.trainer import PreparedTrainer

CONFIG = "config.resolved.yaml"
EVALUATED = {"eval_strategy": "steps", "eval_steps": 3}


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


@pytest.fixture
def split(tmp_path):
    """A dataset of 18 pairs to train on and 6 held out, on disk."""
    splits = {"train": Dataset.from_list(ROWS[:18]), "test": Dataset.from_list(ROWS[18:])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "split"))
    return str(tmp_path / "split")


@pytest.fixture
def trainers(monkeypatch):
    """The trainers that are built."""
    build, built = session.build_trainer, []

    def kept(*given, **named):
        built.append(build(*given, **named))
        return built[-1]

    monkeypatch.setattr(session, "build_trainer", kept)
    return built


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


def close(one, other):
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for line, expected in zip(one, other, strict=True):
        assert without_times(line) == pytest.approx(without_times(expected), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"lora": False, "learning_rate": 1e-3},
        {"gradient_accumulation_steps": 2, "batch_size": 2},
        {"activation_checkpointing": True},
        {"precompute_ref_log_probs": True},
        {"loss_type": ["sigmoid", "sft"], "max_length": 20},
        {"train_sampling_strategy": "group_by_length"},
    ],
    ids=lambda keys: next(iter(keys), "plain"),
)
def test_a_run_has_the_figures_of_one_that_does_not_share(run, tmp_path, split, keys):
    given = {"dataset_path": split, "logging_steps": 1, "max_steps": 9, **EVALUATED, **keys}
    if not keys.get("activation_checkpointing"):
        given["activation_checkpointing"] = False
    status, shared = run(prefix_sharing="on", output_dir=str(tmp_path / "on"), **given)
    assert status == 0
    status, plain = run(prefix_sharing="off", output_dir=str(tmp_path / "off"), **given)
    assert status == 0
    close(metrics(shared), metrics(plain))
    assert any("eval_loss" in line for line in metrics(shared))
    before, after = (json.loads((out / "run.json").read_text()) for out in (plain, shared))
    assert before["prefix_sharing"] == {
        "on": False,
        "reason": "the config says so",
        "tokens": 0,
        "padded_tokens": 0,
    }
    found = after["prefix_sharing"]
    assert found["on"] and found["reason"] is None
    assert 0 < found["tokens"] < 0.8 * found["padded_tokens"]
    assert after["figures"]["kl_per_token_on_chosen"] == pytest.approx(
        before["figures"]["kl_per_token_on_chosen"], rel=1e-3, abs=1e-6
    )


def test_it_is_said_with_what_it_spares(run, capsys):
    status, _ = run(max_steps=2)
    assert status == 0
    said = capsys.readouterr().out
    assert "prefix sharing: on, a prompt is computed once for both answers; on two pairs " in said


def test_off_leaves_trl_its_own(run, trainers, capsys):
    """That its weights are plain TRL's to the bit is held by test_train.py."""
    status, _ = run(max_steps=2, prefix_sharing="off")
    assert status == 0
    (trainer,) = trainers
    model = trainer.model.get_base_model()
    assert trainer.shared.models == ()
    assert model.forward.__func__.__code__.co_name == "_fused_forward"
    assert model.config._attn_implementation == "sdpa"
    assert not model.base_model._forward_hooks
    assert "prefix sharing: off, since the config says so; every prompt" in capsys.readouterr().out


@pytest.fixture
def bloom(tiny_model_dir, tmp_path):
    """A model whose attention cannot be handed a part of a row."""
    from transformers import AutoTokenizer

    model = BloomForCausalLM(BloomConfig(vocab_size=257, hidden_size=32, n_layer=2, n_head=2))
    model.save_pretrained(tmp_path / "bloom")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "bloom")
    return str(tmp_path / "bloom")


def test_auto_goes_on_without_where_a_model_cannot_and_says_why(run, bloom, capsys, passes):
    status, out = run(model_path=bloom, num_epochs=2, max_steps=None)
    assert status == 0
    why = "BloomForCausalLM has its attention built in"
    said = capsys.readouterr().out
    assert f"prefix sharing: off, since {why}; every prompt is computed twice" in said
    assert json.loads((out / "run.json").read_text())["prefix_sharing"]["reason"] == why
    # Nor is the reference computed beforehand then.
    assert not passes and "precompute_ref_log_probs" not in said


def test_on_is_refused_where_a_model_cannot_before_its_weights_are_read(
    run, bloom, capsys, trainers
):
    status, out = run(model_path=bloom, prefix_sharing="on")
    assert status == 2
    said = capsys.readouterr().err
    assert "config.yaml:8: prefix_sharing: on cannot be had here: BloomForCausalLM has" in said
    assert said.rstrip().endswith("auto would go on without")
    assert not trainers and not out.exists()


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (
            {"model_init_kwargs": {"attn_implementation": "flex_attention"}},
            "attn_implementation flex_attention takes no mask",
        ),
        ({"lora": False, "neftune_noise_alpha": 5}, "neftune_noise_alpha draws noise"),
        ({"torch_compile": True}, "torch_compile wants the same shapes"),
    ],
    ids=lambda value: "" if isinstance(value, str) else [*value][-1],
)
def test_on_is_refused_beside_options_that_forbid_it(run, capsys, keys, why):
    status, _ = run(prefix_sharing="on", **keys)
    assert status == 2
    assert f"prefix_sharing: on cannot be had here: {why}" in capsys.readouterr().err


def broken(monkeypatch):
    """Let the model count positions from the row's start, as no batch of TRL's would show."""
    from transformers.models.gpt2 import modeling_gpt2

    plain = modeling_gpt2.GPT2Model.forward

    @functools.wraps(plain)
    def forward(self, *given, position_ids=None, **named):
        return plain(self, *given, **named)

    monkeypatch.setattr(modeling_gpt2.GPT2Model, "forward", forward)


def test_a_model_that_comes_out_otherwise_is_found_on_a_batch(run, monkeypatch, capsys, tmp_path):
    broken(monkeypatch)
    status, out = run(logging_steps=1)
    assert status == 0
    said = capsys.readouterr().out
    assert "prefix sharing: off, since its log-probabilities come out " in said
    assert "nats a token apart on a real batch, where 0.0002 is rounding" in said
    status, plain = run(logging_steps=1, prefix_sharing="off", output_dir=str(tmp_path / "off"))
    assert same(adapter_weights(out), adapter_weights(plain))
    status, _ = run(prefix_sharing="on", output_dir=str(tmp_path / "refused"))
    assert status == 2
    assert "prefix_sharing: on cannot be had here: its log-prob" in capsys.readouterr().err


def test_a_window_shorter_than_the_data_is_kept(run, tiny_model_dir, tmp_path):
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        sliding_window=6,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=0,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path / "mistral")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "mistral")
    outs = []
    for way in ("on", "off"):
        keys = {"prefix_sharing": way, "output_dir": str(tmp_path / way), "logging_steps": 1}
        status, out = run(model_path=str(tmp_path / "mistral"), **keys)
        assert status == 0
        outs.append(metrics(out))
    close(*outs)


# 24 pairs in batches of 4 are 6 steps an epoch.
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


def test_rows_are_grouped_by_their_length_as_cut(run, trainers, tmp_path):
    rows = [r | {"prompt": r["prompt"] + " and" * n} for n in range(5) for r in ROWS]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    status, _ = run(max_length=34, train_sampling_strategy="group_by_length")
    assert status == 0
    (trainer,) = trainers
    lengths = trainer.train_dataset["length"][:]
    assert lengths == [
        min(34, len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])))
        for r in trainer.train_dataset
    ]
    torch.manual_seed(0)
    order = list(trainer._get_train_sampler())
    count = len(lengths)
    assert sorted(order) == list(range(count)) and count > 100
    shuffled = torch.randperm(count).tolist()

    def apart(rows):
        groups = ([lengths[row] for row in rows[n : n + 4]] for n in range(0, count, 4))
        return sum(max(group) - min(group) for group in groups)

    assert apart(order) < 0.5 * apart(shuffled)


def test_every_pair_is_seen_once_an_epoch_by_length_too(run, split):
    keys = {"max_steps": None, "num_epochs": 1, "logging_steps": 1, **EVALUATED}
    status, out = run(dataset_path=split, train_sampling_strategy="group_by_length", **keys)
    assert status == 0
    tokens = [line["num_tokens"] for line in metrics(out) if "num_tokens" in line]
    status, plain = run(dataset_path=split, output_dir=f"{out}-plain", **keys)
    assert tokens[-1] == [n["num_tokens"] for n in metrics(plain) if "num_tokens" in n][-1]

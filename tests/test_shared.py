"""Runs that share prompts: what is said, that no figure changes, when it is off and why."""

import functools
import json

import pytest
import torch
from training import ROWS, adapter_weights, held_out, metrics, runner, same, without_times
from transformers import BloomConfig, BloomForCausalLM, MistralConfig, MistralForCausalLM

from dpo_wrap.training import session

CONFIG = "config.resolved.yaml"
EVALUATED = {"eval_strategy": "steps", "eval_steps": 3}


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


@pytest.fixture
def split(tmp_path):
    return held_out(tmp_path)


@pytest.fixture
def trainers(monkeypatch):
    """The trainers that are built."""
    build, built = session.build_trainer, []

    def kept(*given, **named):
        built.append(build(*given, **named))
        return built[-1]

    monkeypatch.setattr(session, "build_trainer", kept)
    return built


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


def test_auto_goes_on_without_where_a_model_cannot_and_says_why(run, bloom, capsys):
    status, out = run(model_path=bloom, num_epochs=2, max_steps=None)
    assert status == 0
    why = "BloomForCausalLM has its attention built in"
    said = capsys.readouterr().out
    assert f"prefix sharing: off, since {why}; every prompt is computed twice" in said
    assert json.loads((out / "run.json").read_text())["prefix_sharing"]["reason"] == why
    # Nor is the reference computed beforehand then.
    assert "precompute_ref_log_probs" not in said


def test_on_is_refused_where_a_model_cannot_before_its_weights_are_read(
    run, bloom, capsys, trainers
):
    status, out = run(model_path=bloom, prefix_sharing="on")
    assert status == 2
    said = capsys.readouterr().err
    assert "config.yaml:8: prefix_sharing: on is not possible here: BloomForCausalLM has" in said
    assert said.rstrip().endswith("auto trains without it")
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
    assert f"prefix_sharing: on is not possible here: {why}" in capsys.readouterr().err


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
    assert "prefix_sharing: on is not possible here: its log-prob" in capsys.readouterr().err


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

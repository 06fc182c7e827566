"""Training runs that share prefixes: no figure changes, and a run that cannot share says why."""

import functools
import json

import pytest
import torch
from training import ROWS, adapter_weights, held_out, metrics, runner, same, without_times
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from dpo_wrap.training import session

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

    def append(*args, **kwargs):
        built.append(build(*args, **kwargs))
        return built[-1]

    monkeypatch.setattr(session, "build_trainer", append)
    return built


@pytest.fixture
def saved(tiny_model_dir, tmp_path):
    """A function that saves a model with the tiny tokenizer and returns its path."""

    def save(model):
        model.save_pretrained(tmp_path / "model")
        AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


def run_both(run, tmp_path, **keys):
    """The output directories of a run with `prefix_sharing: on` and of one with `off`."""
    outs = []
    for way in ("on", "off"):
        status, out = run(prefix_sharing=way, output_dir=str(tmp_path / way), **keys)
        assert status == 0
        outs.append(out)
    for line, expected in zip(*map(metrics, outs), strict=True):
        assert without_times(line) == pytest.approx(without_times(expected), rel=1e-4, abs=1e-5)
    return outs


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
    keys = {"activation_checkpointing": False, "logging_steps": 1, "max_steps": 9} | keys
    shared, plain = run_both(run, tmp_path, dataset_path=split, **EVALUATED, **keys)
    assert any("eval_loss" in line for line in metrics(shared))
    after, before = (json.loads((out / "run.json").read_text()) for out in (shared, plain))
    assert before["prefix_sharing"] == {
        "on": False,
        "reason": "the config sets prefix_sharing: off",
        "tokens": 0,
        "padded_tokens": 0,
    }
    found = after["prefix_sharing"]
    assert found["on"] and found["reason"] is None
    assert 0 < found["tokens"] < 0.8 * found["padded_tokens"]
    assert after["figures"]["kl_per_token_on_chosen"] == pytest.approx(
        before["figures"]["kl_per_token_on_chosen"], rel=1e-3, abs=1e-6
    )


def test_auto_shares_and_off_leaves_the_model_as_it_is(run, trainers, capsys):
    """That its weights are TRL's to the bit is tested in test_train.py."""
    assert run(max_steps=2)[0] == 0
    assert "prefix sharing: on, each prompt is computed once for both" in capsys.readouterr().out
    assert run("--resume", "never", max_steps=2, prefix_sharing="off")[0] == 0
    assert "prefix sharing: off, because the config sets prefix_s" in capsys.readouterr().out
    model = trainers[-1].model.get_base_model()
    assert model.forward.__func__.__code__.co_name == "_fused_forward"
    assert model.config._attn_implementation == "sdpa"


def test_a_model_without_support_is_refused_by_on_and_trained_by_auto(run, saved, capsys, trainers):
    config = BloomConfig(vocab_size=257, hidden_size=32, n_layer=2, n_head=2)
    bloom = saved(BloomForCausalLM(config))
    reason = "BloomForCausalLM does not use transformers' attention interface"
    status, out = run(model_path=bloom, prefix_sharing="on")
    assert status == 2
    error = capsys.readouterr().err
    assert f"config.yaml:8: prefix_sharing: on is not possible, because {reason}" in error
    assert error.rstrip().endswith("set it to auto to train without sharing")
    assert not trainers and not out.exists()
    status, out = run(model_path=bloom, num_epochs=2, max_steps=None)
    assert status == 0
    printed = capsys.readouterr().out
    assert f"prefix sharing: off, because {reason}; each prompt is computed twice" in printed
    assert json.loads((out / "run.json").read_text())["prefix_sharing"]["reason"] == reason
    # The reference is then not precomputed by default either.
    assert "precompute_ref_log_probs" not in printed


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (
            {"model_init_kwargs": {"attn_implementation": "flex_attention"}},
            "attn_implementation flex_attention takes no mask",
        ),
        ({"lora": False, "neftune_noise_alpha": 5}, "neftune_noise_alpha scales its noise"),
        ({"torch_compile": True}, "torch_compile needs the same shapes"),
    ],
    ids=lambda value: "" if isinstance(value, str) else [*value][-1],
)
def test_on_is_refused_with_options_that_exclude_it(run, capsys, keys, reason):
    assert run(prefix_sharing="on", **keys)[0] == 2
    error = capsys.readouterr().err
    assert f"prefix_sharing: on is not possible, because {reason}" in error


def test_a_model_that_gives_other_log_probabilities_is_found(run, monkeypatch, capsys, tmp_path):
    """Its positions count from the start of the row, which no batch of TRL's would show."""
    from transformers.models.gpt2 import modeling_gpt2

    plain_forward = modeling_gpt2.GPT2Model.forward

    @functools.wraps(plain_forward)
    def forward(self, *args, position_ids=None, **kwargs):
        return plain_forward(self, *args, **kwargs)

    monkeypatch.setattr(modeling_gpt2.GPT2Model, "forward", forward)
    status, out = run(logging_steps=1)
    assert status == 0
    printed = capsys.readouterr().out
    reason = "log-probabilities on two pairs of the data differ by "
    assert f"prefix sharing: off, because {reason}" in printed
    assert "from those without sharing, more than rounding explains (0.0002);" in printed
    status, plain = run(logging_steps=1, prefix_sharing="off", output_dir=str(tmp_path / "off"))
    assert same(adapter_weights(out), adapter_weights(plain))
    assert run(prefix_sharing="on", output_dir=str(tmp_path / "refused"))[0] == 2
    assert f"prefix_sharing: on is not possible, because {reason}" in capsys.readouterr().err


def test_rows_are_grouped_by_their_truncated_length(run, trainers, tmp_path):
    rows = [r | {"prompt": r["prompt"] + " and" * n} for n in range(5) for r in ROWS]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    assert run(max_length=34, train_sampling_strategy="group_by_length")[0] == 0
    (trainer,) = trainers
    lengths = trainer.train_dataset["length"][:]
    assert lengths == [
        min(34, len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])))
        for r in trainer.train_dataset
    ]
    torch.manual_seed(0)
    order, count = list(trainer._get_train_sampler()), len(lengths)
    assert sorted(order) == list(range(count)) and count > 100

    def spread(rows):
        """The sum over batches of 4 of the difference between their longest and shortest row."""
        batches = ([lengths[row] for row in rows[n : n + 4]] for n in range(0, count, 4))
        return sum(max(batch) - min(batch) for batch in batches)

    assert spread(order) < 0.5 * spread(torch.randperm(count).tolist())

"""Dropout: that of the base model is off, in whatever form its code has it; the adapter's acts."""

import json

import pytest
import torch
import transformers
from test_weights import SIZES
from training import metrics, run_json, runner

from dpo_wrap.model.dropout import disable_base_dropout

LAYERS = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2}
ALIBI = {"hidden_size": 32, "n_layer": 2, "n_head": 2}
FAMILIES = {
    # A number that forward functions read from their module.
    "OPT": {"dropout": 0.3, "ffn_dim": 48, "word_embed_proj_dim": 32, "layerdrop": 0.2},
    "Llama": {"attention_dropout": 0.3},
    "Starcoder2": {"residual_dropout": 0.3, "embedding_dropout": 0.3},
    # Modules, and a number that forward functions read from the config.
    "GPTNeo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]}
    | {"attention_dropout": 0.3, "resid_dropout": 0.3},
    "Falcon": {"attention_dropout": 0.3, "hidden_dropout": 0.3, "alibi": False},
    "GPT2": LAYERS,
    "Bloom": ALIBI | {"hidden_dropout": 0.3, "attention_dropout": 0.3},
}


@pytest.fixture
def family_run(tiny_model_dir, tmp_path):
    """A function that saves a random model of a family: (the runner, the model's config.json)."""

    def build(family, **more):
        torch.manual_seed(0)
        keys = SIZES | FAMILIES[family] | more
        config = getattr(transformers, f"{family}Config")(**keys)
        folder = tmp_path / family
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
        return runner(folder, tmp_path), json.loads((folder / "config.json").read_text())

    return build


@pytest.mark.parametrize("family", FAMILIES)
def test_training_starts_at_ln_2_without_any_dropout_of_the_base_model(family_run, family):
    run, own = family_run(family)
    status, out = run(max_steps=2, logging_steps=1, lora=False, prefix_sharing="off")
    assert status == 0
    first = metrics(out)[0]
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert run_json(out)["step_0"]["fault"] is None
    for config in (out / "config.json", out / "checkpoint-2/config.json"):
        saved = json.loads(config.read_text())
        assert {k: v for k, v in own.items() if "drop" in k}.items() <= saved.items()


def test_prefix_sharing_trains_the_same_run_on_a_model_with_dropout(family_run):
    losses = {}
    run, _ = family_run("OPT")
    for sharing in ("on", "off"):
        keys = {"prefix_sharing": sharing, "logging_steps": 1, "max_steps": 3}
        status, out = run("--resume", "never", lora=False, learning_rate=1e-3, **keys)
        assert status == 0
        losses[sharing] = [line["loss"] for line in metrics(out)]
    assert losses["on"] == pytest.approx(losses["off"], abs=1e-5)


def test_the_adapter_has_dropout_where_the_base_model_has_none(family_run):
    run, _ = family_run("OPT")
    losses = {}
    for dropout in (0.0, 0.5):
        keys = {"lora_dropout": dropout, "logging_steps": 1, "max_steps": 2}
        status, out = run("--resume", "never", **keys)
        assert status == 0 and run_json(out)["step_0"]["fault"] is None
        losses[dropout] = [line["loss"] for line in metrics(out)]
    assert losses[0.0][0] == losses[0.5][0] == pytest.approx(0.6931472, abs=1e-6)
    assert losses[0.0][1] != losses[0.5][1]


def test_dropout_that_the_config_keeps_acts_and_is_no_fault(family_run, capsys):
    run, _ = family_run("OPT")
    keys = {"max_steps": 1, "logging_steps": 1, "lora": False, "disable_dropout": False}
    assert run("--dry-run", **keys)[0] == 0
    status, out = run(**keys)
    assert status == 0 and abs(metrics(out)[0]["rewards/margins"]) > 1e-4
    assert "disable_dropout: false enables the base model's dropout" in capsys.readouterr().out


@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}], ids=str)
def test_noise_that_cannot_be_disabled_is_a_fault_of_step_0(run, monkeypatch, capsys, more):
    attention = transformers.models.gpt2.modeling_gpt2.GPT2MLP
    plain = attention.forward

    def noisy(self, hidden):
        return torch.nn.functional.dropout(plain(self, hidden), 0.3, self.training)

    monkeypatch.setattr(attention, "forward", noisy)
    assert run("--dry-run", prefix_sharing="off", lora=False, **more)[0] == 1
    printed = capsys.readouterr()
    assert "in training mode only: the code of the model adds dropout" in printed.out
    assert "Traceback" not in printed.err


def test_step_0_draws_no_random_number(run, monkeypatch):
    """The first step of a model with layerdrop, which draws one for each layer, is TRL's own."""
    from dpo_wrap.diagnostics import checks
    from dpo_wrap.training import session

    def drawn(trainer):
        before = torch.get_rng_state()
        assert checks.step_zero(trainer).fault is None
        assert torch.equal(before, torch.get_rng_state())

    monkeypatch.setattr(session, "step_zero", drawn)
    assert run(max_steps=1, lora_dropout=0.2)[0] == 0


def test_every_name_of_a_dropout_is_found():
    module = torch.nn.Module()
    module.rates = torch.nn.ModuleList([torch.nn.Dropout(0.1), torch.nn.AlphaDropout(0.2)])
    names = ("dropout", "attn_pdrop", "resid_pdrop", "layerdrop", "hidden_dropout_prob")
    for name in names:
        setattr(module, name, 0.1)
    module.token_dropout, module.eps = True, 1e-5
    module.config = transformers.GPT2Config(attn_pdrop=0.25)
    changed = disable_base_dropout(module)
    assert [getattr(module, name) for name in names] == [0] * len(names)
    assert [dropout.p for dropout in module.rates] == [0, 0]
    assert module.token_dropout is True and module.eps == 1e-5
    assert (module.config, "attn_pdrop", 0.25) in changed and module.config.attn_pdrop == 0

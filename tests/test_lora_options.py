"""LoRA options reach the adapter; training starts at ln 2, against the right reference."""

import json

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.utils import use_adapter

from dpo_wrap import merge
from dpo_wrap.training import session
from tests.training import adapter_weights, runner

AT_THE_REFERENCE = {
    "loss": pytest.approx(0.693147, abs=1e-5),
    "margin": pytest.approx(0, abs=1e-6),
    "fault": None,
}
IDS = torch.arange(60)[None]


@pytest.fixture
def trained(tiny_model_dir, tmp_path, monkeypatch):
    """A function that trains for a few steps: (exit status, run.json or None, trained model)."""
    start, built = runner(tiny_model_dir, tmp_path), []
    build = session.build_trainer

    def kept(*args, **named):
        built.append(build(*args, **named))
        return built[-1]

    monkeypatch.setattr(session, "build_trainer", kept)

    def train(**keys):
        status, out = start(**{"max_steps": 3, "gradient_checkpointing": False} | keys)
        run = json.loads((out / "run.json").read_text()) if status == 0 else None
        return status, run, built[-1].model.eval() if built else None

    return train


@pytest.mark.parametrize(
    ("lora", "found"),
    [
        ({"use_dora": True}, ".h.0.attn.c_attn.lora_magnitude_vector"),
        ({"use_rslora": True, "r": 4}, ".h.0.attn.c_attn.lora_A.weight"),
        ({"init_lora_weights": "orthogonal"}, ".h.1.attn.c_attn.lora_B.weight"),
        ({"target_modules": "all-linear"}, ".h.0.mlp.c_proj.lora_B.weight"),
        ({"target_modules": r".*\.c_(attn|fc)"}, ".h.0.mlp.c_fc.lora_B.weight"),
        ({"target_modules": ["c_attn", "wte"]}, ".wte.lora_embedding_A"),
        ({"target_modules": [], "target_parameters": ["attn.c_attn.weight"]}, ""),
        ({"modules_to_save": ["lm_head"]}, ".lm_head.weight"),
        ({"lora_bias": True}, ".h.0.attn.c_attn.lora_B.bias"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_lora_option_reaches_the_adapter_and_the_reference_is_the_base(
    trained, tiny_model_dir, tmp_path, lora, found
):
    status, run, model = trained(lora=lora)
    assert status == 0
    assert run["step_0"] == AT_THE_REFERENCE
    saved = PeftConfig.from_pretrained(tmp_path / "out")
    for name, value in lora.items():
        kept = getattr(saved, name)
        # peft saves the names of the modules that `all-linear` matched.
        assert value == "all-linear" or (sorted(kept) if isinstance(kept, set) else kept) == value
    assert any(name.endswith(found) for name in adapter_weights(tmp_path / "out"))
    with torch.no_grad():
        policy = model(IDS).logits
        with model.disable_adapter():
            reference = model(IDS).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()(IDS).logits
    assert torch.equal(reference, base)
    assert (policy - reference).abs().max() > 1e-3


def test_patterns_and_layers_set_the_ranks_and_modules_of_the_adapter(trained, tmp_path):
    lora = {
        "target_modules": ["c_attn", "c_fc"],
        "r": 4,
        "rank_pattern": {"c_fc": 2},
        "alpha_pattern": {"c_fc": 6},
        "layers_to_transform": [1],
    }
    status, run, model = trained(lora=lora)
    assert status == 0
    assert run["step_0"] == AT_THE_REFERENCE
    ranks = {
        name.partition(".lora_A")[0]: weight.shape[0]
        for name, weight in adapter_weights(tmp_path / "out").items()
        if "lora_A" in name
    }
    block = "base_model.model.transformer.h.1"
    assert ranks == {f"{block}.attn.c_attn": 4, f"{block}.mlp.c_fc": 2}
    assert model.base_model.model.transformer.h[1].mlp.c_fc.scaling == {"default": 3.0}


def test_a_start_away_from_the_reference_is_reported(trained, capsys):
    status, run, _ = trained(lora={"init_lora_weights": False, "lora_alpha": 128})
    assert status == 0
    assert "an adapter initialized away from zero?" in run["step_0"]["fault"]
    assert "warning: step 0 has a margin of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        *(
            ({"init_lora_weights": name}, f"{name!r} is not supported: it changes the base")
            for name in ("pissa", "pissa_niter_4", "olora", "loftq")
        ),
        (
            {"trainable_token_indices": [3]},
            "lora.trainable_token_indices: this model's output layer is its embeddings",
        ),
    ],
)
def test_an_option_that_changes_the_base_or_that_trl_ignores_is_refused(
    trained, capsys, lora, message
):
    assert trained(lora=lora)[0] == 2
    assert message in capsys.readouterr().err


def test_activated_lora_needs_gradient_checkpointing_off(trained, capsys):
    lora = {"alora_invocation_tokens": [5]}
    assert trained(lora=lora, gradient_checkpointing=True)[0] == 2
    message = capsys.readouterr().err
    assert "lora.alora_invocation_tokens: 5 needs activation_checkpointing: false" in message
    assert trained(lora=lora)[0] == 0


# An adapter in adapter_path


@pytest.fixture
def adapter(tiny_model_dir, tmp_path):
    """A function that saves an adapter that differs from its base: (directory, its logits)."""

    def make(**keys):
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **keys)).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / "adapter")
        AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "adapter")
        with torch.no_grad():
            return tmp_path / "adapter", model(IDS).logits

    return make


@pytest.mark.parametrize(
    "lora",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": [], "target_parameters": ["attn.c_attn.weight"]},
        {"target_modules": ["c_attn", "wte"]},  # TRL's own copy leaves the tensors on wte at zero
    ],
    ids=lambda lora: next(iter(lora)),
)
@pytest.mark.parametrize("precomputed", [False, True])
def test_the_reference_of_a_run_from_an_adapter_is_that_adapter_unchanged(
    trained, adapter, lora, precomputed
):
    directory, before = adapter(**lora)
    status, run, model = trained(adapter_path=str(directory), precompute_ref_log_probs=precomputed)
    assert status == 0
    assert run["step_0"] == AT_THE_REFERENCE
    with torch.no_grad():
        policy = model(IDS).logits
        with use_adapter(model, "ref"):
            reference = model(IDS).logits
    assert torch.allclose(reference, before, atol=1e-6)
    assert (policy - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("lora", "why"),
    [
        ({"init_lora_weights": "pissa"}, "was initialized with pissa, which rewrites the base"),
        ({"trainable_token_indices": [3]}, "trains tokens of embeddings that are the output layer"),
    ],
    ids=["pissa", "tokens"],
)
def test_an_adapter_that_cannot_be_trained_further_must_be_merged_first(
    trained, adapter, tiny_model_dir, tmp_path, capsys, lora, why
):
    directory, before = adapter(**lora)
    status, _, _ = trained(adapter_path=str(directory))
    assert status == 2
    message = capsys.readouterr().err
    assert f"adapter_path '{directory}' {why}" in message
    assert f"merge it, python -m dpo_wrap.merge {directory} DIR, and give DIR as" in message
    assert merge.main([str(directory), str(tmp_path / "merged")]) == 0
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir), directory
    ).eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        assert torch.allclose(loaded(IDS).logits, before, atol=1e-5)
        assert torch.allclose(merged(IDS).logits, before, atol=1e-5)

"""What cannot share prefixes is found by a rule (support.py) or on a batch (proof.py)."""

import math
from types import SimpleNamespace

import pytest
import torch
import transformers
from sharing_models import SHAPES, SMALL, VOCABULARY, WINDOW, arguments, build, padded, pairs, tiny
from trl.trainer.utils import add_fused_lm_head

from dpo_wrap.prefix_sharing import attention
from dpo_wrap.prefix_sharing.forward import PrefixSharing
from dpo_wrap.prefix_sharing.proof import HALF_TOLERANCE, compare
from dpo_wrap.prefix_sharing.support import (
    UnsupportedModelError,
    attention_reason,
    class_reason,
    run_reasons,
)

RUN = {
    "torch_compile": False,
    "neftune_noise_alpha": None,
    "deepspeed": None,
    "fsdp": None,
    "router_aux_loss_coef": None,
    "pad_to_multiple_of": None,
}
LAYERS = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
MAMBA2 = {"state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1}
GPTJ = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}
VISION = {"text_config": SMALL, "vision_config": {"hidden_size": 32}}
EXPERTS = SMALL | {"num_local_experts": 4}


def rope(kind, **more):
    return {"rope_theta": 1e4, "rope_type": kind, "factor": 4.0} | more


LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 24}
LONGROPE = SMALL | {"rope_parameters": rope("longrope", **LONG)}
BY_LAYER = {"rope_parameters": {"full_attention": rope("dynamic")}}
UNSUPPORTED = {
    "mamba": (
        ("MambaConfig", LAYERS | {"state_size": 4}),
        "it has layers that are not attention by position",
    ),
    "mamba 2": (("Mamba2Config", LAYERS | MAMBA2), "(linear_attention)"),
    "lfm 2": (("Lfm2Config", SMALL | {"full_attn_idxs": [1, 3]}), "(conv)"),
    "rwkv": (("RwkvConfig", LAYERS), "RwkvForCausalLM carries a state from token to token"),
    "bloom": (
        ("BloomConfig", LAYERS | {"n_head": 4}),
        "BloomForCausalLM does not use transformers' attention interface",
    ),
    "falcon with alibi": (
        ("FalconConfig", LAYERS | {"num_attention_heads": 4, "alibi": True}),
        "ALiBi biases attention by positions in the padded batch",
    ),
    "gpt-j": (("GPTJConfig", GPTJ), "GPTJForCausalLM does not use transformers'"),
}


def reasons(config_name, keys, lora=None, **run):
    config = getattr(transformers, config_name)(**keys)
    model = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    found = [*run_reasons(SimpleNamespace(**RUN | run), config, lora), class_reason(model)]
    return [reason for reason in found if reason is not None]


@pytest.mark.parametrize(
    ("model", "run", "reason"),
    [
        *((model, {}, reason) for model, reason in UNSUPPORTED.values()),
        (("MixtralConfig", EXPERTS), {}, "the auxiliary loss of the experts counts a prompt once"),
        (
            ("LlamaConfig", SMALL | {"rope_parameters": rope("dynamic")}),
            {},
            "rope_type dynamic scales positions by the longest sequence so far",
        ),
        (("Gemma3Config", VISION), {}, "gemma3 is not a text-only model"),
        (("Gemma3TextConfig", SMALL | BY_LAYER), {}, "rope_type dynamic"),
        (("LlamaConfig", LONGROPE), {"pad_to_multiple_of": 32}, "rope_type longrope"),
        (SHAPES["llama"], {"torch_compile": True}, "torch_compile needs the same shapes"),
        (SHAPES["llama"], {"neftune_noise_alpha": 5.0}, "neftune_noise_alpha scales its noise"),
        (SHAPES["llama"], {"fsdp": "full_shard"}, "the model is sharded"),
        (
            SHAPES["llama"],
            {"lora": {"alora_invocation_tokens": [5]}},
            "alora_invocation_tokens are searched for",
        ),
    ],
    ids=str,
)
def test_a_rule_gives_the_reason(model, run, reason):
    assert reason in reasons(*model, **run)[0]


def test_rules_about_an_option_do_not_apply_without_it():
    assert reasons("MixtralConfig", EXPERTS, router_aux_loss_coef=0.0) == []
    assert reasons("LlamaConfig", LONGROPE) == []


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launcher_that_shards_the_model_is_a_reason(monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    assert "the model is sharded" in reasons(*SHAPES["llama"])[0]


@pytest.mark.parametrize(
    ("kind", "upcast", "reason"),
    [
        ("sdpa", False, None),
        ("eager", False, None),
        ("sdpa", True, None),
        ("eager", True, "reorder_and_upcast_attn needs the model's own eager attention"),
        (
            "flash_attention_2",
            False,
            "attn_implementation flash_attention_2 takes no mask tensor (sdpa and eager do)",
        ),
    ],
)
def test_attention_has_to_take_a_mask(kind, upcast, reason):
    assert attention_reason(kind, transformers.GPT2Config(reorder_and_upcast_attn=upcast)) == reason


def compared(model, batch, fp32=True):
    """What `compare` sets, or its reason against sharing."""
    sharing = PrefixSharing()
    try:
        compare(model, sharing, arguments(batch), fp32)
    except UnsupportedModelError as error:
        sharing.restore.close()
        return str(error)
    assert sharing.tokens == sharing.padded_tokens == 0
    return sharing.difference


@pytest.mark.parametrize("shape", SHAPES)
def test_supported_models_pass_the_rules_and_the_comparison(shape):
    assert reasons(*SHAPES[shape]) == []
    assert compared(tiny(shape), padded(pairs(1))) < 1e-5


@pytest.mark.parametrize("name", [name for name in UNSUPPORTED if name != "mamba 2"])
def test_the_comparison_finds_unsupported_models_without_the_rules(name):
    model = build(*UNSUPPORTED[name][0]).eval()
    add_fused_lm_head(model)
    before = model.forward, model.config._attn_implementation
    assert "log-probabilities on two pairs of the data differ" in compared(model, padded(pairs(2)))
    assert (model.forward, model.config._attn_implementation) == before


def test_the_comparison_finds_a_window_that_is_not_applied(monkeypatch):
    plain = attention.attend_by_sequence

    def causal(q_length, kv_length, q_offset):
        return torch.ones(1, 1, kv_length, kv_length, dtype=torch.bool).tril()[:, :, q_offset:]

    def windowless(attend, query, key, value, masks):
        return plain(attend, query, key, value, attention.LayoutMasks(masks.layout, causal))

    monkeypatch.setattr(attention, "attend_by_sequence", windowless)
    batch = padded(pairs(3, prompt=(2 * WINDOW, 3 * WINDOW)))
    assert compared(tiny("llama"), batch) < 1e-5
    found = compared(tiny("mistral with a window"), batch)
    assert "log-probabilities on two pairs of the data differ" in found


def test_code_that_fails_on_a_shared_row_is_a_reason():
    model = tiny("gpt2")
    plain = model.transformer.forward

    def failing(*args, position_ids=None, **kwargs):
        if position_ids is not None:
            raise RuntimeError("no positions here")
        return plain(*args, **kwargs)

    model.transformer.forward = failing
    found = compared(model, padded(pairs(4)))
    assert found == "its code fails on a shared row (no positions here)"


def test_masks_that_this_package_cannot_make_are_a_reason(monkeypatch):
    model, batch = tiny("llama"), padded(pairs(5))
    layer = model.model.layers[1].self_attn
    plain = layer.forward
    layer.forward = lambda *args, **kwargs: plain(*args, **kwargs | {"attention_mask": None})
    assert compared(model, batch) == "it builds its attention masks itself"

    from transformers.models.llama import modeling_llama

    causal = modeling_llama.create_causal_mask
    monkeypatch.setattr(
        modeling_llama,
        "create_causal_mask",
        lambda **kwargs: causal(**kwargs, and_mask_function=lambda b, h, q, kv: kv <= q),
    )
    assert compared(tiny("llama"), batch) == "its attention masks depend on more than positions"


def test_a_batch_that_has_no_layout_is_a_reason():
    batch = {name: value.flip(1) for name, value in padded(pairs(7)).items()}
    assert compared(tiny("gpt2"), batch) == "TRL's batch is not one of pairs padded on the right"


@pytest.mark.parametrize("fp32", [True, False])
def test_half_precision_has_a_tolerance_of_its_own(fp32):
    found = compared(tiny("llama").bfloat16(), padded(pairs(10)), fp32)
    assert (
        ("more than rounding explains (0.0002)" in found) if fp32 else 1e-4 < found < HALF_TOLERANCE
    )


@pytest.mark.parametrize("fp32", [True, False])
def test_nan_is_allowed_only_where_it_is_without_sharing_too(fp32):
    model, batch = tiny("gpt2"), padded(pairs(9))
    with torch.no_grad():
        model.transformer.wpe.weight[3] = math.nan
    assert model(**arguments(batch)).log_probs.isnan().any()
    assert compared(model, batch, fp32) < 1e-5
    model = tiny("gpt2")
    factors = iter([1.0, math.nan])  # the second call is the one with sharing
    model.transformer.wpe.register_forward_hook(lambda *given: given[2] * next(factors))
    assert "nats per token" in compared(model, batch, fp32)

"""prefix_sharing.support and proof: what cannot share prompts is found by rules, or by trying."""

import math
from types import SimpleNamespace

import pytest
import torch
import transformers
from sharing_models import SHAPES, SMALL, WINDOW, WORDS, asked, padded, pairs, tiny
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from trl.trainer.utils import add_fused_lm_head

from dpo_wrap.prefix_sharing import attention
from dpo_wrap.prefix_sharing import proof as agreement
from dpo_wrap.prefix_sharing.forward import Layouts
from dpo_wrap.prefix_sharing.proof import EXACT, share_if_proven
from dpo_wrap.prefix_sharing.support import (
    attention_unsupported_reasons,
    class_unsupported_reasons,
    run_unsupported_reasons,
)

RUN = {
    "torch_compile": False,
    "neftune_noise_alpha": None,
    "deepspeed": None,
    "fsdp": None,
    "router_aux_loss_coef": None,
    "pad_to_multiple_of": None,
}
LAYERS = {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = LAYERS | {"num_attention_heads": 4}
STATES = LAYERS | {"state_size": 4}
EXPERTS = SMALL | {"num_local_experts": 4}
# Models that cannot share prompts, and why. RWKV and GPT-J stand for many of their age.
OTHERS = {
    "mamba": ("MambaConfig", STATES, "its layers are of another kind than attention by position"),
    "mamba 2": (
        "Mamba2Config",
        STATES | {"num_heads": 4, "head_dim": 16, "n_groups": 1},
        "its layers are of another kind than attention by position (linear_attention)",
    ),
    "lfm 2": (
        "Lfm2Config",
        SMALL | {"full_attn_idxs": [1, 3]},
        "its layers are of another kind than attention by position (conv)",
    ),
    "rwkv": ("RwkvConfig", LAYERS, "RwkvForCausalLM keeps a state from token to token"),
    "bloom": ("BloomConfig", LAYERS | {"n_head": 4}, "BloomForCausalLM has its attention built in"),
    "falcon with alibi": (
        "FalconConfig",
        HEADS | {"alibi": True},
        "ALiBi biases attention by places in the padded batch",
    ),
    "gpt-j": (
        "GPTJConfig",
        {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
        "GPTJForCausalLM has its attention built in",
    ),
    "mixtral": ("MixtralConfig", EXPERTS, "the experts' auxiliary loss counts a prompt once"),
}


def made(name, keys):
    config = getattr(transformers, name)(**keys)
    return config, transformers.AutoModelForCausalLM._model_mapping[type(config)]


def obstacles(config, kind, adapter=None, **run):
    dpo = SimpleNamespace(**RUN | run)
    return [*run_unsupported_reasons(dpo, config, adapter), *class_unsupported_reasons(kind)]


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_stands_in_the_way_of_these(shape):
    assert obstacles(*made(*SHAPES[shape])) == []


@pytest.mark.parametrize("model", OTHERS)
def test_what_stands_in_a_models_way_is_said(model):
    name, keys, why = OTHERS[model]
    assert obstacles(*made(name, keys))[0].startswith(why)


def test_a_model_of_more_than_text_is_told():
    config = transformers.Gemma3Config(text_config=SMALL, vision_config={"hidden_size": 32})
    kind = transformers.Gemma3ForConditionalGeneration
    assert "gemma3 takes more than text" in obstacles(config, kind)


@pytest.mark.parametrize(
    ("run", "adapter", "why"),
    [
        ({"torch_compile": True}, None, "torch_compile wants the same shapes in every step"),
        ({"neftune_noise_alpha": 5.0}, None, "neftune_noise_alpha draws noise by the length"),
        ({"fsdp": "full_shard"}, None, "the model is sharded"),
        ({}, {"alora_invocation_tokens": [5]}, "alora_invocation_tokens are looked for row by row"),
    ],
)
def test_what_stands_in_a_runs_way_is_said(run, adapter, why):
    (found,) = obstacles(*made(*SHAPES["llama"]), adapter=adapter, **run)
    assert found.startswith(why)


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launcher_that_shards_the_model_is_seen(monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    assert "the model is sharded" in obstacles(*made(*SHAPES["llama"]))[0]


def test_experts_without_an_auxiliary_loss_share():
    assert obstacles(*made("MixtralConfig", EXPERTS), router_aux_loss_coef=0.0) == []


def rope(kind, **more):
    return {"rope_parameters": {"rope_theta": 1e4, "rope_type": kind, "factor": 4.0} | more}


LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 24}


def test_positions_that_hang_on_other_texts_are_told():
    config = transformers.LlamaConfig(**SMALL | rope("dynamic"))
    (found,) = obstacles(config, transformers.LlamaForCausalLM)
    assert found == "its positions are scaled by the longest text before (rope_type dynamic)"
    nested = {"full_attention": rope("dynamic")["rope_parameters"]}
    config = transformers.Gemma3TextConfig(**SMALL | {"rope_parameters": nested})
    assert "rope_type dynamic" in obstacles(config, transformers.Gemma3ForCausalLM)[0]


def test_positions_that_hang_on_padding_are_told_where_there_is_more_of_it():
    """Without, a batch is as wide as its longest text, which the shared row has too."""
    config = transformers.LlamaConfig(**SMALL | rope("longrope", **LONG))
    kind = transformers.LlamaForCausalLM
    assert obstacles(config, kind) == []
    (found,) = obstacles(config, kind, pad_to_multiple_of=32)
    assert "longrope with pad_to_multiple_of" in found


def test_attention_that_takes_no_mask_is_told():
    config = made(*SHAPES["gpt2"])[0]
    assert not [
        *attention_unsupported_reasons("sdpa", config),
        *attention_unsupported_reasons("eager", config),
    ]
    (found,) = attention_unsupported_reasons("flash_attention_2", config)
    assert found == "attn_implementation flash_attention_2 takes no mask; sdpa and eager do"
    config.reorder_and_upcast_attn = True
    assert not [*attention_unsupported_reasons("sdpa", config)]
    (found,) = attention_unsupported_reasons("eager", config)
    assert found == "reorder_and_upcast_attn is done by eager attention alone"


def tried(model, batch):
    return share_if_proven(model, Layouts(), lambda: model(**asked(batch)), exact=True)[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_trying_agrees_for_models_that_share(shape):
    batch = padded(pairs(1))
    found = tried(tiny(shape), batch)
    assert found.fault is None
    assert found.apart < 1e-5
    assert found.padded == batch["input_ids"].numel() > found.tokens > 0


@pytest.mark.parametrize("name", ["mamba", "lfm 2", "rwkv", "bloom", "falcon with alibi", "gpt-j"])
def test_trying_finds_those_that_do_not_even_if_nothing_else_did(name):
    config, kind = made(*OTHERS[name][:2])
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    add_fused_lm_head(model)
    found = tried(model, padded(pairs(2)))
    assert found.apart > 10 * EXACT
    assert "nats a token apart on a real batch" in found.fault


def test_a_window_that_counts_places_in_the_row_is_found(monkeypatch):
    """As it was when one mask over the whole row stood for the window's own."""
    plain = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]

    def windowless(**given):
        causal = {"mask_function": lambda b, h, q, kv: kv <= q, "local_size": None}
        return plain(**given | causal)

    model, name = tiny("mistral with a window"), attention.registered("sdpa")
    ours = ALL_MASK_ATTENTION_FUNCTIONS[name]
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "sdpa", windowless)
    wrong = attention._mask("sdpa")
    monkeypatch.undo()
    batch = padded(pairs(3, prompt=(2 * WINDOW, 3 * WINDOW)))
    AttentionMaskInterface.register(name, wrong)
    try:
        found = tried(model, batch)
    finally:
        AttentionMaskInterface.register(name, ours)
    assert "nats a token apart on a real batch" in found.fault


def test_code_that_fails_on_a_shared_row_is_a_fault_with_its_words():
    model = tiny("gpt2")
    plain = model.transformer.forward

    def picky(*args, position_ids=None, **kwargs):
        if position_ids is not None:
            raise RuntimeError("no positions here")
        return plain(*args, **kwargs)

    model.transformer.forward = picky
    found = tried(model, padded(pairs(4)))
    assert found.fault == "its code fails on a shared row (no positions here)"


def test_a_model_that_makes_its_masks_by_itself_is_a_fault():
    model = tiny("llama")
    layer = model.model.layers[1].self_attn
    plain = layer.forward
    layer.forward = lambda *args, **kwargs: plain(*args, **kwargs | {"attention_mask": None})
    assert tried(model, padded(pairs(5))).fault == "it makes its masks by itself"


def test_masks_that_hang_on_more_than_positions_are_a_fault(monkeypatch):
    from transformers.models.llama import modeling_llama

    plain = modeling_llama.create_causal_mask
    monkeypatch.setattr(
        modeling_llama,
        "create_causal_mask",
        lambda **given: plain(**given, and_mask_function=lambda b, h, q, kv: kv <= q),
    )
    found = tried(tiny("llama"), padded(pairs(6)))
    assert found.fault == "its masks hang on more than positions"


def test_a_question_that_is_not_trls_is_a_fault():
    model, question = tiny("gpt2"), asked(padded(pairs(7)))
    positions = torch.arange(question["input_ids"].shape[1])[None]

    def ask():
        return model(**question, position_ids=positions)

    sharing, found = share_if_proven(model, Layouts(), ask, exact=True)
    assert sharing is None
    assert found.fault == "TRL asks the model otherwise than is known here"


def test_with_a_fault_the_model_stays_as_it_was():
    model = tiny("gpt2", n_layer=1)
    before = model.forward
    kind, positions = model.config._attn_implementation, model.transformer.wpe.forward
    # Positions that count on where the rows of a batch begin anew.
    model.transformer.wpe.forward = lambda ids: positions(torch.arange(ids.shape[1])[None])
    assert "nats a token apart" in tried(model, padded(pairs(8))).fault
    assert (model.forward, model.config._attn_implementation) == (before, kind)


def test_what_is_no_number_must_be_none_in_both(monkeypatch):
    model, batch = tiny("gpt2"), padded(pairs(9))
    odd = batch["input_ids"][0, 1].item()
    model.transformer.wte.register_forward_hook(
        lambda module, inputs, output: output.masked_fill((inputs[0] == odd)[..., None], math.nan)
    )
    assert not model(**asked(batch)).log_probs.isfinite().all()
    assert tried(model, batch).fault is None
    found = compared([math.nan, 1.0], [2.0, 1.0], True)
    assert "inf nats a token apart" in found.fault


def compared(shared, plain, exact):
    counts = SimpleNamespace(calls=1, tokens=5, padded=9)
    return agreement._compared(counts, torch.tensor(shared), torch.tensor(plain), exact)


def test_half_precision_has_a_measure_of_its_own():
    assert compared([1.0, 1.0, 1.02], [1.0, 1.0, 1.0], True).fault is not None
    found = compared([1.0, 1.0, 1.02], [1.0, 1.0, 1.0], False)
    assert found.fault is None and found.apart == pytest.approx(0.02 / 3, rel=1e-4)
    assert compared([1.0, 1.0, 1.2], [1.0, 1.0, 1.0], False).fault is not None

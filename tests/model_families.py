"""Families of decoders: the tiny config of each, and what training it is to give.

tests/test_families.py trains every row; docs/models.md has the table that this file prints.
"""

from dataclasses import dataclass
from typing import Any

SMALL = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
HEADS = {"head_dim": 8}
# Shorter than the pairs of the test.
WINDOW = {"sliding_window": 8}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {
    **dict.fromkeys(("num_experts", "num_local_experts", "moe_num_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
LATENT = EXPERTS | {
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "v_head_dim", "head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    "num_key_value_heads": 4,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
SECTIONS = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
IMAGES = {
    "vision_config": {
        **dict.fromkeys(("hidden_size", "intermediate_size", "embed_dim", "out_hidden_size"), 32),
        **dict.fromkeys(("num_hidden_layers", "depth"), 1),
        **dict.fromkeys(("num_attention_heads", "num_heads"), 2),
        "patch_size": 14,
        "image_size": 28,
    },
    **dict.fromkeys(("image_token_id", "image_token_index"), 250),
    **dict.fromkeys(("vision_start_token_id", "boi_token_index"), 251),
    **dict.fromkeys(("vision_end_token_id", "eoi_token_index"), 252),
    "video_token_id": 253,
}
# Why prompts are not computed once: words of the reason that the run records.
INTERFACE = "does not use transformers' attention interface"
ALIBI = "ALiBi biases attention by positions in the padded batch"
STATE = "layers that are not attention by position"
AUX = "the auxiliary loss of the experts counts a prompt once for each answer"
VISION = "is not a text-only model"
# Words of a refusal.
OUTPUT = "TRL scores answers by the weight of the output layer alone"


@dataclass(frozen=True)
class Family:
    keys: dict[str, Any]
    """Of its config, next to those of SMALL."""
    sharing: str | None
    """Why prompts are not computed once, or None."""
    refused: dict[str, str | None]
    """Why "lora" or "full" is refused, or None where it trains as plain TRL does."""


def family(sharing=None, lora=None, full=None, **keys):
    return Family(keys, sharing, {"lora": lora, "full": full})


# By the model_type of config.json.
FAMILIES = {
    "gpt2": family(),
    "gpt_bigcode": family(),
    "gpt_neo": family(INTERFACE, attention_types=[[["global", "local"], 1]], window_size=8),
    "gpt_neox": family(),
    "gptj": family(INTERFACE, rotary_dim=4),
    "codegen": family(INTERFACE, rotary_dim=4),
    "openai-gpt": family(INTERFACE),
    "ctrl": family(dff=64),
    "opt": family(ffn_dim=64, word_embed_proj_dim=32),
    "xglm": family(INTERFACE, ffn_dim=64, d_model=32, num_layers=2, attention_heads=4),
    "biogpt": family(),
    "bloom": family(INTERFACE),
    "mpt": family(INTERFACE),
    "falcon": family(INTERFACE),
    "falcon with ALiBi": family(ALIBI, alibi=True),
    "persimmon": family(),
    "phi": family(),
    "phi3": family(**WINDOW),
    "llama": family(),
    "mistral": family(**WINDOW),
    "ministral": family(**HEADS, **WINDOW),
    "arcee": family(),
    "apertus": family(),
    "smollm3": family(),
    "seed_oss": family(),
    "helium": family(**HEADS),
    "diffllama": family(attention_dropout=0.0),
    "stablelm": family(),
    "starcoder2": family(**WINDOW),
    "nemotron": family(),
    "nanochat": family(**HEADS),
    "ernie4_5": family(),
    "exaone4": family(**WINDOW, **LAYERS),
    "hunyuan_v1_dense": family(**HEADS),
    "glm": family(),
    "glm4": family(),
    "olmo": family(),
    "olmo2": family(),
    "olmo3": family(**WINDOW, **LAYERS),
    "cohere": family(),
    "cohere2": family(**WINDOW, **LAYERS),
    "granite": family(),
    "gemma": family(**HEADS),
    "gemma2": family(**HEADS, **WINDOW),
    "gemma3_text": family(**HEADS, **WINDOW, **LAYERS),
    "vaultgemma": family(**HEADS, **WINDOW),
    "qwen2": family(),
    "qwen2 with a window": family(**WINDOW, use_sliding_window=True, max_window_layers=1),
    "qwen3": family(**HEADS),
    "bert with is_decoder": family(None, OUTPUT, OUTPUT, is_decoder=True, pad_token_id=0),
    "modernbert-decoder": family(None, OUTPUT, OUTPUT, local_attention=8, pad_token_id=0),
    "deepseek_v2": family(**LATENT),
    "deepseek_v3": family(**LATENT),
    "glm4_moe": family(**LATENT),
    "dots1": family(**LATENT, n_shared_experts=1),
    "hunyuan_v1_moe": family(**EXPERTS, **HEADS),
    "mixtral": family(AUX, **EXPERTS),
    "phimoe": family(AUX, **EXPERTS),
    "qwen2_moe": family(AUX, **EXPERTS),
    "qwen3_moe": family(AUX, **EXPERTS, **HEADS),
    "olmoe": family(AUX, **EXPERTS),
    "flex_olmo": family(AUX, **EXPERTS),
    "granitemoe": family(AUX, **EXPERTS),
    "ernie4_5_moe": family(AUX, **EXPERTS, moe_layer_start_index=0),
    "gpt_oss": family(AUX, **EXPERTS, **HEADS, **WINDOW),
    "jetmoe": family(**EXPERTS, kv_channels=8),
    "minimax_m2": family(AUX, **EXPERTS, **HEADS),
    "llama4_text": family(
        AUX, **EXPERTS, **HEADS, intermediate_size_mlp=64, attention_chunk_size=8
    ),
    "qwen3_next": family(AUX, **EXPERTS, **HEADS, **LINEAR),
    "minimax": family(AUX, **EXPERTS, **HEADS),
    "granitemoehybrid": family(
        AUX,
        **EXPERTS,
        shared_intermediate_size=16,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=8,
        layer_types=["mamba", "attention"],
    ),
    "jamba": family(
        AUX,
        num_experts=4,
        mamba_d_state=4,
        mamba_dt_rank=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        use_mamba_kernels=False,
    ),
    "qwen3_5_text": family(STATE, **HEADS, **LINEAR),
    "lfm2": family(STATE, full_attn_idxs=[1]),
    "lfm2_moe": family(
        STATE, **EXPERTS, layer_types=["conv", "full_attention"], num_dense_layers=1
    ),
    "recurrent_gemma": family(
        *(None, OUTPUT, OUTPUT),
        lru_width=32,
        attention_window_size=8,
        block_types=["recurrent", "attention"],
        logits_soft_cap=1.0,
    ),
    "bamba": family(
        STATE, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, attn_layer_indices=[1]
    ),
    "zamba2": family(
        STATE,
        mamba_d_state=4,
        layer_types=["mamba", "hybrid"],
        hybrid_layer_ids=[1],
        n_mamba_heads=4,
        mamba_ngroups=1,
        num_mem_blocks=1,
    ),
    "falcon_h1": family(STATE, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8),
    "mamba": family(STATE, state_size=4),
    "mamba2": family(STATE, state_size=4, num_heads=4, head_dim=16, n_groups=1),
    "falcon_mamba": family(STATE, state_size=4),
    "rwkv": family("carries a state"),
    "gemma3": family(VISION, text_config=SMALL | HEADS | WINDOW, mm_tokens_per_image=4, **IMAGES),
    "qwen2_vl": family(VISION, text_config=SMALL | SECTIONS, **IMAGES),
    "qwen2_5_vl": family(VISION, text_config=SMALL | SECTIONS, **IMAGES),
    "llava": family(VISION, text_config=SMALL | {"model_type": "llama"}, **IMAGES),
}


def table():
    """The lines of the table in docs/models.md."""
    rows = [
        "| `model_type` | LoRA | full weights | each prompt computed once |",
        "|---|---|---|---|",
    ]
    for name, row in FAMILIES.items():
        kinds = [why and f"refused: {why}" or "exact" for why in row.refused.values()]
        model_type, _, variant = name.partition(" ")
        shared = "" if all(row.refused.values()) else f"no: {row.sharing}" if row.sharing else "yes"
        cells = [f"`{model_type}`{variant and f' {variant}'}", *kinds, shared]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    print("\n".join(table()))

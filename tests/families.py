"""Tiny models of the families that LoRA's targets are tested on, with the tests' tokenizer."""

import torch
import transformers
from transformers import AutoTokenizer

TEXT = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    **{f"{name}_token_id": 0 for name in ("bos", "eos", "pad")},
}
MOE = TEXT | {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
LINEAR |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
VISION = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
VISION |= {"hidden_size": 32, "intermediate_size": 32}
QWEN_VISION = {"depth": 1, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 32}
QWEN_TEXT = TEXT | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
LLAMA4 = TEXT | {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 48}
LLAMA4 |= {"interleave_moe_layer_step": 2, "layer_types": ["full_attention"] * 2}
# The class of each family, and the keys of its config.
FAMILIES = {
    "llama": ("LlamaForCausalLM", TEXT),
    "tied": ("Qwen3ForCausalLM", TEXT | {"tie_word_embeddings": True}),
    "qwen3 moe": ("Qwen3MoeForCausalLM", MOE | {"num_experts": 4, "mlp_only_layers": [0]}),
    "mixtral": ("MixtralForCausalLM", MOE | {"num_local_experts": 4}),
    "deepseek v3": (
        "DeepseekV3ForCausalLM",
        MOE
        | LATENT
        | {"num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
        | {"first_k_dense_replace": 1, "v_head_dim": 8, "head_dim": 4, "n_shared_experts": 1},
    ),
    "qwen3 next": (
        "Qwen3NextForCausalLM",
        MOE
        | LINEAR
        | {"num_experts": 4, "shared_expert_intermediate_size": 16}
        | {"layer_types": ["linear_attention", "full_attention"]},
    ),
    "granite moe": ("GraniteMoeForCausalLM", MOE | {"num_local_experts": 4}),
    "llama 4": ("Llama4ForCausalLM", LLAMA4),
    "qwen2.5 vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": QWEN_TEXT,
            "vision_config": QWEN_VISION | {"num_heads": 2, "patch_size": 8},
            "image_token_id": 250,
            "video_token_id": 251,
            "vision_start_token_id": 252,
        },
    ),
    "gemma 3": (
        "Gemma3ForConditionalGeneration",
        {
            "text_config": TEXT | {"layer_types": ["full_attention"] * 2},
            "vision_config": VISION,
            "image_token_index": 250,
            "boi_token_index": 251,
            "eoi_token_index": 252,
            "mm_tokens_per_image": 4,
        },
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        {
            "text_config": TEXT | {"model_type": "llama"},
            "vision_config": VISION | {"model_type": "clip_vision_model"},
            "image_token_index": 250,
        },
    ),
    "llama 4 with vision": (
        "Llama4ForConditionalGeneration",
        {
            "text_config": LLAMA4,
            "vision_config": VISION
            | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
        },
    ),
}


def save_family(family, path, tokenizer_dir):
    """Save a model of the family with random weights, large enough that its tokens differ."""
    name, keys = FAMILIES[family]
    architecture = getattr(transformers, name)
    torch.manual_seed(0)
    model = architecture(architecture.config_class(**keys))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.08)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(path)
    return path


def load_whole(path):
    """A saved model of its own class in evaluation mode."""
    config = transformers.AutoConfig.from_pretrained(path)
    architecture = getattr(transformers, config.architectures[0])
    return architecture.from_pretrained(path, dtype=torch.float32).eval()

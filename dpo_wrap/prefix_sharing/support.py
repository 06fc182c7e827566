"""Why a run cannot share prompts, as far as its config and its model's class tell.

What these do not tell is found by agreement.py, on a batch.
"""

import inspect
import os
from collections.abc import Iterator
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from trl import DPOConfig

from dpo_wrap.prefix_sharing.attention import KINDS

SERVED = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers in which a token sees others by their positions in its own text alone."""


def run_unsupported_reasons(
    dpo: DPOConfig, config: PretrainedConfig, adapter: dict[str, Any] | None
) -> Iterator[str]:
    """What in the run itself forbids it; `adapter` holds the keys under lora:."""
    if dpo.torch_compile:
        yield "torch_compile wants the same shapes in every step"
    if dpo.neftune_noise_alpha:
        yield "neftune_noise_alpha draws noise by the length of a padded row"
    if (adapter or {}).get("alora_invocation_tokens"):
        yield "alora_invocation_tokens are looked for row by row"
    if dpo.deepspeed or dpo.fsdp or _sharded_by_launcher():
        yield "the model is sharded (FSDP, DeepSpeed), where it has not been proven"
    text = config.get_text_config()
    if text is not config:
        yield f"{config.model_type} takes more than text"
    coefficient = dpo.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(text, "router_aux_loss_coef", 0)
    if coefficient and hasattr(text, "output_router_logits"):
        yield (
            "the experts' auxiliary loss counts a prompt once for each answer (router_aux_loss_coef"
            " 0 leaves it out)"
        )
    if kinds := sorted(set(getattr(text, "layer_types", None) or ()) - SERVED):
        yield f"its layers are of another kind than attention by position ({', '.join(kinds)})"
    if getattr(text, "alibi", False):
        yield "ALiBi biases attention by places in the padded batch"
    ropes = set(_rope_types(text))
    if "dynamic" in ropes:
        yield "its positions are scaled by the longest text before (rope_type dynamic)"
    if "longrope" in ropes and dpo.pad_to_multiple_of:
        yield "its positions are scaled by a batch's padding (longrope with pad_to_multiple_of)"


def class_unsupported_reasons(model: type[PreTrainedModel]) -> Iterator[str]:
    """What in a model's code forbids it."""
    if getattr(model, "_is_stateful", False):
        yield f"{model.__name__} keeps a state from token to token"
    elif not model._can_set_attn_implementation():
        yield f"{model.__name__} has its attention built in"
    elif "position_ids" not in inspect.signature(model.forward).parameters:
        yield f"{model.__name__} takes no position_ids"


def attention_unsupported_reasons(kind: str, config: PretrainedConfig) -> Iterator[str]:
    """What in an implementation of attention forbids it."""
    if kind not in KINDS:
        yield f"attn_implementation {kind} takes no mask; {' and '.join(KINDS)} do"
    if kind == "eager" and getattr(config, "reorder_and_upcast_attn", False):
        yield "reorder_and_upcast_attn is done by eager attention alone"


def _rope_types(config: PretrainedConfig) -> Iterator[str]:
    """How rotary positions are scaled, in any kind of layer."""
    given = getattr(config, "rope_parameters", None) or {}
    for parameters in (given, *given.values()):
        if isinstance(parameters, dict) and "rope_type" in parameters:
            yield parameters["rope_type"]


def _sharded_by_launcher() -> bool:
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "false").lower() in ("true", "1") for name in names)

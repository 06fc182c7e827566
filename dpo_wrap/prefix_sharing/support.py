"""The rules by which a run or its model cannot share prefixes.

What these rules do not know is found by proof.py, which compares log-probabilities on a batch.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import transformers
from accelerate.utils import parse_flag_from_env
from transformers import PretrainedConfig, PreTrainedModel
from trl import DPOConfig

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, DpoWrapError
from dpo_wrap.model.load import init_kwargs

ATTENTION = ("sdpa", "eager")
"""Implementations of attention that take a mask, and so can attend to part of a row."""
LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers in which a token depends on others only by their positions in its own sequence."""


class UnsupportedModelError(DpoWrapError):
    """A model cannot share prefixes; the message is the reason."""


def unsupported_before_loading(
    settings: Settings, dpo: DPOConfig, config: PretrainedConfig
) -> str | None:
    """The first reason that is known before the weights are loaded.

    Raises ConfigError for a reason under `prefix_sharing: on`.
    """
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    kind = init_kwargs(settings).get("attn_implementation") or ATTENTION[0]
    reason = (
        next(run_reasons(dpo, config, settings.lora), None)
        or (architecture and class_reason(architecture))
        or attention_reason(kind, config)
    )
    if reason is not None and settings.prefix_sharing == "on":
        raise config_error(settings, reason)
    return reason


def config_error(settings: Settings, reason: str) -> ConfigError:
    """The error for `prefix_sharing: on` in a run that cannot share."""
    return ConfigError(
        f"{settings.where('prefix_sharing')}: on is not possible, because {reason}; set it to auto "
        "to train without sharing"
    )


def run_reasons(
    dpo: DPOConfig, config: PretrainedConfig, lora: dict[str, Any] | None
) -> Iterator[str]:
    """Reasons in the configs of a run and its model; `lora` holds the keys under lora:."""
    if dpo.torch_compile:
        yield "torch_compile needs the same shapes in every step"
    if dpo.neftune_noise_alpha:
        yield "neftune_noise_alpha scales its noise by the length of a padded row"
    if (lora or {}).get("alora_invocation_tokens"):
        yield "alora_invocation_tokens are searched for in each row of the batch"
    launched = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    if dpo.deepspeed or dpo.fsdp or any(map(parse_flag_from_env, launched)):
        yield "the model is sharded (FSDP or DeepSpeed), for which it is not tested"
    text = config.get_text_config()
    if text is not config:
        yield f"{config.model_type} is not a text-only model"
    coefficient = dpo.router_aux_loss_coef
    if coefficient is None:
        coefficient = getattr(text, "router_aux_loss_coef", 0)
    if coefficient and hasattr(text, "output_router_logits"):
        yield (
            "the auxiliary loss of the experts counts a prompt once for each answer "
            "(router_aux_loss_coef: 0 trains without that loss)"
        )
    if others := sorted(set(getattr(text, "layer_types", None) or ()) - LAYER_TYPES):
        yield f"it has layers that are not attention by position ({', '.join(others)})"
    if getattr(text, "alibi", False):
        yield "ALiBi biases attention by positions in the padded batch"
    rope_types = set(_rope_types(text))
    if "dynamic" in rope_types:
        yield "rope_type dynamic scales positions by the longest sequence so far"
    if "longrope" in rope_types and dpo.pad_to_multiple_of:
        yield "rope_type longrope scales positions by the padded length (pad_to_multiple_of)"


def class_reason(model: type[PreTrainedModel]) -> str | None:
    """The reason in the code of a model's class."""
    if getattr(model, "_is_stateful", False):
        return f"{model.__name__} carries a state from token to token"
    if not model._can_set_attn_implementation():
        return f"{model.__name__} does not use transformers' attention interface"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{model.__name__} takes no position_ids"
    return None


def attention_reason(kind: str, config: PretrainedConfig) -> str | None:
    """The reason in an implementation of attention."""
    if kind not in ATTENTION:
        return f"attn_implementation {kind} takes no mask tensor ({' and '.join(ATTENTION)} do)"
    if kind == "eager" and getattr(config, "reorder_and_upcast_attn", False):
        return "reorder_and_upcast_attn needs the model's own eager attention"
    return None


def _rope_types(config: PretrainedConfig) -> Iterator[str]:
    """How rotary positions are scaled, over all kinds of layers."""
    parameters = getattr(config, "rope_parameters", None) or {}
    for given in (parameters, *parameters.values()):
        if isinstance(given, dict) and "rope_type" in given:
            yield given["rope_type"]

"""The model without its weights, to see what an adapter would match.

Built on torch's meta device, where a tensor is a shape alone, so that a wrong target is refused
before gigabytes are read.
"""

import copy
import warnings

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from dpo_wrap.arguments import construct
from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, one_line

PATTERNS = ("rank_pattern", "alpha_pattern")


def check_targets(
    settings: Settings, config: PretrainedConfig, lora: LoraConfig | None, notes: list[str]
) -> None:
    """Raise ConfigError for an adapter that matches nothing in this model or cannot be trained.

    A model that cannot be built from its config alone is a note; then its weights have to show it.
    """
    if lora is None:
        return
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = _empty(settings, config)
    except Exception as error:  # a model's own code may raise anything
        notes.append(
            f"{settings.where('model_path')}: no outline without its weights ({one_line(error)}), "
            "so LoRA's targets are checked when they are loaded"
        )
        return
    every = [name for name, _ in model.named_modules()]
    adapted = _adapted(settings, model, lora)
    _check_names(settings, lora, adapted.targeted_module_names, every)
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        raise ConfigError(
            f"{settings.where('lora.target_modules')}: the output layer cannot be adapted, since "
            "TRL reads its weight past the adapter, which would never be trained; leave it out"
        )


def _empty(settings: Settings, config: PretrainedConfig) -> PreTrainedModel:
    """As TRL picks the class: the config's own architecture, else the causal one."""
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is not None:
        return architecture(config)
    trusted = settings.option("trust_remote_code")
    return AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)


def _adapted(settings: Settings, model: PreTrainedModel, lora: LoraConfig) -> PeftModel:
    # Initialisations that look at the weights find none here, and the matching is the same.
    plain = copy.copy(lora)
    plain.init_lora_weights, plain.inference_mode = False, False
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return construct(_get_peft_model, {"model": model, "peft_config": plain}, settings, [])


def _get_peft_model(model: PreTrainedModel, peft_config: LoraConfig) -> PeftModel:
    return get_peft_model(model, peft_config)


_get_peft_model.__name__ = "peft"


def _check_names(
    settings: Settings, lora: LoraConfig, adapted: list[str], every: list[str]
) -> None:
    """Names that match nothing beside others that do; peft takes these without a word."""
    if idle := _idle(lora.modules_to_save, every):
        raise ConfigError(
            f"{settings.where('lora.modules_to_save')}: {', '.join(idle)} match no module of this "
            "model; remove them"
        )
    if idle := _idle(lora.target_modules, adapted):
        last = sorted({name.rpartition(".")[2] for name in adapted})
        raise ConfigError(
            f"{settings.where('lora.target_modules')}: {', '.join(idle)} match no module of this "
            f"model; remove them (adapted are {', '.join(last)})"
        )
    for key in PATTERNS:
        for pattern in getattr(lora, key) or {}:
            if not any(get_pattern_key([pattern], name) == pattern for name in adapted):
                raise ConfigError(
                    f"{settings.where(f'lora.{key}')}: {pattern!r} matches no adapted module"
                )


def _idle(names: object, modules: list[str]) -> list[str]:
    """The names that are no module's, nor the end of one's after a dot."""
    listed = names if isinstance(names, set | list | tuple) else ()
    return sorted(n for n in listed if not any(m == n or m.endswith(f".{n}") for m in modules))

"""Settings to TRL's DPOConfig and peft's LoraConfig, with defaults that hang on model and machine.

Every default chosen here is said in a note and written to config.resolved.yaml.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from transformers import PretrainedConfig
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.utils import is_torch_bf16_gpu_available
from trl import DPOConfig

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, ModelError
from dpo_wrap.model.load import context_length

# TRL's 1e-6 suits full weights and leaves an adapter where it was. Margins that the sample config
# ends at, by learning rate: the quickstart's model on data/preferences.json, 27 steps: 1e-5 0.003,
# 1e-4 0.026, 2e-4 0.051, 5e-4 0.12; a random 4-layer GPT-2 on 282 pairs, 213 steps: 1e-6 0.002,
# 1e-4 0.40, 2e-4 0.58, 5e-4 0.70. Larger models move further at the same rate.
LORA_LEARNING_RATE = 2e-4
MAX_LENGTH = 1024
# Initialisations that take from the base weights what they put into the adapter.
REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga")
# DPOTrainer reads this only when it loads the model itself, which model.py does here.
LOADED_HERE = "model_init_kwargs"
# How the libraries object to values.
REFUSALS = (ValueError, TypeError, KeyError, NotImplementedError, ImportError)


@dataclass(frozen=True)
class Arguments:
    """What DPOTrainer is given, and what this wrapper decided on the way."""

    dpo: DPOConfig
    lora: LoraConfig | None
    """A new adapter; None for full weights and for an adapter that is gone on with."""
    lora_dropout: float
    """Share of the adapter's inputs to drop; 0 leaves all dropout to disable_dropout."""
    chosen: dict[str, Any]
    """Defaults that are this wrapper's, by TRL's name, `lora.target_modules` for peft's."""
    notes: list[str]


def build_arguments(
    settings: Settings, config: PretrainedConfig, adapter: LoraConfig | None = None
) -> Arguments:
    """Both configs as TRL and peft build them; raises ConfigError with what they object to."""
    chosen, notes = _defaults(settings, config)
    lora, dropout = None, 0.0
    if adapter is not None:
        _check_adapter(settings, config, adapter)
        dropout = adapter.lora_dropout
    elif settings.lora is not None:
        lora = _lora(settings, config, chosen, notes)
        dropout = lora.lora_dropout
    given = {name: value for name, value in settings.trl.items() if name != LOADED_HERE}
    kwargs = given | {name: v for name, v in chosen.items() if not name.startswith("lora.")}
    if dropout:
        # disable_dropout would zero the adapter's dropout too; trainer.py zeroes the base's alone.
        kwargs["disable_dropout"] = False
        notes.append(_dropout_note(settings, dropout))
    dpo = construct(DPOConfig, {**kwargs, "output_dir": settings.output_dir}, settings, notes)
    _check_trackers(settings, dpo, notes)
    base = adapter and adapter.base_model_name_or_path
    if base and Path(base).name != Path(settings.model_path).name:
        notes.append(
            f"{settings.where('adapter_path')}: made on {base}, and model_path is "
            f"{settings.model_path}; right only where both are the same weights"
        )
    if dpo.fp16 and dpo.device.type == "cpu":
        raise ConfigError(f"{settings.where('fp16')}: no device here has it; remove it")
    if dpo.activation_offloading and dpo.device.type == "cpu":
        place = settings.where("activation_offloading")
        raise ConfigError(f"{place}: there is no GPU to offload from; remove it")
    if dpo.max_steps > 0 and "num_train_epochs" in settings.trl:
        notes.append(f"num_epochs: not counted, since max_steps: {dpo.max_steps} says how long")
    if not dpo.push_to_hub and (waiting := [n for n in settings.trl if n.startswith("hub_")]):
        # Where copies go is no part of a run, so an account's settings may stay in its config.
        notes.append(f"{', '.join(waiting)}: unused without push_to_hub: true")
    return Arguments(dpo, lora, dropout, chosen, notes)


def refusal(who: str, error: Exception, settings: Settings) -> ConfigError:
    """A library's objection in the form of a config's fault."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(f"{_place(settings, text)}: {who} refuses it: {text}")


def construct(
    build: Callable[..., Any], kwargs: dict[str, Any], settings: Settings, notes: list[str]
) -> Any:
    """build(**kwargs), its objections as a ConfigError, its warnings about given keys as notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            built = build(**kwargs)
        except REFUSALS as error:
            raise refusal(build.__name__, error, settings) from None
    for warning in caught:
        text = " ".join(str(warning.message).split())
        # What a library says about keys that were not given concerns its own defaults.
        if (place := _place(settings, text)) != settings.source:
            notes.append(f"{place}: {build.__name__} warns: {text}")
    return built


def _defaults(settings: Settings, config: PretrainedConfig) -> tuple[dict[str, Any], list[str]]:
    chosen, notes = {}, []
    context = context_length(config)
    if "max_length" not in settings.trl:
        chosen["max_length"] = min(MAX_LENGTH, context or MAX_LENGTH)
        of = f"the smaller of {MAX_LENGTH} and the model's context of {context} tokens"
        notes.append(
            f"max_length: {chosen['max_length']} by default, {of if context else 'as TRL'}"
        )
    elif context and (settings.trl["max_length"] or 0) > context:
        raise ConfigError(
            f"{settings.where('max_length')} {settings.trl['max_length']} is more than the model's "
            f"context of {context} tokens; at most {context}"
        )
    if settings.lora is not None and "learning_rate" not in settings.trl:
        chosen["learning_rate"] = LORA_LEARNING_RATE
        why = "TRL's own 1e-6 does not move an adapter, and large models may want less than this"
        notes.append(f"learning_rate: {LORA_LEARNING_RATE:g} by default with LoRA; {why}")
    if settings.option("bf16") is None and not settings.option("fp16"):
        chosen["bf16"] = not settings.option("use_cpu") and is_torch_bf16_gpu_available()
        if not chosen["bf16"]:
            why = "use_cpu" if settings.option("use_cpu") else "no device here has it"
            notes.append(f"bf16: false by default, {why}")
    return chosen, notes


def _lora(
    settings: Settings, config: PretrainedConfig, chosen: dict[str, Any], notes: list[str]
) -> LoraConfig:
    kwargs = {**settings.lora, "task_type": "CAUSAL_LM"}
    _check_lora(settings, config)
    own_choice = config.model_type in LORA_TARGETS
    if not own_choice and not kwargs.keys() & {"target_modules", "target_parameters"}:
        kwargs["target_modules"] = chosen["lora.target_modules"] = "all-linear"
        why = f"peft has no choice of its own for {config.model_type}"
        notes.append(f"lora.target_modules: all-linear by default, {why}")
    return construct(LoraConfig, kwargs, settings, notes)


def _check_lora(settings: Settings, config: PretrainedConfig) -> None:
    """Options of peft that this model cannot serve; raises ConfigError."""
    if indices := settings.lora.get("trainable_token_indices"):
        place = settings.where("lora.trainable_token_indices")
        # A mapping names the layer of each list, which may be another than the embeddings.
        if config.get_text_config().tie_word_embeddings:
            raise ConfigError(
                f"{place}: this model's output layer is its embeddings, which TRL cannot read with "
                "some of them trained; remove it"
            )
        size = config.get_text_config().vocab_size
        if isinstance(indices, list) and max(indices) >= size:
            raise ConfigError(f"{place}: the embeddings end at {size - 1}; found {max(indices)}")
    method = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    if settings.lora.get("use_qalora") and method != "gptq":
        place = settings.where("lora.use_qalora")
        raise ConfigError(f"{place} has no effect on a model that is not GPTQ-quantised; remove it")


def _check_adapter(settings: Settings, config: PretrainedConfig, adapter: LoraConfig) -> None:
    """Refuse to go on from an adapter that TRL cannot copy or cannot score; raises ModelError."""
    start, why = adapter.init_lora_weights, None
    if isinstance(start, str) and start.startswith(REWRITING):
        why = (
            f"was initialised with {start}, which rewrites the base weights, and the frozen copy "
            "that is the reference would rewrite them again"
        )
    elif adapter.trainable_token_indices and config.get_text_config().tie_word_embeddings:
        why = "trains tokens of embeddings that are the output layer too, which TRL cannot read"
    if why:
        path = settings.adapter_path
        raise ModelError(
            f"{settings.where('adapter_path')} {path!r} {why}; merge it, python -m dpo_wrap.merge "
            f"{path} DIR, and give DIR as model_path"
        )


def _dropout_note(settings: Settings, dropout: float) -> str:
    if "disable_dropout" in settings.trl:
        return "disable_dropout: false wakes the base model's dropout; step 0 will not be at ln 2"
    return f"lora_dropout: {dropout:g} acts on the adapter; the base model's dropout stays off"


def _place(settings: Settings, text: str) -> str:
    """Where the first key that a library's message names was given, or the config file."""
    parted = re.sub("[=<>/]", " ", text).split()
    words = (word.strip("`'\".,:;()[]").lstrip("-") for word in parted)
    given = {name.removeprefix("lora."): name for name in settings.locations}
    named = [given[word] for word in words if word in given]
    # peft writes "Target modules" for target_modules.
    spoken = [name for word, name in given.items() if "_" in word and _spoken(word) in text.lower()]
    # `'FOO' is not a valid DynamoBackend`, `to use bitsandbytes optimizers`: by value, by stem.
    quoted = {word.lower() for word in re.findall(r"['\"`]([^'\"`]+)['\"`]", text)}
    valued = [name for name, value in settings.trl.items() if str(value).lower() in quoted]
    stems = [name for word, name in given.items() if len(word) > 4 and f" {word}" in text]
    return settings.where(next(iter(named + spoken + valued + stems), ""))


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _check_trackers(settings: Settings, dpo: DPOConfig, notes: list[str]) -> None:
    place = settings.where("report_to")
    for tracker in dpo.report_to:
        if tracker not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(["none", "all", *INTEGRATION_TO_CALLBACK])
            raise ConfigError(f"{place}: {tracker!r} is unknown; known: {known}")
        if tracker not in get_available_reporting_integrations() and tracker != "flyte":
            raise ConfigError(f"{place}: {tracker} is not installed; install it, or remove it here")
    if settings.logging_dir is not None and "tensorboard" not in dpo.report_to:
        notes.append(
            f"logging_dir: {settings.logging_dir} is unused without report_to: tensorboard; the "
            "figures go to metrics.jsonl"
        )

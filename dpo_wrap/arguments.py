"""Settings to TRL's DPOConfig and peft's LoraConfig, with the defaults of this model and machine.

Every default chosen here is reported in a note and written to config.resolved.yaml.
"""

import copy
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig
from transformers import PretrainedConfig, Trainer, get_scheduler
from transformers.integrations.integration_utils import get_available_reporting_integrations
from transformers.utils import is_liger_kernel_available, is_torch_bf16_gpu_available
from trl import DPOConfig

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, ModelError, one_line
from dpo_wrap.library_fields import unknown
from dpo_wrap.model.load import context_length

# TRL's 1e-6 suits full weights and hardly moves an adapter. Final margins by learning rate, with a
# random 4-layer GPT-2 on 282 pairs, 213 steps: 1e-6 0.002, 1e-4 0.40, 2e-4 0.58, 5e-4 0.70.
LORA_LEARNING_RATE = 2e-4
MAX_LENGTH = 1024
# Initializations that move a part of the base weights into the adapter.
REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga")
# The exceptions with which the libraries reject values.
REFUSALS = (ValueError, TypeError, KeyError, NotImplementedError, ImportError)


@dataclass(frozen=True)
class Arguments:
    """The arguments of DPOTrainer, and the decisions made here."""

    dpo: DPOConfig
    lora: LoraConfig | None
    """A new adapter; None for full weights and for an adapter that training continues."""
    chosen: dict[str, Any]
    """The defaults chosen here, by TRL's name; `lora.target_modules` for peft's."""
    notes: list[str]


def build_arguments(
    settings: Settings, config: PretrainedConfig, adapter: LoraConfig | None = None
) -> Arguments:
    """Build DPOConfig and LoraConfig. Raises ConfigError; ModelError for an unusable adapter."""
    chosen, notes = _defaults(settings, config)
    lora = None
    if adapter is not None:
        _check_adapter(settings, config, adapter, notes)
    elif settings.lora is not None:
        lora = _lora_config(settings, config, notes)
    dropout = getattr(adapter or lora, "lora_dropout", 0.0)
    # DPOTrainer reads model_init_kwargs only if it loads the model; here dpo_wrap.model does.
    kwargs = {name: value for name, value in settings.trl.items() if name != "model_init_kwargs"}
    kwargs |= {name: value for name, value in chosen.items() if not name.startswith("lora.")}
    if dropout:
        # disable_dropout would zero the adapter's dropout too; trl_hooks zeroes the base model's.
        kwargs["disable_dropout"] = False
    notes += _dropout_notes(settings, dropout)
    dpo = construct(DPOConfig, {**kwargs, "output_dir": settings.output_dir}, settings, notes)
    _check_schedule(settings, dpo)
    _check_optimizer(settings, dpo)
    if dpo.use_liger_kernel and not is_liger_kernel_available():
        place = settings.where("use_liger_kernel")
        raise ConfigError(f"{place}: needs the package liger-kernel; pip install liger-kernel")
    for tracker in dpo.report_to:
        if tracker not in get_available_reporting_integrations() and tracker != "flyte":
            place = settings.where("report_to")
            raise ConfigError(f"{place}: {tracker} is not installed; install it, or remove it here")
    for name in ("fp16", "activation_offloading"):
        if getattr(dpo, name) and dpo.device.type == "cpu":
            raise ConfigError(f"{settings.where(name)}: no device here supports it; remove it")
    if dpo.max_steps > 0 and "num_train_epochs" in settings.trl:
        notes.append(f"num_epochs: not counted, since max_steps: {dpo.max_steps} decides")
    if settings.logging_dir is not None and "tensorboard" not in dpo.report_to:
        notes.append(
            f"logging_dir: {settings.logging_dir} is unused without report_to: tensorboard; the "
            "metrics are in metrics.jsonl"
        )
    if not dpo.push_to_hub and (unused := [n for n in settings.trl if n.startswith("hub_")]):
        # An account's settings may stay in its configs.
        notes.append(f"{', '.join(unused)}: unused without push_to_hub: true")
    return Arguments(dpo, lora, chosen, notes)


def construct(
    build: Callable[..., Any], kwargs: dict[str, Any], settings: Settings, notes: list[str]
) -> Any:
    """Return build(**kwargs). Raises its refusals as ConfigError; notes its warnings about keys."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            built = build(**kwargs)
        except REFUSALS as error:
            raise refusal(build.__name__, error, settings) from None
    for warning in caught:
        text = " ".join(str(warning.message).split())
        # A warning that names no key of the config is about the library's own defaults.
        place = _place(settings, text)
        note = f"{place}: {build.__name__} warns: {text}"
        if place != settings.source and note not in notes:
            notes.append(note)
    return built


def refusal(who: str, error: Exception, settings: Settings) -> ConfigError:
    """A library's exception as a ConfigError with the place of the key that it is about."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ConfigError(f"{_place(settings, text)}: {who} refuses it: {text}")


def _place(settings: Settings, text: str) -> str:
    """The place of the first key that a message names, else of a value it quotes, else the file."""
    # peft writes "Target modules" for target_modules.
    words = f" {re.sub(r'[^a-z0-9_]+', ' ', text.lower())} "
    positions = {key: _find(words, key.removeprefix("lora.")) for key in settings.locations}
    named = [key for key, position in positions.items() if position >= 0]
    # `'FOO' is not a valid DynamoBackend`.
    quoted = {word.lower() for word in re.findall(r"['\"`]([^'\"`]+)['\"`]", text)}
    valued = [key for key, value in settings.trl.items() if str(value).lower() in quoted]
    if named:
        return settings.where(min(named, key=positions.get))
    if not valued and " optimizer" in words:
        valued = ["optim"]
    return settings.where(next(iter(valued), ""))


def _find(words: str, name: str) -> int:
    """Where a key is first named, with underscores or in words; -1 if it is not."""
    found = (words.find(f" {spelling} ") for spelling in (name, name.replace("_", " ")))
    return min((position for position in found if position >= 0), default=-1)


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
            f"context of {context} tokens; set at most {context}"
        )
    if settings.lora is not None and "learning_rate" not in settings.trl:
        chosen["learning_rate"] = LORA_LEARNING_RATE
        why = "TRL's own 1e-6 does not move an adapter; large models may need less"
        notes.append(f"learning_rate: {LORA_LEARNING_RATE:g} by default with LoRA; {why}")
    if settings.option("bf16") is None and not settings.option("fp16"):
        chosen["bf16"] = not settings.option("use_cpu") and is_torch_bf16_gpu_available()
        if not chosen["bf16"]:
            why = "use_cpu" if settings.option("use_cpu") else "no device here supports it"
            notes.append(f"bf16: false by default, {why}")
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if "activation_checkpointing" not in settings.trl and not getattr(
        architecture, "supports_gradient_checkpointing", True
    ):
        chosen["activation_checkpointing"] = False
        why = f"{architecture.__name__} does not support it"
        notes.append(f"activation_checkpointing: false by default, {why}")
    return chosen, notes


def _lora_config(settings: Settings, config: PretrainedConfig, notes: list[str]) -> LoraConfig:
    # A copy in depth, since peft changes modules_to_save in place.
    kwargs = {**copy.deepcopy(dict(settings.lora)), "task_type": "CAUSAL_LM"}
    if indices := kwargs.get("trainable_token_indices"):
        place = settings.where("lora.trainable_token_indices")
        if _tied(config):
            raise ConfigError(
                f"{place}: this model's output layer is its embeddings, which TRL cannot read with "
                "some of them trained; remove it"
            )
        # A mapping names the layer of each list, which may be another than the embeddings.
        last = config.get_text_config().vocab_size - 1
        if isinstance(indices, list) and max(indices) > last:
            raise ConfigError(f"{place}: {max(indices)} is not a token; the last one is {last}")
    method = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    if kwargs.get("use_qalora") and method != "gptq":
        place = settings.where("lora.use_qalora")
        raise ConfigError(f"{place}: no effect on a model without GPTQ quantization; remove it")
    lora = construct(LoraConfig, kwargs, settings, notes)
    for name, value in settings.lora.items():
        # peft drops the keys of a mapping that its nested configs do not have.
        inner = getattr(lora, name)
        known = [one.name for one in fields(inner)] if is_dataclass(inner) else []
        if (
            known
            and isinstance(value, dict)
            and (wrong := [key for key in value if key not in known])
        ):
            problem = f"{unknown(str(wrong[0]), known)} known: {', '.join(known)}"
            raise ConfigError(f"{settings.where(f'lora.{name}')}: {problem}")
    return lora


def _tied(config: PretrainedConfig) -> bool:
    """Whether the output layer is the embeddings."""
    # In models with vision either config may have it.
    configs = (config, config.get_text_config())
    return any(getattr(one, "tie_word_embeddings", False) for one in configs)


def _dropout_notes(settings: Settings, dropout: float) -> list[str]:
    disabled = settings.trl.get("disable_dropout")
    if disabled is False:
        return ["disable_dropout: false enables the base model's dropout; step 0 is without it"]
    if not dropout:
        return []
    if disabled:
        raise ConfigError(
            f"{settings.where('disable_dropout')}: true would disable the adapter's dropout of "
            f"{dropout:g} too; remove it, or set lora_dropout: 0"
        )
    return [f"lora_dropout: {dropout:g} acts on the adapter; the base model's dropout stays off"]


def _check_adapter(
    settings: Settings, config: PretrainedConfig, adapter: LoraConfig, notes: list[str]
) -> None:
    """Raise ModelError for an adapter that TRL cannot copy or cannot score."""
    path, place = settings.adapter_path, settings.where("adapter_path")
    start, why = adapter.init_lora_weights, None
    if isinstance(start, str) and start.startswith(REWRITING):
        why = (
            f"was initialized with {start}, which rewrites the base weights, and the frozen copy "
            "that is the reference would rewrite them again"
        )
    elif adapter.trainable_token_indices and _tied(config):
        why = "trains tokens of embeddings that are the output layer too, which TRL cannot read"
    if why:
        raise ModelError(
            f"{place} {path!r} {why}; merge it, python -m dpo_wrap.merge {path} DIR, and give DIR "
            "as model_path"
        )
    base = adapter.base_model_name_or_path
    if base and Path(base).name != Path(settings.model_path).name:
        notes.append(
            f"{place}: trained on {base}, but model_path is {settings.model_path}; correct only if "
            "both have the same weights"
        )


def _check_schedule(settings: Settings, dpo: DPOConfig) -> None:
    """Raise ConfigError for lr_scheduler_kwargs that the schedule does not take or lacks."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=dpo.learning_rate)
    try:
        get_scheduler(dpo.lr_scheduler_type, optimizer, 1, 2, dpo.lr_scheduler_kwargs)
    except REFUSALS as error:
        given = "lr_scheduler_kwargs" in settings.locations
        place = settings.where("lr_scheduler_kwargs" if given else "lr_scheduler_type")
        raise ConfigError(f"{place}: transformers refuses it: {one_line(error)}") from None


def _check_optimizer(settings: Settings, dpo: DPOConfig) -> None:
    """Raise ConfigError for an optimizer that lacks its package or refuses its options."""
    try:
        build, kwargs = Trainer.get_optimizer_cls_and_kwargs(dpo)
        build([torch.nn.Parameter(torch.zeros(1))], **kwargs)
    except REFUSALS as error:
        # These read the model, and so are built with the trainer.
        reads_model = dpo.optim.startswith(("galore", "apollo", "lomo", "adalomo"))
        if reads_model and not isinstance(error, ImportError):
            return
        given = "optim_args" in settings.locations and not isinstance(error, ImportError)
        place = settings.where("optim_args" if given else "optim")
        raise ConfigError(f"{place}: transformers refuses it: {one_line(error)}") from None

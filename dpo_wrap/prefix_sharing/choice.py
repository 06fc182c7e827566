"""How the reference is computed: with shared prompts or not, beforehand or in every step."""

import itertools
import math

import transformers
from transformers import PretrainedConfig
from trl import DPOConfig

from dpo_wrap.arguments import Arguments
from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError
from dpo_wrap.model.load import init_kwargs
from dpo_wrap.prefix_sharing.support import (
    attention_unsupported_reasons,
    class_unsupported_reasons,
    run_unsupported_reasons,
)


def sharing_obstacle(settings: Settings, dpo: DPOConfig, config: PretrainedConfig) -> str | None:
    """Why prompts cannot be shared, as far as it is known before the weights are loaded.

    Raises ConfigError for one under `prefix_sharing: on`.
    """
    found = run_unsupported_reasons(dpo, config, settings.lora)
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is not None:
        found = itertools.chain(found, class_unsupported_reasons(architecture))
    if kind := init_kwargs(settings).get("attn_implementation"):
        found = itertools.chain(found, attention_unsupported_reasons(kind, config))
    unsupported_reason = next(found, None)
    if unsupported_reason is not None and settings.prefix_sharing == "on":
        raise unshareable(settings, unsupported_reason)
    return unsupported_reason


def unshareable(settings: Settings, unsupported_reason: str) -> ConfigError:
    """The refusal of `prefix_sharing: on`."""
    return ConfigError(
        f"{settings.where('prefix_sharing')}: on is not possible here: {unsupported_reason}; auto "
        "trains without it"
    )


def choose_precomputed(settings: Settings, arguments: Arguments, pairs: int) -> None:
    """Have the reference's log-probabilities computed once where several epochs would ask for them.

    Not where the config says how, nor where the reference moves.
    """
    dpo = arguments.dpo
    epochs = _epochs(dpo, pairs)
    if "precompute_ref_log_probs" in settings.trl or dpo.sync_ref_model or epochs <= 1:
        return
    dpo.precompute_ref_log_probs = arguments.chosen["precompute_ref_log_probs"] = True
    arguments.notes.append(
        f"precompute_ref_log_probs: true by default, for {epochs:.3g} epochs and a reference that "
        "stays as it is; false asks it in every step"
    )


def _epochs(dpo: DPOConfig, pairs: int) -> float:
    if dpo.max_steps <= 0:
        return dpo.num_train_epochs
    size = dpo.train_batch_size * dpo.world_size
    batches = pairs // size if dpo.dataloader_drop_last else math.ceil(pairs / size)
    return dpo.max_steps / max(1, math.ceil(batches / dpo.gradient_accumulation_steps))

"""How the reference is computed: with shared prompts or not, beforehand or in every step."""

import itertools
import math

import transformers
from transformers import PretrainedConfig
from trl import DPOConfig

from dpo_wrap.errors import ConfigError
from dpo_wrap.loading.arguments import Arguments
from dpo_wrap.loading.model import init_kwargs
from dpo_wrap.settings.config import Settings
from dpo_wrap.sharing.obstacles import (
    obstacles_of_attention,
    obstacles_of_class,
    obstacles_of_run,
)


def sharing_obstacle(settings: Settings, dpo: DPOConfig, config: PretrainedConfig) -> str | None:
    """Why prompts cannot be shared, as far as it is known before the weights are loaded.

    Raises ConfigError for one under `prefix_sharing: on`.
    """
    found = obstacles_of_run(dpo, config, settings.lora)
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is not None:
        found = itertools.chain(found, obstacles_of_class(architecture))
    if kind := init_kwargs(settings).get("attn_implementation"):
        found = itertools.chain(found, obstacles_of_attention(kind, config))
    obstacle = next(found, None)
    if obstacle is not None and settings.prefix_sharing == "on":
        raise unshareable(settings, obstacle)
    return obstacle


def unshareable(settings: Settings, obstacle: str) -> ConfigError:
    """The refusal of `prefix_sharing: on`."""
    return ConfigError(
        f"{settings.place('prefix_sharing')}: on cannot be had here: {obstacle}; auto would go on "
        "without"
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

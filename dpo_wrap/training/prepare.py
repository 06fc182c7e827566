"""Load and check everything but the weights: model files, options, data and lengths."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig

from dpo_wrap import run_dir
from dpo_wrap.arguments import Arguments, build_arguments
from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import (
    MASKS,
    LengthStats,
    lengths_line,
    pair_lengths,
    report_lines,
)
from dpo_wrap.data.splits import load_splits
from dpo_wrap.data.tokenize import check_data_fit, tokenize
from dpo_wrap.errors import ConfigError
from dpo_wrap.model.load import init_kwargs, load_adapter_config, load_config
from dpo_wrap.model.lora_targets import check_targets
from dpo_wrap.model.tokenizer import choose_template, load_tokenizer
from dpo_wrap.prefix_sharing.support import unsupported_before_loading


@dataclass(frozen=True)
class Prepared:
    """A checked run without its weights."""

    settings: Settings
    identity: dict[str, Any]
    """What must match for a resume; see run_dir.identity."""
    adapter: LoraConfig | None
    """The config of the adapter at adapter_path, from which training continues."""
    tokenizer: PreTrainedTokenizerBase
    arguments: Arguments
    train: Dataset
    """With prompt_ids, chosen_ids and rejected_ids, like `test`."""
    test: Dataset | None
    fits: dict[str, LengthStats]
    unsupported_reason: str | None
    """Why prefix sharing is unsupported, as far as known without the weights."""
    notes: list[str]


def prepare(settings: Settings, run_directory: Path, temp_dir: Path) -> Prepared:
    """Load and check all but the weights. Raises ConfigError, ModelError, DataError.

    A raw file is converted into `temp_dir` unless `run_directory` has its conversion.
    """
    config = load_config(settings)
    adapter = load_adapter_config(settings)
    replaced: list[str] = []
    tokenizer = load_tokenizer(settings, replaced, config)
    _check_devices(settings)
    arguments = build_arguments(settings, config, adapter)
    _check_connected(arguments.dpo)
    check_targets(settings, config, arguments.lora or adapter, arguments.chosen, arguments.notes)
    with PartialState().main_process_first():
        splits = load_splits(settings, run_directory, temp_dir)
    if splits.conversational:
        choose_template(settings, tokenizer, ("tools", "") in splits.fields, replaced)
    unrendered = check_data_fit(settings, tokenizer, splits)
    tokens, fits = {}, {}
    for name, rows in (("train", splits.train), ("test", splits.test)):
        if rows is not None:
            needed = name == "train" or arguments.dpo.eval_strategy != "no"
            tokens[name], fits[name] = tokenize(
                settings, rows, name, tokenizer, arguments.dpo, config, needed
            )
    _check_batch(settings, arguments.dpo, len(tokens["train"]))
    limit = arguments.dpo.max_length
    if arguments.dpo.train_sampling_strategy == "group_by_length":
        column = arguments.dpo.length_column_name
        for name, rows in tokens.items():
            tokens[name] = rows.add_column(column, pair_lengths(rows, limit))
    # TRL would remove the lengths that a sampler reads, and the masks that the collator reads.
    read = {arguments.dpo.length_column_name, *MASKS}
    if any(not read.isdisjoint(rows.column_names) for rows in tokens.values()):
        arguments.dpo.remove_unused_columns = False
    unsupported_reason = unsupported_before_loading(settings, arguments.dpo, config)
    if settings.prefix_sharing != "off" and unsupported_reason is None:
        _precompute_reference(settings, arguments, len(tokens["train"]))
    identity = run_dir.identity(
        run_dir.resolved(settings, arguments.chosen),
        splits.fingerprint,
        tokenizer.chat_template if splits.conversational else None,
        arguments.dpo.world_size,
    )
    lengths = []
    for name, fit in fits.items():
        lengths += [lengths_line(name, fit), *report_lines(name, fit, limit, settings.overlength)]
    return Prepared(
        settings=settings,
        identity=identity,
        adapter=adapter,
        tokenizer=tokenizer,
        arguments=arguments,
        train=tokens["train"],
        test=tokens.get("test") or None,
        fits=fits,
        unsupported_reason=unsupported_reason,
        notes=[*replaced, *arguments.notes, *splits.notes, *unrendered, *lengths],
    )


def _check_batch(settings: Settings, dpo: DPOConfig, pairs: int) -> None:
    """Raise ConfigError if dataloader_drop_last would drop the only batch."""
    size = dpo.train_batch_size * dpo.world_size
    if dpo.dataloader_drop_last and pairs < size:
        raise ConfigError(
            f"{settings.where('dataloader_drop_last')}: {pairs} pairs fill no batch of {size}, so "
            "there would be no step; lower batch_size, or remove this key"
        )


def _precompute_reference(settings: Settings, arguments: Arguments, pairs: int) -> None:
    """Compute the reference's log-probabilities once where several epochs would need them.

    Not where the config decides, nor where the reference changes during training.
    """
    dpo = arguments.dpo
    epochs = _epochs(dpo, pairs)
    if "precompute_ref_log_probs" in settings.trl or dpo.sync_ref_model or epochs <= 1:
        return
    dpo.precompute_ref_log_probs = arguments.chosen["precompute_ref_log_probs"] = True
    arguments.notes.append(
        f"precompute_ref_log_probs: true by default, for {epochs:.3g} epochs with a fixed "
        "reference; false evaluates the reference in every step"
    )


def _epochs(dpo: DPOConfig, pairs: int) -> float:
    if dpo.max_steps <= 0:
        return dpo.num_train_epochs
    size = dpo.train_batch_size * dpo.world_size
    batches = pairs // size if dpo.dataloader_drop_last else math.ceil(pairs / size)
    return dpo.max_steps / max(1, math.ceil(batches / dpo.gradient_accumulation_steps))


def distributed() -> bool:
    """Whether a launcher (accelerate launch, torchrun) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _check_devices(settings: Settings) -> None:
    """Raise ConfigError for several GPUs in one process: TRL does not support nn.DataParallel."""
    if distributed() and not torch.accelerator.is_available():
        # Otherwise accelerate does not connect the processes.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if settings.option("use_cpu") or "LOCAL_RANK" in os.environ:
        return
    devices = torch.cuda.device_count()
    if devices > 1 and "device_map" not in init_kwargs(settings):
        raise ConfigError(
            f"{devices} GPUs are visible to one process; start one process for each: accelerate "
            f"launch --config_file configs/accelerate/ddp.yaml --num_processes {devices} "
            f"-m dpo_wrap.train {settings.source}, or "
            "show it a single GPU: CUDA_VISIBLE_DEVICES=0"
        )


def _check_connected(dpo: DPOConfig) -> None:
    """Raise ConfigError if the launched processes would each train alone in one directory."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if dpo.world_size != launched:
        raise ConfigError(
            f"{launched} processes were launched and accelerate connects {dpo.world_size}; launch "
            "with one of configs/accelerate, and use_cpu: true in the config to train on CPUs"
        )

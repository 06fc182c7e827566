"""What the installed sources do not say about the keys of a config, as tables, and their rules.

A short name, a range, a removed key or a rule between keys is one line here. In the tables a string
of several keys or words is a list of them; `lora.` marks a field of peft.LoraConfig.
`tests/test_config_keys.py` compares every table with the installed libraries.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from dpo_wrap.library_fields import Range, unknown
from dpo_wrap.other_names import by_key

# Short name -> (TRL's or peft's own name, meaning).
SHORT_NAMES = {
    "batch_size": (
        "per_device_train_batch_size",
        "pairs per device and forward pass; times gradient_accumulation_steps and devices per step",
    ),
    "num_epochs": ("num_train_epochs", "passes over the training split; may be a fraction"),
    "max_seq_length": (
        "max_length",
        "tokens of prompt and answer; default the smaller of 1024 and the model's context",
    ),
    "lora_r": ("lora.r", "rank of the adapter's matrices"),
    "lora_alpha": ("lora.lora_alpha", "the adapter's output is scaled by lora_alpha / lora_r"),
    "lora_dropout": ("lora.lora_dropout", "share of the adapter's inputs zeroed while training"),
}

# A deprecated name of TRL's -> the one that takes its place without a warning.
RENAMED = {
    f"gradient_checkpointing{suffix}": f"activation_checkpointing{suffix}"
    for suffix in ("", "_kwargs")
}
FULL_NAMES = {short: full for short, (full, _) in SHORT_NAMES.items()} | RENAMED

# Ranges of a number, or of each number in a list or mapping. Without a row the type alone decides.
RANGES: dict[str, Range] = by_key(
    ("beta learning_rate num_train_epochs adam_epsilon discopop_tau loss_weights", Range(gt=0)),
    ("neftune_noise_alpha logging_steps eval_steps save_steps lora.alpha_pattern", Range(gt=0)),
    ("warmup_steps weight_decay max_grad_norm router_aux_loss_coef eval_delay", Range(ge=0)),
    ("dataloader_num_workers lora.layers_to_transform", Range(ge=0)),
    ("lora.trainable_token_indices lora.alora_invocation_tokens", Range(ge=0)),
    ("per_device_train_batch_size per_device_eval_batch_size", Range(ge=1)),
    ("precompute_ref_batch_size gradient_accumulation_steps eval_accumulation_steps", Range(ge=1)),
    ("ref_model_sync_steps early_stopping_patience save_total_limit", Range(ge=1)),
    ("torch_empty_cache_steps pad_to_multiple_of dataset_num_proc ddp_timeout", Range(ge=1)),
    ("dataloader_prefetch_factor ddp_bucket_cap_mb", Range(ge=1)),
    ("lora.r lora.lora_alpha lora.rank_pattern lora.qalora_group_size", Range(ge=1)),
    ("max_steps", Range(ge=1, also=-1)),
    ("max_length", Range(ge=2)),
    ("adam_beta1 adam_beta2 lora.lora_dropout", Range(ge=0, lt=1)),
    ("ld_alpha ref_model_mixup_alpha", Range(ge=0, le=1)),
    # With half of the labels flipped nothing is learned, with more the opposite.
    ("label_smoothing", Range(ge=0, lt=0.5)),
    # numpy takes seeds of 32 bits.
    ("seed data_seed", Range(ge=0, lt=2**32)),
)

Tracker = Literal[
    *("none", "all", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive"),
    *("flyte", "kubeflow", "mlflow", "neptune", "swanlab", "tensorboard", "trackio", "wandb"),
]
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
# Types where the annotation is too wide, or for fsdp too narrow.
CORRECTED_TYPES: dict[str, Any] = {
    "report_to": list[Tracker] | Tracker | None,
    "torch_compile_mode": CompileMode | None,
    "pad_to_multiple_of": Literal["auto", "none"] | int | None,
    "fsdp": bool | str | None,
    "lora.task_type": Literal["CAUSAL_LM"] | None,
    "model_init_kwargs": dict | None,
    "lr_scheduler_kwargs": dict | None,
    "activation_checkpointing": bool,
    "activation_checkpointing_kwargs": dict | None,
}
# Keys whose text is the path of a JSON file.
FILES = ("accelerator_config", "deepspeed", "fsdp_config")
# Keys whose text, or the keys of whose mapping, are regular expressions.
PATTERNS = (
    *("lora.target_modules", "lora.exclude_modules"),
    *("lora.rank_pattern", "lora.alpha_pattern", "lora.layers_pattern", "lora.modules_to_save"),
)
# The keys of a mapping, where a wrong one would only fail in the first step.
_CHECKPOINTING = "use_reentrant preserve_rng_state determinism_check debug early_stop"
MAPPING_KEYS = {
    "activation_checkpointing_kwargs": f"{_CHECKPOINTING} every_n_layers offload".split()
}

_NOT_READ = "DPOTrainer does not read it; remove it"
_BASE_CHANGES = "it changes the base weights, which are the reference with the adapter disabled"
_NOT_READ_INIT = "no supported init_lora_weights reads it; remove it"
_EXTRA_PASS = "it needs a pass over the data before training, which is not made here"
# Keys that a run of DPOTrainer does not read or cannot serve; only their default is accepted.
UNSUPPORTED_KEYS: dict[str, str] = by_key(
    ("padding_free remove_unused_columns average_tokens_across_devices", _NOT_READ),
    ("label_names prediction_loss_only include_for_metrics batch_eval_metrics", _NOT_READ),
    ("eval_do_concat_batches bf16_full_eval fp16_full_eval length_column_name", _NOT_READ),
    ("label_smoothing_factor", "use label_smoothing with loss_type: robust"),
    ("do_train", "this command always trains; remove it"),
    ("do_eval", "use eval_strategy"),
    ("do_predict", "use python -m dpo_wrap.eval"),
    ("resume_from_checkpoint", "use --resume PATH"),
    ("local_rank", "the launcher sets it; remove it"),
    ("logging_nan_inf_filter", "a loss that is NaN or inf stops the run; remove it"),
    ("restore_callback_states_from_checkpoint", "early stopping resumes without it; remove it"),
    ("enable_jit_checkpoint", "a signal saves a checkpoint without it; remove it"),
    ("debug", "it fails on the boolean outputs of DPOTrainer's forward pass; remove it"),
    ("parallelism_config", "use accelerate launch --config_file"),
    ("lora.peft_type lora.auto_mapping lora.peft_version", "peft sets it; remove it"),
    ("lora.base_model_name_or_path", "model_path names the base model; remove it"),
    ("lora.revision", "use model_init_kwargs: {revision: NAME}"),
    ("lora.inference_mode", "it freezes the adapter, so nothing would be trained; remove it"),
    ("lora.bias", "biases change the reference, where only the adapter is disabled; remove it"),
    ("lora.runtime_config", "YAML cannot express it; remove it"),
    ("lora.arrow_config", "it routes between adapters, and one is trained here; remove it"),
    ("lora.loftq_config lora.eva_config lora.corda_config lora.lora_ga_config", _NOT_READ_INIT),
)

# Below, a condition is written as a message shows it: `key` (set, and not false or 0), `key: a, b
# or c` (one of these values), `key: other than a or b` (none of them). `*` in a value matches any
# text. Of a list one item is enough.

# (condition, why a run of DPOTrainer cannot use the value).
UNSUPPORTED_VALUES = (
    ("lora.init_lora_weights: pissa*, olora or loftq", _BASE_CHANGES),
    ("lora.init_lora_weights: corda or eva", _EXTRA_PASS),
    ("train_sampling_strategy: batch_rebalance", "TRL would weight its unequal batches equally"),
)

_EVALUATION = "eval_strategy: steps or epoch"
_SAVING = "save_strategy: steps, epoch or best"
_WARMUP = "lr_scheduler_type: other than constant, reduce_lr_on_plateau or greedy"
_ADAM = "optim: other than sgd, adafactor, adagrad, rmsprop, grokadamw, lomo, adalomo or galore*"

# Keys, and the conditions of which one must hold for a run to read them.
NO_EFFECT_WITHOUT: tuple[tuple[str, ...], ...] = (
    ("eval_steps", "eval_strategy: steps"),
    ("save_steps", "save_strategy: steps"),
    ("logging_steps", "logging_strategy: steps"),
    ("eval_delay eval_on_start eval_accumulation_steps eval_use_gather_object", _EVALUATION),
    ("metric_for_best_model greater_is_better load_best_model_at_end", _EVALUATION),
    (
        "greater_is_better",
        "metric_for_best_model",
        "load_best_model_at_end: true",
        "lr_scheduler_type: reduce_lr_on_plateau or greedy",
    ),
    ("early_stopping_patience", "load_best_model_at_end: true"),
    ("load_best_model_at_end save_total_limit save_only_model", _SAVING),
    ("hub_always_push", "hub_strategy: every_save, checkpoint or all_checkpoints"),
    ("run_name", "report_to: all, comet_ml, mlflow, swanlab, trackio or wandb"),
    ("project trackio_space_id trackio_bucket_id", "report_to: all or trackio"),
    ("trackio_static_space_id", "report_to: all or trackio"),
    ("dataloader_prefetch_factor dataloader_persistent_workers", "dataloader_num_workers"),
    ("dataloader_multiprocessing_context dataloader_in_order", "dataloader_num_workers"),
    ("activation_checkpointing_kwargs", "activation_checkpointing: true"),
    ("liger_kernel_config", "use_liger_kernel: true"),
    ("fsdp_config", "fsdp"),
    # DPOTrainer disables the cache; the saved config.json of full weights keeps the value.
    ("use_cache", "lora: false"),
    ("truncation_mode", "overlength: truncate"),
    ("truncation_mode overlength", "max_length"),
    ("precompute_ref_batch_size", "precompute_ref_log_probs: true"),
    ("ref_model_mixup_alpha ref_model_sync_steps", "sync_ref_model: true"),
    ("f_alpha_divergence_coef", "f_divergence_type: alpha_divergence"),
    ("f_divergence_type ld_alpha", "loss_type: other than sft"),
    ("label_smoothing", "loss_type: exo_pair, robust, aot or aot_unpaired"),
    ("discopop_tau", "loss_type: discopop"),
    ("adam_beta1 adam_beta2 adam_epsilon", _ADAM),
    ("optim_args", "optim: other than adafactor, adamw_torch, adamw_torch_fused, lomo or adalomo"),
    ("optim_target_modules", "optim: galore* or apollo*"),
    ("lr_scheduler_kwargs", "lr_scheduler_type: other than constant or constant_with_warmup"),
    ("warmup_steps", _WARMUP, "optim: schedule_free*"),
    ("lora.qalora_group_size", "lora.use_qalora: true"),
    ("lora.layers_pattern", "lora.layers_to_transform"),
    ("lora.megatron_core", "lora.megatron_config"),
)

# (condition, what it needs, why).
NEEDS = (
    ("loss_type: exo_pair", "label_smoothing", "its paper recommends 1e-3"),
    ("loss_type: aot or aot_unpaired", "use_weighting: false", "TRL cannot weight sorted pairs"),
    (
        "loss_type: nca_pair, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero or apo_down",
        "f_divergence_type: reverse_kl",
        "TRL supports no other divergence",
    ),
    (
        "disable_dropout: true",
        "lora.lora_dropout: 0",
        "TRL would disable the adapter's dropout too",
    ),
    ("sync_ref_model: true", "lora: false", "an adapter's reference is the fixed base model"),
    ("sync_ref_model: true", "precompute_ref_log_probs: false", "the reference changes"),
    ("neftune_noise_alpha", "lora: false", "an adapter's reference would get the noise too"),
    (
        "lora.alora_invocation_tokens",
        "activation_checkpointing: false",
        "peft allows one pass then",
    ),
    ("load_in_4bit", "lora: true", "quantized weights cannot be trained themselves"),
    ("adapter_path", "lora: true", "the adapter is what is trained"),
    ("fp16: true", "bf16: false or null", "training uses one precision"),
    ("optim: galore* or apollo*", "optim_target_modules", "it projects the modules named there"),
    ("save_strategy: best", _EVALUATION, "only an evaluation shows which checkpoint is best"),
)

SIDES = ("chosen", "rejected")
# The metrics of an evaluation, and whether greater is better where that is certain.
METRICS = {
    "loss": False,
    "rewards/accuracies": True,
    "rewards/margins": True,
    **dict.fromkeys(f"{name}/{side}" for name in ("rewards", "logps", "logits") for side in SIDES),
    **dict.fromkeys(("entropy", "mean_token_accuracy", "aux_loss", "num_tokens")),
}
# Defaults that the sources compute.
COMPUTED_DEFAULTS = {"lora": True, "optim": "adamw_torch", "activation_checkpointing": True}
_INVALID = object()
"""The value of a key that has an error of its own: every condition on it holds."""


def unsupported(name: str, value: Any, default: Any) -> str | None:
    """Why a run of DPOTrainer cannot use this value of a key, or None."""
    if name in UNSUPPORTED_KEYS and value != default:
        return f"not supported: {UNSUPPORTED_KEYS[name]}"
    for condition, why in UNSUPPORTED_VALUES:
        if condition.startswith(f"{name}: ") and _holds(condition, {name: value}):
            return f"{value!r} is not supported: {why}"
    return None


def rule_errors(
    values: Mapping[str, Any], given: Collection[str], defaults: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield (key, message) for every rule between keys that a config breaks.

    `values` are the config's valid values by full name, `given` the names of all its keys, and
    `defaults` the default of every key.
    """
    config = {**defaults, **COMPUTED_DEFAULTS, **dict.fromkeys(given, _INVALID), **values}
    broken = {}
    if not _holds("lora: true", config):
        broken = {name: ["lora: true"] for name in given if name.startswith("lora.")}
    for keys, *conditions in NO_EFFECT_WITHOUT:
        if not any(_holds(condition, config) for condition in conditions):
            for key in keys.split():
                if key in values and values[key] != defaults[key]:
                    broken.setdefault(key, conditions)
    for name, conditions in broken.items():
        yield name, f"no effect {_unmet(conditions)}, or remove the key"
    for condition, need, why in NEEDS:
        name = condition.partition(":")[0]
        if name in values and _holds(condition, config) and not _holds(need, config):
            yield name, f"{_word(values[name])} needs {need}; {why}"
    if values.get("load_in_4bit") and "quantization_config" in (config["model_init_kwargs"] or ()):
        yield "load_in_4bit", "model_init_kwargs has a quantization_config too; remove one of them"
    trackers = values.get("report_to")
    if isinstance(trackers, list) and len(trackers) > 1:
        for word, meaning in (("none", "no tracker"), ("all", "every installed tracker")):
            if word in trackers:
                yield "report_to", f"{word} means {meaning}; write it alone, or remove it"
    losses, weights = config["loss_type"], values.get("loss_weights")
    if weights is not None and losses is not _INVALID:
        count = 1 if isinstance(losses, str) else len(losses)
        if len(weights) != count:
            text = f"{len(weights)} for {count} of loss_type ({_word(losses)})"
            yield "loss_weights", f"{text}; give one for each"
    yield from _metric_errors(values)


def _unmet(conditions: list[str]) -> str:
    """`without a: b; set it`, or `with a: c; set another` where the condition is `other than c`."""
    wrong = [one.replace("other than ", "") for one in conditions if "other than " in one]
    needed = " or ".join(one for one in conditions if "other than " not in one)
    parts = [f"with {' or '.join(wrong)}"] * bool(wrong) + [f"without {needed}"] * bool(needed)
    return f"{' and '.join(parts)}; set {'another' if wrong else 'it'}"


def _metric_errors(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    metric = (values.get("metric_for_best_model") or "loss").removeprefix("eval_")
    greater = values.get("greater_is_better")
    chosen = values.get("metric_for_best_model") or values.get("load_best_model_at_end")
    if values.get("save_strategy") == "best" and not chosen:
        yield "save_strategy", "best needs metric_for_best_model, such as eval_rewards/accuracies"
    if metric not in METRICS:
        known = ", ".join(f"eval_{name}" for name in METRICS)
        yield "metric_for_best_model", f"{unknown(metric, METRICS)} known: {known}"
    elif None not in (greater, METRICS[metric]) and greater != METRICS[metric]:
        text = f"{_word(greater)} would keep the checkpoint with the worst eval_{metric}; remove it"
        yield "greater_is_better", text


def _holds(condition: str, config: Mapping[str, Any]) -> bool:
    name, _, words = condition.partition(": ")
    value = config[name]
    if value is _INVALID:
        return True
    if not words:
        return bool(value)
    negated = words.startswith("other than ")
    patterns = re.split(", | or ", words.removeprefix("other than "))
    items = value if isinstance(value, list) else [value]
    matches = (any(fnmatchcase(_word(item), pattern) for pattern in patterns) for item in items)
    return any(match != negated for match in matches)


def _word(value: Any) -> str:
    """A value as YAML writes it, a list without brackets."""
    if isinstance(value, list):
        return ", ".join(map(_word, value))
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)

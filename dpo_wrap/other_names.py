"""Names that other trainers, other methods and older versions use, and what to write here instead.

    REPLACED["cutoff_len"]     # use max_seq_length
    other_loss("simpo")        # SimPO compares ...; train it with trl.experimental.cpo.CPOTrainer

`tests/test_other_names.py` compares the tables with the installed trl and with the keys.
"""

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any


def by_key(*rows: tuple[str, Any]) -> dict[str, Any]:
    """A table of single keys from rows whose first item is several keys in one string."""
    return {key: value for keys, value in rows for key in keys.split()}


_LENGTH = "use max_length, which counts prompt and answer together"
_ATTENTION = "use model_init_kwargs: {attn_implementation: NAME}"
_BITS = "use load_in_4bit, or model_init_kwargs: {quantization_config: {...}}"
_REFERENCE = "remove it; the reference is the model before training"
_CONVERT = "use python -m data_tools.convert"
_LOADED = "remove it; it is loaded from model_path"
_TOKENIZER = "remove it; the tokenizer_config.json of model_path decides it"
_WANDB = "remove it; set the environment variables of wandb, with report_to: wandb"

# Key -> what to do instead. First older versions of transformers and TRL, then TRL's scripts,
# alignment-handbook, LLaMA-Factory and axolotl. `lora.` marks a key in the group.
REPLACED: dict[str, str] = by_key(
    ("warmup_ratio", "use warmup_steps, where a value below 1 is a share of all steps"),
    ("evaluation_strategy", "use eval_strategy"),
    ("overwrite_output_dir", "use --resume never, which moves the older run to OUTPUT_DIR.old-N"),
    ("save_safetensors", "remove it; weights are always safetensors"),
    ("group_by_length", "use train_sampling_strategy: group_by_length"),
    ("rpo_alpha pref_ftx dpo_ftx", "use loss_type: [sigmoid, sft], loss_weights: [1.0, ALPHA]"),
    ("reference_free", "remove it; TRL always uses a reference"),
    ("max_prompt_length max_completion_length max_target_length", _LENGTH),
    ("truncation_side", "remove it; answers are cut at their end"),
    ("generate_during_eval", "use python -m dpo_wrap.eval, which samples from both models"),
    ("model_adapter_name ref_adapter_name", "use adapter_path; its frozen copy is the reference"),
    ("ref_model_init_kwargs", "use model_init_kwargs, which applies to the reference too"),
    ("ref_model force_use_ref_model reference_model ref_model_path", _REFERENCE),
    ("ref_model_name_or_path ref_model_adapters ref_model_quantization_bit", _REFERENCE),
    ("label_pad_token_id padding_value is_encoder_decoder", "remove it; TRL decides it"),
    ("use_logits_to_keep use_num_logits_to_keep", "remove it; TRL scores answer tokens alone"),
    ("use_liger_loss enable_liger_kernel", "use model_init_kwargs: {use_kernels: true}"),
    ("no_cuda", "use use_cpu"),
    ("device devices", "use use_cpu, or the environment variable CUDA_VISIBLE_DEVICES"),
    ("gpus n_gpus num_gpus num_processes", "use accelerate launch --num_processes NUMBER"),
    ("fp16_backend fp16_opt_level half_precision_backend", "use fp16 or bf16"),
    ("fp32 precision mixed_precision", "use fp16 or bf16; both false is float32"),
    ("push_to_hub_token", "use hub_token"),
    ("push_to_hub_model_id push_to_hub_organization", "use hub_model_id: ORGANIZATION/NAME"),
    ("model_name_or_path model_name model_id base_model model", "use model_path"),
    ("model_revision revision", "use model_init_kwargs: {revision: NAME}"),
    ("torch_dtype dtype", "use model_init_kwargs: {dtype: NAME}"),
    ("attn_implementation use_flash_attention_2 flash_attn flash_attention", _ATTENTION),
    ("sdp_attention xformers_attention", _ATTENTION),
    ("qlora use_qlora use_4bit", "use load_in_4bit"),
    ("load_in_8bit quantization_bit bnb_4bit_quant_type use_bnb_nested_quant", _BITS),
    ("bnb_4bit_quant_storage bnb_4bit_compute_dtype bnb_4bit_use_double_quant", _BITS),
    ("tokenizer tokenizer_name tokenizer_path tokenizer_name_or_path processing_class", _LOADED),
    ("model_type tokenizer_type tokenizer_config", _LOADED),
    ("special_tokens eos_token bos_token pad_token_id", _TOKENIZER),
    ("add_eos_token add_bos_token padding_side", _TOKENIZER),
    ("template chat_template_path", "use chat_template, or remove it if the model has a template"),
    ("adapter_name_or_path lora_model_dir lora_path lora.path peft_path", "use adapter_path"),
    ("create_new_adapter", "use python -m dpo_wrap.merge, and the merged model as model_path"),
    ("use_peft use_lora finetuning_type adapter", "remove it; LoRA is on unless lora: false"),
    ("lora.enabled", "remove it; LoRA is on unless lora: false"),
    ("peft_config lora_config peft", "use lora:"),
    ("lora_rank rank", "use lora_r"),
    ("lora.rank lora.lora_rank", "use r"),
    ("alpha", "use lora_alpha"),
    ("lora_target lora.target lora.modules", "write target_modules under lora:"),
    ("lora_target_linear", "use lora: {target_modules: all-linear}"),
    ("additional_target", "write modules_to_save under lora:"),
    ("dataset_name dataset datasets dataset_id dataset_dir train_dataset", "use dataset_path"),
    ("data data_path data_files train_data train_path train_file", "use dataset_path"),
    ("prompt_column chosen_column rejected_column system_prompt", f"{_CONVERT} --map"),
    ("dataset_mixer dataset_mixture", "use dataset_path, which may be a list"),
    ("dataset_config dataset_configs", f"{_CONVERT} hf://datasets/OWNER/NAME/PATH"),
    ("dataset_splits dataset_train_split dataset_test_split", "remove it; train and test are used"),
    (
        "eval_dataset eval_data test_data val_data",
        "use dataset_path, whose test split is evaluated on",
    ),
    ("val_size val_set_size test_split_size", f"{_CONVERT} --test-size SHARE"),
    ("dataset_streaming streaming", "remove it; data are read from disk as they are needed"),
    ("max_samples max_train_samples", "use max_steps, which ends a run early"),
    ("dataset_prepared_path overwrite_cache", "remove it; changed data are always read again"),
    ("preprocessing_num_workers dataset_processes", "use dataset_num_proc"),
    ("cutoff_len sequence_len model_max_length", "use max_seq_length"),
    ("sample_packing packing pad_to_sequence_len", "remove it; pairs are never packed"),
    ("train_on_inputs train_on_prompt", "remove it; only answers are scored"),
    (
        "stage rl trainer method algorithm",
        "remove it; this command trains DPO, and loss_type names its loss",
    ),
    ("pref_loss dpo_loss dpo_loss_type loss_fn", "use loss_type"),
    ("pref_beta rl_beta dpo_beta kl_beta kl_coef", "use beta"),
    ("pref_label_smoothing dpo_label_smoothing", "use label_smoothing with loss_type: robust"),
    ("micro_batch_size mini_batch_size train_batch_size", "use batch_size"),
    ("per_gpu_train_batch_size per_device_batch_size", "use batch_size"),
    ("eval_batch_size per_gpu_eval_batch_size", "use per_device_eval_batch_size"),
    ("epochs max_epochs", "use num_epochs"),
    ("lr", "use learning_rate"),
    ("optimizer", "use optim"),
    ("adafactor", "use optim: adafactor"),
    ("eps epsilon", "use adam_epsilon"),
    ("lr_scheduler scheduler", "use lr_scheduler_type"),
    ("min_lr lr_min", "use lr_scheduler_kwargs: {min_lr: ...} of the cosine_with_min_lr schedule"),
    ("gradient_clipping grad_clip clip_grad", "use max_grad_norm"),
    ("resume resume_from", "use --resume PATH"),
    ("random_seed", "use seed"),
    ("save_dir run_dir output_path", "use output_dir"),
    ("save_every save_interval", "use save_steps"),
    ("eval_every eval_interval", "use eval_steps"),
    ("log_every log_interval", "use logging_steps"),
    ("evals_per_epoch", "use eval_steps, where a value below 1 is a share of all steps"),
    ("saves_per_epoch", "use save_steps, where a value below 1 is a share of all steps"),
    ("wandb use_wandb", "use report_to: wandb"),
    ("wandb_name wandb_run_id", "use run_name, with report_to: wandb"),
    ("wandb_project wandb_entity wandb_watch wandb_log_model", _WANDB),
    ("plot_loss", "remove it; report.html has the curves"),
    ("use_unsloth ignore_bias_buffers", "remove it; it is not supported"),
)

_MEAN = "compares the mean log-probabilities of the answers, without a reference"
_SAMPLES = "samples answers while it trains, and scores them with"
# Another method -> (what it is, its trainer by the name of TRL's file, the nearest loss here).
METHODS = {
    "simpo": (f"SimPO {_MEAN}", "cpo", "sigmoid_norm"),
    "alphapo": (f"AlphaPO {_MEAN}", "cpo", "sigmoid_norm"),
    "cpo": ("CPO is DPO without a reference, plus the loss of SFT", "cpo", "[sigmoid, sft]"),
    "orpo": ("ORPO is SFT plus an odds ratio, without a reference", "orpo", "[sigmoid, sft]"),
    "kto": ("KTO learns from single answers that are rated good or bad", "kto", "bco_pair"),
    "kto_pair": ("it was removed; KTO learns from single answers", "kto", "bco_pair"),
    "tpo": ("TPO learns from a third, ideal answer besides the pair", "tpo", "[sigmoid, sft]"),
    "ppo": (f"PPO {_SAMPLES} a reward model, as RLOO does, which replaced it in TRL", "rloo", ""),
    "rloo": (f"RLOO {_SAMPLES} a reward model", "rloo", ""),
    "grpo": (f"GRPO {_SAMPLES} reward functions", "grpo", ""),
    "online_dpo": (f"online DPO {_SAMPLES} a judge or a reward model", "online_dpo", ""),
    "reward": ("a reward model gives an answer a number", "reward", ""),
}
# Names of losses that have another name here.
LOSSES = by_key(
    ("dpo", "sigmoid is the DPO loss of the paper"),
    ("cdpo", "robust with label_smoothing is the loss for labels that may be wrong"),
    ("rpo", "[sigmoid, sft] with loss_weights is the loss of RPO"),
    ("slic", "hinge is the loss of SLiC"),
    ("bco", "bco_pair is the loss of BCO for pairs"),
    ("wpo", "use_weighting: true is WPO"),
    ("ld_dpo", "sigmoid with ld_alpha is LD-DPO"),
    ("tr_dpo", "sigmoid with sync_ref_model: true is TR-DPO"),
)


def other_loss(name: str) -> str | None:
    """What a loss that DPOTrainer does not have is and where it is, or None if that is unknown."""
    name = re.sub(r"\W+", "_", name.lower())
    return LOSSES.get(name) or (_about(name) if name in METHODS else None)


def other_option(key: str) -> str | None:
    """Which other method has an option of this name, or None."""
    for name in METHODS:
        if f"{key}_".startswith(f"{name}_"):
            return f"an option of another method; {_about(name)}"
    for name, path in trl_trainers().items():
        config = path.with_name(f"{name}_config.py")
        if config.is_file() and f"\n    {key}: " in config.read_text("utf-8"):
            return f"an option of {_class(path)}, which DPO does not have; remove it"
    return None


def _about(method: str) -> str:
    what, trainer, near = METHODS[method]
    text = f"{what}; train it with {_class(trl_trainers()[trainer])}"
    return f"{text}, or with the nearest loss here, {near}" if near else text


@cache
def trl_trainers() -> dict[str, Path]:
    """The files of TRL's trainers other than DPOTrainer, by the names of their methods."""
    root, found = Path(importlib.util.find_spec("trl").submodule_search_locations[0]), {}
    for pattern in ("trainer/*_trainer.py", "experimental/*/*_trainer.py"):
        for path in sorted(root.glob(pattern)):
            found.setdefault(path.name.removesuffix("_trainer.py"), path)
    return {name: path for name, path in found.items() if name not in ("dpo", "base")}


def _class(path: Path) -> str:
    [name] = re.findall(r"^class ([A-Z]\w*Trainer)\(", path.read_text("utf-8"), re.MULTILINE)
    folder = path.parent.name
    return f"trl.{name}" if folder == "trainer" else f"trl.experimental.{folder}.{name}"

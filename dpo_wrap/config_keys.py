"""What trl and peft do not say of their keys one by one: short names, ranges, words, the removed.

Data only: a short name, a range or a removed key is one line here. What holds between keys, and
between a key and DPOTrainer, is in relations.py.
"""

from dpo_wrap.config_values import Range

# Short name -> (TRL's or peft's own name, its meaning). `lora.` marks a field of peft.LoraConfig.
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

AT_LEAST_1, AT_LEAST_0, POSITIVE = Range(least=1), Range(least=0), Range(above=0)
SHARE = Range(least=0, most=1)

# What the annotations cannot say, of a number or of each number in a list or mapping. A key that
# is not here is held to its type alone.
RANGES = {
    "beta": POSITIVE,
    "learning_rate": POSITIVE,
    "per_device_train_batch_size": AT_LEAST_1,
    "per_device_eval_batch_size": AT_LEAST_1,
    "precompute_ref_batch_size": AT_LEAST_1,
    "gradient_accumulation_steps": AT_LEAST_1,
    "eval_accumulation_steps": AT_LEAST_1,
    "num_train_epochs": POSITIVE,
    "max_steps": Range(least=1, apart=(-1,)),
    "max_length": Range(least=2),
    "warmup_steps": AT_LEAST_0,
    "weight_decay": AT_LEAST_0,
    "adam_beta1": Range(least=0, below=1),
    "adam_beta2": Range(least=0, below=1),
    "adam_epsilon": POSITIVE,
    "max_grad_norm": AT_LEAST_0,
    # Half of the labels flipped says nothing, more than half says the opposite.
    "label_smoothing": Range(least=0, below=0.5),
    "loss_weights": POSITIVE,
    "ld_alpha": SHARE,
    "discopop_tau": POSITIVE,
    "ref_model_mixup_alpha": SHARE,
    "ref_model_sync_steps": AT_LEAST_1,
    "neftune_noise_alpha": POSITIVE,
    "router_aux_loss_coef": AT_LEAST_0,
    "early_stopping_patience": AT_LEAST_1,
    "logging_steps": POSITIVE,
    "eval_steps": POSITIVE,
    "eval_delay": AT_LEAST_0,
    "save_steps": POSITIVE,
    "save_total_limit": AT_LEAST_1,
    "torch_empty_cache_steps": AT_LEAST_1,
    "pad_to_multiple_of": AT_LEAST_1,
    "ddp_bucket_cap_mb": AT_LEAST_1,
    "dataset_num_proc": AT_LEAST_1,
    "dataloader_num_workers": AT_LEAST_0,
    "dataloader_prefetch_factor": AT_LEAST_1,
    "ddp_timeout": AT_LEAST_1,
    # torch takes seeds of 32 bits everywhere that transformers sets them.
    "seed": Range(least=0, below=2**32),
    "data_seed": Range(least=0, below=2**32),
    "lora.r": AT_LEAST_1,
    "lora.lora_alpha": AT_LEAST_1,
    "lora.lora_dropout": Range(least=0, below=1),
    "lora.rank_pattern": AT_LEAST_1,
    "lora.alpha_pattern": POSITIVE,
    "lora.layers_to_transform": AT_LEAST_0,
    "lora.trainable_token_indices": AT_LEAST_0,
    "lora.alora_invocation_tokens": AT_LEAST_0,
    "lora.qalora_group_size": AT_LEAST_1,
}

# Keys of tutorials that no installed library knows (any more), and the way on.
REMOVED = {
    "warmup_ratio": "use warmup_steps, where a value below 1 is a share of all steps",
    "evaluation_strategy": "use eval_strategy",
    "overwrite_output_dir": "use --resume never, which moves the older run aside",
    "save_safetensors": "remove it; weights are always safetensors",
    "group_by_length": "remove it; DPOTrainer cannot group by length",
    "rpo_alpha": "use loss_type: [sigmoid, sft] with loss_weights: [1.0, ALPHA]",
    "reference_free": "remove it; TRL always takes a reference",
    "max_prompt_length": "use max_length, which counts prompt and answer together",
    "max_completion_length": "use max_length, which counts prompt and answer together",
    "max_target_length": "use max_length, which counts prompt and answer together",
    "truncation_side": "remove it; answers are cut at their end",
    "generate_during_eval": "use python -m dpo_wrap.eval, which samples from both models",
    "model_adapter_name": "use adapter_path",
    "ref_adapter_name": "use adapter_path; its frozen copy becomes the reference",
    "ref_model_init_kwargs": "use model_init_kwargs, which the reference shares",
    "force_use_ref_model": "remove it; with an adapter the reference is the base model",
    "label_pad_token_id": "remove it; TRL masks prompts by itself",
    "padding_value": "remove it; TRL pads with the tokenizer's pad token",
    "is_encoder_decoder": "remove it; only decoder models are trained",
    "use_logits_to_keep": "remove it; TRL scores answer tokens by itself",
    "use_liger_loss": "use model_init_kwargs: {use_kernels: true}",
    "use_num_logits_to_keep": "remove it; TRL scores answer tokens by itself",
    "base_model_attribute_name": "remove it; TRL finds the base model by itself",
    "per_gpu_train_batch_size": "use per_device_train_batch_size",
    "per_gpu_eval_batch_size": "use per_device_eval_batch_size",
    "no_cuda": "use use_cpu",
    "use_mps_device": "remove it; the device is found by itself",
    "fp16_backend": "use fp16 or bf16",
    "fp16_opt_level": "use fp16 or bf16",
    "half_precision_backend": "use fp16 or bf16",
    "torchdynamo": "use torch_compile_backend",
    "jit_mode_eval": "use torch_compile",
    "use_ipex": "remove it; transformers dropped it",
    "tpu_num_cores": "remove it; transformers dropped it",
    "past_index": "remove it; transformers dropped it",
    "include_tokens_per_second": "remove it; num_tokens is logged",
    "include_inputs_for_metrics": "remove it; DPOTrainer computes its own metrics",
    "push_to_hub_token": "use hub_token",
    "push_to_hub_model_id": "use hub_model_id",
    "push_to_hub_organization": "use hub_model_id: ORGANIZATION/NAME",
    "fsdp_min_num_params": "use fsdp_config",
    "fsdp_transformer_layer_cls_to_wrap": "use fsdp_config",
    "tools": "remove it; a column tools of the data is read",
    "adafactor": "use optim: adafactor",
    "dispatch_batches": "use accelerator_config: {dispatch_batches: ...}",
    "split_batches": "use accelerator_config: {split_batches: ...}",
    "sharded_ddp": "use fsdp",
    "tp_size": "use accelerate launch --config_file",
    "tpu_metrics_debug": "remove it; no TPU is served here",
    "xpu_backend": "use ddp_backend",
    "mp_parameters": "remove it; transformers dropped it",
    "ray_scope": "remove it; transformers dropped it",
    "use_legacy_prediction_loop": "remove it; transformers dropped it",
}

# Keys of other programs that do the same, and how it is said here.
ELSEWHERE = {
    "load_in_8bit": "use load_in_4bit, or model_init_kwargs",
    "use_peft": "remove it; LoRA is on unless lora: false",
    "peft_config": "use lora:",
    "model_name_or_path": "use model_path",
    "model_name": "use model_path",
    "model": "use model_path",
    "model_revision": "use model_init_kwargs: {revision: NAME}",
    "torch_dtype": "use model_init_kwargs: {dtype: NAME}",
    "dtype": "use model_init_kwargs: {dtype: NAME}",
    "attn_implementation": "use model_init_kwargs: {attn_implementation: NAME}",
    "tokenizer": "remove it; it is loaded from model_path",
    "tokenizer_name": "remove it; it is loaded from model_path",
    "processing_class": "remove it; the tokenizer is loaded from model_path",
    "ref_model": "remove it; the reference is the model before training",
    "dataset_name": "use dataset_path",
    "dataset": "use dataset_path",
    "train_dataset": "use dataset_path",
    "eval_dataset": "use dataset_path, whose test split is evaluated on",
    "lora_target_modules": "write target_modules under lora:",
    "lora_modules_to_save": "write modules_to_save under lora:",
    "epochs": "use num_epochs",
    "lr": "use learning_rate",
}

# Mappings whose wrong names fail after the first forward pass: torch's checkpoint(), and what
# transformers takes out before.
CHECKPOINT_NAMES = (
    *("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop"),
    *("every_n_layers", "offload"),
)
INNER_NAMES = {
    "gradient_checkpointing_kwargs": CHECKPOINT_NAMES,
    "activation_checkpointing_kwargs": CHECKPOINT_NAMES,
}

# Keys whose text is the path of a JSON file.
FILES = ("accelerator_config", "deepspeed", "fsdp_config")
# Words of keys that are annotated as any text.
WORDS = {
    "pad_to_multiple_of": ("auto", "none"),
    "torch_compile_mode": (
        *("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    ),
    # DPO trains language models.
    "lora.task_type": ("CAUSAL_LM",),
}

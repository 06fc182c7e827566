"""What trl and peft do not say of their keys: short names, ranges, the removed, the unread.

Data only: a short name, a range or a removed key is one line here.
"""

from dpo_wrap.values import Range

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

# What the annotations cannot say. A key that is not here is held to its type alone.
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
    "ld_alpha": SHARE,
    "discopop_tau": POSITIVE,
    "ref_model_mixup_alpha": SHARE,
    "ref_model_sync_steps": AT_LEAST_1,
    "neftune_noise_alpha": POSITIVE,
    "router_aux_loss_coef": AT_LEAST_0,
    "logging_steps": POSITIVE,
    "eval_steps": POSITIVE,
    "eval_delay": AT_LEAST_0,
    "save_steps": POSITIVE,
    "save_total_limit": AT_LEAST_1,
    "torch_empty_cache_steps": AT_LEAST_1,
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
    "load_in_8bit": "use load_in_4bit, or model_init_kwargs",
    "use_peft": "remove it; LoRA is on unless lora: false",
    "model_name_or_path": "use model_path",
    "model_name": "use model_path",
    "model": "use model_path",
    "dataset_name": "use dataset_path",
    "dataset": "use dataset_path",
    "lr": "use learning_rate",
}

# Keys that the installed libraries accept and then do not read: said, not accepted in silence.
WITHOUT_EFFECT = {
    "padding_free": "TRL's DPOTrainer has switched it off; remove it",
    "do_train": "training is what this command does; remove it",
    "do_eval": "eval_strategy decides; use it",
    "do_predict": "use python -m dpo_wrap.eval",
    "resume_from_checkpoint": "use --resume PATH",
    "lora.peft_type": "LoraConfig sets it by itself; remove it",
    "lora.base_model_name_or_path": "model_path names the base model; remove it",
    "label_smoothing_factor": "no DPO loss reads it; use label_smoothing with loss_type: robust",
}

BIAS = "trained biases stay when the adapter is off, so the reference would move with the policy"
# Values that transformers and peft offer and DPOTrainer cannot serve.
REFUSED_VALUES = {
    ("train_sampling_strategy", "group_by_length"): "DPOTrainer's rows have no length",
    ("train_sampling_strategy", "batch_rebalance"): "DPOTrainer's rows have no length",
    ("lora.bias", "all"): BIAS,
    ("lora.bias", "lora_only"): BIAS,
    ("lora.inference_mode", True): "it freezes the adapter, so nothing would be trained",
}

# Keys that are read only where another key has a certain value.
READ_WITH = {
    "eval_steps": ("eval_strategy", "steps"),
    "save_steps": ("save_strategy", "steps"),
    "logging_steps": ("logging_strategy", "steps"),
    "ref_model_mixup_alpha": ("sync_ref_model", True),
    "ref_model_sync_steps": ("sync_ref_model", True),
    "f_alpha_divergence_coef": ("f_divergence_type", "alpha_divergence"),
}

# Options of the loss that only some losses read; which ones, schema.loss_readers() takes from TRL.
LOSS_OPTIONS = ("label_smoothing", "discopop_tau")

"""Which keys a run of DPOTrainer reads, with which others, and what it cannot serve.

Data only, applied by contradictions.py. In the values that are wanted words are patterns, GIVEN is
any value, a Range any number in it, and Reads any word whose own code reads one of the names.
"""

from dpo_wrap.config_values import GIVEN, Range, Reads

AT_LEAST_1, POSITIVE = Range(least=1), Range(above=0)

# Keys that a run of DPOTrainer takes in and then does not read: said, not accepted in silence.
DPO_FIGURES = "DPOTrainer computes its own figures; remove it"
NOT_COLLECTED = "no init_lora_weights that reads it works here; remove it"
WITHOUT_EFFECT = {
    "padding_free": "TRL's DPOTrainer has switched it off; remove it",
    "do_train": "training is what this command does; remove it",
    "do_eval": "eval_strategy decides; use it",
    "do_predict": "use python -m dpo_wrap.eval",
    "resume_from_checkpoint": "use --resume PATH",
    "local_rank": "the launcher says it; remove it",
    "label_smoothing_factor": "no DPO loss reads it; use label_smoothing with loss_type: robust",
    "average_tokens_across_devices": "DPO losses are means over pairs; remove it",
    "remove_unused_columns": "DPOTrainer picks the columns that it needs; remove it",
    "label_names": DPO_FIGURES,
    "prediction_loss_only": DPO_FIGURES,
    "include_for_metrics": DPO_FIGURES,
    "batch_eval_metrics": DPO_FIGURES,
    "eval_do_concat_batches": DPO_FIGURES,
    "bf16_full_eval": "evaluation while training has the training's precision; remove it",
    "fp16_full_eval": "evaluation while training has the training's precision; remove it",
    "logging_nan_inf_filter": "a loss that is no number stops the run; remove it",
    "length_column_name": "the rows' lengths are counted here, whatever the name; remove it",
    "restore_callback_states_from_checkpoint": "early stopping counts on without it; remove it",
    "lora.peft_type": "LoraConfig sets it by itself; remove it",
    "lora.peft_version": "peft writes its own; remove it",
    "lora.auto_mapping": "peft writes its own; remove it",
    "lora.base_model_name_or_path": "model_path names the base model; remove it",
    "lora.revision": "use model_init_kwargs: {revision: NAME}",
    "lora.loftq_config": NOT_COLLECTED,
    "lora.eva_config": NOT_COLLECTED,
    "lora.corda_config": NOT_COLLECTED,
    "lora.lora_ga_config": NOT_COLLECTED,
}

UNEQUAL = "it makes batches of unequal numbers of pairs, and TRL weighs every batch alike"
BIAS = "trained biases stay when the adapter is off, so the reference would move with the policy"
BASE_MOVED = "it rewrites the base weights, so with the adapter off the reference is another model"
ONE_MORE_PASS = "it needs a pass over the data before training, which is not made here"
NO_YAML = "it takes an object that no YAML value makes"
# Values that transformers and peft offer and a run of DPOTrainer cannot serve; words are patterns.
REFUSED_VALUES = {
    ("train_sampling_strategy", "batch_rebalance"): UNEQUAL,
    ("enable_jit_checkpoint", True): "a signal leaves a checkpoint without it; remove it",
    ("debug", "*underflow_overflow*"): "it fails on the boolean figures of DPOTrainer's forward",
    ("debug", "*tpu_metrics_debug*"): "no TPU is served here",
    ("parallelism_config", GIVEN): f"{NO_YAML}; use accelerate launch --config_file",
    ("lora.runtime_config", GIVEN): NO_YAML,
    ("lora.arrow_config", GIVEN): "it routes between adapters, and one is trained here",
    ("lora.bias", "all"): BIAS,
    ("lora.bias", "lora_only"): BIAS,
    ("lora.inference_mode", True): "it freezes the adapter, so nothing would be trained",
    ("lora.init_lora_weights", "pissa*"): BASE_MOVED,
    ("lora.init_lora_weights", "olora"): BASE_MOVED,
    ("lora.init_lora_weights", "loftq"): BASE_MOVED,
    ("lora.init_lora_weights", "corda"): ONE_MORE_PASS,
    ("lora.init_lora_weights", "eva"): ONE_MORE_PASS,
}

EVALUATED = {"eval_strategy": ("steps", "epoch")}
SAVED = {"save_strategy": ("steps", "epoch", "best")}
WORKERS = {"dataloader_num_workers": (AT_LEAST_1,)}
SYNCED = {"sync_ref_model": (True,)}
TRACKIO = {"report_to": ("trackio", "all")}
SCORES = ("delta_score", "chosen_scores", "rejected_scores")
ADAM = {"optim": Reads(("adam_kwargs",))}

# Keys that are read only where all of these hold; of one mapping any key with any of its values.
READ_WITH = {
    "eval_steps": ({"eval_strategy": ("steps",)},),
    "save_steps": ({"save_strategy": ("steps",)},),
    "logging_steps": ({"logging_strategy": ("steps",)},),
    "eval_delay": (EVALUATED,),
    "eval_on_start": (EVALUATED,),
    "eval_accumulation_steps": (EVALUATED,),
    "eval_use_gather_object": (EVALUATED,),
    "metric_for_best_model": (EVALUATED,),
    "greater_is_better": (
        EVALUATED,
        {
            "metric_for_best_model": (GIVEN,),
            "load_best_model_at_end": (True,),
            "lr_scheduler_type": ("reduce_lr_on_plateau", "greedy"),
        },
    ),
    "load_best_model_at_end": (EVALUATED, SAVED),
    "early_stopping_patience": ({"load_best_model_at_end": (True,)},),
    "save_total_limit": (SAVED,),
    "save_only_model": (SAVED,),
    "hub_always_push": ({"hub_strategy": ("every_save", "checkpoint", "all_checkpoints")},),
    "run_name": ({"report_to": Reads(("run_name",))},),
    "project": (TRACKIO,),
    "trackio_space_id": (TRACKIO,),
    "trackio_bucket_id": (TRACKIO,),
    "trackio_static_space_id": (TRACKIO,),
    "dataloader_prefetch_factor": (WORKERS,),
    "dataloader_persistent_workers": (WORKERS,),
    "dataloader_multiprocessing_context": (WORKERS,),
    "dataloader_in_order": (WORKERS,),
    "gradient_checkpointing_kwargs": ({"gradient_checkpointing": (True,)},),
    "activation_checkpointing_kwargs": ({"gradient_checkpointing": (True,)},),
    "liger_kernel_config": ({"use_liger_kernel": (True,)},),
    "fsdp_config": ({"fsdp": (GIVEN,)},),
    # DPOTrainer switches the cache off itself; the saved config.json of full weights keeps this.
    "use_cache": ({"lora": (False,)},),
    "truncation_mode": ({"overlength": ("truncate",)}, {"max_length": (GIVEN,)}),
    "overlength": ({"max_length": (GIVEN,)},),
    "precompute_ref_batch_size": ({"precompute_ref_log_probs": (True,)},),
    "ref_model_mixup_alpha": (SYNCED,),
    "ref_model_sync_steps": (SYNCED,),
    "f_alpha_divergence_coef": ({"f_divergence_type": ("alpha_divergence",)},),
    "f_divergence_type": ({"loss_type": Reads(SCORES)},),
    "ld_alpha": (
        {"loss_type": Reads((*SCORES, "chosen_logps", "chosen_logratios", "rejected_logratios"))},
    ),
    "label_smoothing": ({"loss_type": Reads(("label_smoothing",))},),
    "discopop_tau": ({"loss_type": Reads(("discopop_tau",))},),
    "adam_beta1": (ADAM,),
    "adam_beta2": (ADAM,),
    "adam_epsilon": (ADAM,),
    "optim_args": ({"optim": Reads(("optim_args",))},),
    "optim_target_modules": ({"optim": Reads(("optim_target_modules",))},),
    "lr_scheduler_kwargs": ({"lr_scheduler_type": Reads(("scheduler_specific_kwargs",))},),
    "warmup_steps": (
        {"lr_scheduler_type": Reads(("num_warmup_steps",)), "optim": Reads(("warmup_steps",))},
    ),
    "lora.qalora_group_size": ({"lora.use_qalora": (True,)},),
    "lora.megatron_core": ({"lora.megatron_config": (GIVEN,)},),
    "lora.layers_pattern": ({"lora.layers_to_transform": (GIVEN,)},),
}

# What a value cannot do without: (key, its value, what must hold besides, why).
NEEDS = (
    ("loss_type", "exo_pair", {"label_smoothing": (POSITIVE,)}, "its paper recommends 1e-3"),
    (
        *("loss_type", "aot*", {"use_weighting": (False,)}),
        "TRL cannot weigh the pairs of a loss that sorts them",
    ),
    (
        *("sync_ref_model", True, {"lora": (False,)}),
        "with an adapter the reference is the base model, which stays as it is",
    ),
    (
        *("sync_ref_model", True, {"precompute_ref_log_probs": (False,)}),
        "a reference that moves cannot be computed beforehand",
    ),
    (
        *("neftune_noise_alpha", GIVEN, {"lora": (False,)}),
        "with an adapter the reference would be computed from noised embeddings too",
    ),
    ("load_in_4bit", True, {"lora": (True,)}, "quantised weights cannot be trained themselves"),
    ("adapter_path", GIVEN, {"lora": (True,)}, "it is the adapter that is trained"),
    (
        *("lora.alora_invocation_tokens", GIVEN, {"gradient_checkpointing": (False,)}),
        "peft takes one pass before the backward one then, and the reference is a second",
    ),
    ("fp16", True, {"bf16": (False, None)}, "one precision is trained in"),
    ("save_strategy", "best", EVALUATED, "which is best is known from evaluations alone"),
    (
        *("save_strategy", "best"),
        {"metric_for_best_model": (GIVEN,), "load_best_model_at_end": (True,)},
        "what is best must be said; eval_rewards/accuracies is usual",
    ),
    ("lr_scheduler_type", "reduce_lr_on_plateau", EVALUATED, "it follows the evaluations"),
    ("lr_scheduler_type", "greedy", EVALUATED, "it follows the evaluations"),
    ("optim", "galore*", {"optim_target_modules": (GIVEN,)}, "it projects the modules named there"),
    ("optim", "apollo*", {"optim_target_modules": (GIVEN,)}, "it projects the modules named there"),
)

# Two names of transformers for one option, the second the older.
SAME = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
}

# Whether more is better, of the figures that a best checkpoint is chosen by.
MORE_IS_BETTER = {"loss": False, "rewards/accuracies": True, "rewards/margins": True}

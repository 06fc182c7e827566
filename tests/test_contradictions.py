"""contradictions: keys that are right one by one and wrong, or unread, together."""

import pytest
from configuring import loader, refuser

EVALUATED = "eval_strategy: epoch\n"


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


@pytest.fixture
def faults(tmp_path):
    """The lines of the refusal, each without `config.yaml:N: `."""

    def refuse(text):
        return [line.partition(": ")[2] for line in refuser(tmp_path)(text)]

    return refuse


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eval_delay: 5", "eval_delay has no effect without eval_strategy: steps or epoch; set it"),
        ("eval_on_start: true", "without eval_strategy: steps or epoch"),
        ("metric_for_best_model: eval_loss", "without eval_strategy: steps or epoch"),
        ("load_best_model_at_end: true", "without eval_strategy: steps or epoch"),
        (
            EVALUATED + "load_best_model_at_end: true\nsave_strategy: no",
            "load_best_model_at_end has no effect without save_strategy: steps, epoch or best",
        ),
        (
            EVALUATED + "greater_is_better: false",
            "without metric_for_best_model or load_best_model_at_end: true or lr_scheduler_type: ",
        ),
        ("save_strategy: no\nsave_total_limit: 2", "without save_strategy: steps, epoch or best"),
        ("push_to_hub: true\nhub_always_push: true\nhub_strategy: end", "without hub_strategy: ev"),
        ("run_name: x", "with report_to: none; only comet_ml, mlflow, trackio, wandb, swanlab"),
        ("report_to: tensorboard\nrun_name: x", "run_name has no effect with report_to: tensorb"),
        ("project: x", "without report_to: trackio or all"),
        ("dataloader_prefetch_factor: 2", "without dataloader_num_workers at least 1"),
        ("dataloader_persistent_workers: true", "without dataloader_num_workers at least 1"),
        (
            "gradient_checkpointing: false\ngradient_checkpointing_kwargs: {use_reentrant: false}",
            "without gradient_checkpointing: true",
        ),
        (
            "activation_checkpointing: false\ngradient_checkpointing_kwargs: {debug: true}",
            "gradient_checkpointing_kwargs has no effect without gradient_checkpointing: true",
        ),
        ("liger_kernel_config: {rope: true}", "without use_liger_kernel: true"),
        ("fsdp_config: {version: 2}", "fsdp_config has no effect without fsdp; set it"),
        ("use_cache: true", "use_cache has no effect without lora: false"),
        ("overlength: drop\ntruncation_mode: keep_end", "without overlength: truncate"),
        ("overlength: drop\nmax_length: null", "overlength has no effect without max_length"),
        ("precompute_ref_batch_size: 8", "without precompute_ref_log_probs: true"),
        ("f_alpha_divergence_coef: 0.3", "without f_divergence_type: alpha_divergence"),
        ("loss_type: sft\nf_divergence_type: forward_kl", "with loss_type: sft; only sigmoid, "),
        ("loss_type: sft\nld_alpha: 0.5", "ld_alpha has no effect with loss_type: sft; only"),
        ("optim: sgd\nadam_beta1: 0.8", "adam_beta1 has no effect with optim: sgd; only adamw_tor"),
        ("optim_args: a=1", "optim_args has no effect with optim: adamw_torch; only "),
        ("optim_target_modules: [q]", "with optim: adamw_torch; only galore_adamw, "),
        ("lr_scheduler_type: constant\nwarmup_steps: 9", "with lr_scheduler_type: constant; only "),
        (
            "lr_scheduler_type: constant\nlr_scheduler_kwargs: {power: 2}",
            "lr_scheduler_kwargs has no effect with lr_scheduler_type: constant; only linear, ",
        ),
        ("lora:\n  qalora_group_size: 8", "without lora.use_qalora: true"),
        ("lora:\n  layers_pattern: h", "without lora.layers_to_transform; set it"),
    ],
)
def test_a_key_that_nothing_reads_beside_another_names_the_other(faults, text, said):
    lines = faults(text)
    assert len(lines) == 1, lines
    assert said in lines[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sync_ref_model: true", "sync_ref_model: true needs lora: false; with an adapter the ref"),
        (
            "lora: false\nsync_ref_model: true\nprecompute_ref_log_probs: true",
            "sync_ref_model: true needs precompute_ref_log_probs: false; a reference that moves",
        ),
        ("neftune_noise_alpha: 5", "neftune_noise_alpha needs lora: false; with an adapter the"),
        ("lora: false\nload_in_4bit: true", "load_in_4bit: true needs lora: true; quantised"),
        (
            "load_in_4bit: true\nmodel_init_kwargs: {quantization_config: {}}",
            "load_in_4bit and quantization_config in model_init_kwargs say the same thing",
        ),
        ("fp16: true\nbf16: true", "fp16: true needs bf16: false; one precision is trained in"),
        ("loss_type: [sigmoid, aot]\nuse_weighting: true", "loss_type: aot needs use_weighting: f"),
        (
            EVALUATED + "save_strategy: best",
            "save_strategy: best needs metric_for_best_model or load_best_model_at_end: true; what",
        ),
        (
            "save_strategy: best\nload_best_model_at_end: true\nmetric_for_best_model: eval_loss",
            "save_strategy: best needs eval_strategy: steps or epoch; which is best is known from",
        ),
        ("lr_scheduler_type: greedy", "lr_scheduler_type: greedy needs eval_strategy: steps or"),
        ("optim: galore_adamw", "optim: galore_adamw needs optim_target_modules; it projects"),
        (
            EVALUATED + "metric_for_best_model: rewards/margins\ngreater_is_better: false",
            "greater_is_better: false would keep the checkpoint whose eval_rewards/margins is wors",
        ),
        (
            EVALUATED + "load_best_model_at_end: true\ngreater_is_better: true",
            "greater_is_better: true would keep the checkpoint whose eval_loss is worst; remove it",
        ),
        (
            "gradient_checkpointing: false\nactivation_checkpointing: true",
            "activation_checkpointing and gradient_checkpointing (",
        ),
        (
            "loss_type: [sigmoid, sft]\nloss_weights: [1.0]",
            "loss_weights: 1 for 2 of loss_type (sigmoid, sft); give one for each",
        ),
        (
            "loss_type: [sigmoid, apo_zero]\nf_divergence_type: forward_kl",
            "f_divergence_type: forward_kl does not go with loss_type: apo_zero; those that it",
        ),
        (
            "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycle: 1}",
            "lr_scheduler_kwargs: 'num_cycle' is unknown to cosine; did you mean 'num_cycles'?",
        ),
        (
            "lr_scheduler_type: warmup_stable_decay",
            "lr_scheduler_type: warmup_stable_decay needs lr_scheduler_kwargs with num_decay_steps",
        ),
        ("report_to: [tensorbord]", "'tensorbord' is unknown; did you mean 'tensorboard'? known"),
    ],
)
def test_keys_that_contradict_each_other_are_refused_together(faults, text, said):
    lines = faults(text)
    assert any(said in line for line in lines), lines


@pytest.mark.parametrize(
    "text",
    [
        EVALUATED
        + "save_strategy: epoch\nload_best_model_at_end: true\nsave_total_limit: 2\n"
        + "metric_for_best_model: eval_rewards/accuracies\ngreater_is_better: true",
        EVALUATED + "save_strategy: best\nmetric_for_best_model: eval_loss\neval_on_start: true",
        EVALUATED + "lr_scheduler_type: reduce_lr_on_plateau\ngreater_is_better: false",
        "push_to_hub: true\nhub_model_id: me/mine\nhub_private_repo: true\nhub_strategy: end",
        "hub_token: secret\nhub_model_id: me/mine",
        "report_to: [trackio]\nrun_name: x\nproject: y\nhub_private_repo: true",
        "report_to: all\nrun_name: x",
        "dataloader_num_workers: 2\ndataloader_prefetch_factor: 4",
        "gradient_checkpointing_kwargs: {use_reentrant: false}",
        "activation_checkpointing: true\nactivation_checkpointing_kwargs: {offload: true}",
        "lora: false\nsync_ref_model: true\nref_model_sync_steps: 64\nuse_cache: true",
        "loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.5]\nf_divergence_type: js_divergence",
        "f_divergence_type: alpha_divergence\nf_alpha_divergence_coef: 0.3\nld_alpha: 0.5",
        "adam_beta1: 0.8\nwarmup_steps: 0.1\nfp16: true",
        "optim: galore_adamw\noptim_target_modules: [attn]\noptim_args: rank=64",
        "lr_scheduler_type: constant\noptim: schedule_free_adamw\nwarmup_steps: 5",
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-6}",
        "max_steps: 5\nnum_epochs: 3",
        "lora:\n  use_dora: true\n  layers_to_transform: [0]\n  layers_pattern: h",
    ],
)
def test_keys_that_belong_together_are_accepted(load, text):
    load(text)


def test_keys_at_their_defaults_are_accepted_whatever_stands_beside_them(load):
    load(
        "eval_delay: 0\nremove_unused_columns: true\nhub_strategy: every_save\nrun_name: null\n"
        "label_smoothing: 0.0\nref_model_sync_steps: 512\npadding_free: false\nuse_cache: false"
    )


def test_a_key_with_a_fault_of_its_own_brings_no_second_one(faults):
    assert len(faults("eval_strategy: stps\neval_steps: 5")) == 1
    assert len(faults("loss_type: sigmod\nlabel_smoothing: 0.1")) == 1
    assert len(faults("lr_scheduler_type: cosin\nlr_scheduler_kwargs: {power: 2}")) == 1


def test_what_stands_between_keys_is_said_beside_their_own_faults(faults):
    lines = faults("beta: -1\neval_steps: 5\nlora_r: 0\nload_in_4bit: true\nlora: false")
    assert [line.partition(" ")[0] for line in lines] == [
        "beta:",
        "eval_steps",
        "lora_r:",
        "lora_r",
        "load_in_4bit:",
    ]

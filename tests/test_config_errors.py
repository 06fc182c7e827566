"""config: each error of a key, a value or a rule between keys names its place and the fix."""

import pytest
from configuring import error_lister, loader

EVALUATED = "eval_strategy: epoch\n"


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


@pytest.fixture
def errors(tmp_path):
    return error_lister(tmp_path)


@pytest.fixture
def only_error(errors):
    def only(text):
        lines = errors(text)
        assert len(lines) == 1, lines
        assert lines[0].startswith("config.yaml:")
        return lines[0]

    return only


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learnin_rate: 1", "learnin_rate: unknown key; did you mean 'learning_rate'?"),
        ("MODEL_PATH: x", "did you mean 'model_path'?"),
        ("lora:\n  alpha: 3", "lora.alpha: unknown key; did you mean 'lora.lora_alpha'?"),
        ("lora:\n  rnk_pattern: {}", "lora.rnk_pattern: unknown key; did you mean 'lora.rank_p"),
        ("target_modules: [a]", "a field of peft.LoraConfig; write target_modules under lora:"),
        ("lora:\n  beta: 1", "not a field of peft.LoraConfig; write 'beta' at top level"),
        ("training:\n  beta: 1", "lora: is the only group, so write its keys at top level"),
        ("lora:\n  lora_target_modules: [a]", "did you mean 'lora.target_modules'?"),
        ("lora:\n  rank: 8", "lora.rank: not a key of this command; use r"),
        ("zzzz: 1", "zzzz: unknown key; no key has a similar name; remove it"),
        ("1: 2", "1: unknown key"),
        ("padding_fre: true", "unknown key; no key has a similar name; remove it"),
        ("rpo_alpha: 1", "loss_type: [sigmoid, sft]"),
        ("evaluation_strategy: steps", "use eval_strategy"),
        ("max_prompt_length: 5", "use max_length"),
        ("overwrite_output_dir: true", "--resume never"),
        ("model_name_or_path: x", "not a key of this command; use model_path"),
        ("<<: {beta: 1}", "YAML merge keys are not supported; write the keys out"),
        ("beta: 0.1\nbeta: 0.2", "duplicate key 'beta', first in line 4; remove one"),
        ("lora:\n  r: 1\n  r: 2", "duplicate key 'r', first in line 5"),
        ("model_init_kwargs:\n  a: 1\n  a: 2", "duplicate key 'a'"),
        ("batch_size: 1\nper_device_train_batch_size: 1", "the same option as batch_size (config"),
        ("lora_r: 8\nlora:\n  r: 8", "lora.r: the same option as lora_r (config.yaml:4); keep one"),
        ("activation_checkpointing: true\ngradient_checkpointing: true", "keep one"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_with_the_fix(only_error, text, message):
    assert message in only_error(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beta: high", "beta: a number expected, found the text 'high'"),
        ('beta: "0.1"', "found the text '0.1'; remove the quotes"),
        ("beta: 1_000", "a number expected, found the text '1_000'"),
        ("beta: .nan", "a finite number expected"),
        ("beta: null", "a number expected, found nothing"),
        ("beta: [1]", "a number expected, found a list"),
        ("beta: '" + "x" * 5000 + "'", "found the text '" + "x" * 79 + "..."),
        ("beta: 0", "0 is out of range; it must be above 0"),
        ("batch_size: 0", "0 is out of range; it must be at least 1"),
        ("batch_size: true", "an integer expected, found true"),
        (f"batch_size: {10**30}", "is out of range; it must be below 2**63"),
        ("lora_dropout: 1.0", "it must be at least 0 and below 1"),
        ("ld_alpha: 1.5", "it must be at least 0 and at most 1"),
        ("max_steps: 0", "it must be at least 1 or -1"),
        ("seed: -1", "it must be at least 0 and below 4294967296"),
        ("loss_weights: [0]", "loss_weights: 0 is out of range; it must be above 0"),
        ("lora:\n  rank_pattern: {q: 0}", "lora.rank_pattern: 0 is out of range"),
        ("lora_r: 0", "write lora: false to train full weights"),
        ("lora:\n  r: null", "lora.r: an integer expected, found nothing"),
        ("lora: 8", "a mapping of peft.LoraConfig's fields, true or false expected"),
        ("lora: 'off'", "a mapping of peft.LoraConfig's fields, true or false expected"),
        ("bf16: maybe", "true or false expected, found the text 'maybe'"),
        ("run_name: on", "text expected, found true; put the word in quotes"),
        ("lora:\n  modules_to_save: a", "a list expected, found the text 'a'"),
        ("metrics: 3", "text or a list expected, found 3; put it in quotes"),
        ("lora:\n  target_modules: q_proj, v_proj", "a module's whole name; write [q_proj, v"),
        ("lora:\n  target_modules: all", "'all' names no module; write all-linear"),
        ("lora:\n  target_modules: (q|v", "'(q|v' is not a regular expression: missing ), unterm"),
        ("lora:\n  rank_pattern: {'[': 4}", "'[' is not a regular expression: unterminated char"),
        ("loss_type: sigmod", "'sigmod' is unknown; did you mean 'sigmoid'?"),
        ("loss_type: [sigmoid, nope]", "'nope' is unknown"),
        ("loss_type: []", "loss_type: empty; name at least one loss"),
        ("report_to: tensorbord", "'tensorbord' is unknown; did you mean 'tensorboard'?"),
        ("optim: adamw_torc", "did you mean 'adamw_torch'?"),
        ("prefix_sharing: maybe", "known: auto, on, off"),
        ("pad_to_multiple_of: words", "'words' is unknown; known: auto, none"),
        ("lora:\n  task_type: SEQ_CLS", "'SEQ_CLS' is unknown; known: CAUSAL_LM"),
        ("lora:\n  init_lora_weights: foo", "'foo' is unknown; known: gaussian, eva, olora"),
        ("lora:\n  velora_config: 5", "a mapping expected, found 5"),
        ("metrics: ['']", "metrics: empty"),
        ("chat_template: ' '", "chat_template: empty; for conversational data"),
        ("model_init_kwargs: words", "a mapping expected, found the text 'words'"),
        ("deepspeed: no.json", "no file 'no.json'; write a mapping, or the path of a JSON file"),
        ("gradient_checkpointing_kwargs: {foo: 1}", "'foo' is unknown; known: use_reentrant"),
        ("z: !foo 1", "z: cannot be read: the tag !foo is not supported; write text, a number"),
        ("z: !!python/object/apply:os.system [ls]", "object/apply:os.system is not supported"),
        ("lora: !!python/object:x {r: 3}", "lora: cannot be read: the tag !!python/object:x is"),
        ("model_init_kwargs: &a {x: *a}", "cannot be read: found unconstructable recursive node"),
    ],
)
def test_a_value_that_is_invalid_is_named_with_what_is_expected(only_error, text, message):
    assert message in only_error(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("padding_free: true", "padding_free: not supported: DPOTrainer does not read it; remove"),
        ("remove_unused_columns: maybe", "not supported: DPOTrainer does not read it"),
        ("resume_from_checkpoint: true", "use --resume PATH"),
        ("debug: underflow_overflow", "it fails on the boolean outputs"),
        ("parallelism_config: {tp_size: 2}", "use accelerate launch --config_file"),
        (
            "train_sampling_strategy: batch_rebalance",
            "'batch_rebalance' is not supported: TRL",
        ),
        ("lora:\n  peft_type: IA3", "lora.peft_type: not supported: peft sets it; remove it"),
        ("lora:\n  inference_mode: true", "it freezes the adapter"),
        ("lora:\n  bias: all", "biases change the reference, where only the adapter is disabled"),
        ("lora:\n  init_lora_weights: pissa_niter_4", "it changes the base weights, which are the"),
        ("lora:\n  arrow_config: {}", "it routes between adapters"),
    ],
)
def test_what_dpo_trainer_cannot_use_is_refused_with_the_reason(only_error, text, message):
    assert message in only_error(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "save_strategy: epoch\nsave_steps: 5",
            "save_steps: no effect without save_strategy: steps",
        ),
        ("load_best_model_at_end: true", "without eval_strategy: steps or epoch"),
        (
            EVALUATED + "greater_is_better: false",
            "without metric_for_best_model or load_best_model_at_end: true or lr_scheduler_type: ",
        ),
        ("dataloader_persistent_workers: true", "no effect without dataloader_num_workers; set it"),
        ("overlength: drop\ntruncation_mode: keep_end", "without overlength: truncate"),
        ("overlength: drop\nmax_length: null", "overlength: no effect without max_length"),
        ("loss_type: sft\nld_alpha: 0.5", "no effect with loss_type: sft; set another, or"),
        (
            "label_smoothing: 0.1",
            "loss_type: exo_pair, robust, aot or aot_unpaired; set it, or rem",
        ),
        (
            "optim: sgd\nadam_beta1: 0.8",
            "adam_beta1: no effect with optim: sgd, adafactor, adagrad, rmsprop, grokadamw, lomo, "
            "adalomo or galore*; set another, or remove the key",
        ),
        (
            "lr_scheduler_type: constant\nwarmup_steps: 9",
            "with lr_scheduler_type: constant, reduce_lr_on_plateau or greedy and without optim: "
            "schedule_free*; set another, or remove the key",
        ),
        ("lora: false\nlora_r: 8", "lora_r: no effect without lora: true"),
    ],
)
def test_a_key_without_effect_names_what_it_needs(only_error, text, message):
    assert message in only_error(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss_type: exo_pair", "loss_type: exo_pair needs label_smoothing; its paper recommends"),
        (
            "loss_type: [sigmoid, aot]\nuse_weighting: true",
            "loss_type: sigmoid, aot needs use_weighting: false; TRL cannot weight sorted",
        ),
        (
            "loss_type: [sigmoid, apo_zero]\nf_divergence_type: forward_kl",
            "loss_type: sigmoid, apo_zero needs f_divergence_type: reverse_kl; TRL supports no",
        ),
        (
            "loss_type: [sigmoid, sft]\nloss_weights: [1.0]",
            "loss_weights: 1 for 2 of loss_type (sigmoid, sft); give one for each",
        ),
        (
            "disable_dropout: true\nlora_dropout: 0.1",
            "disable_dropout: true needs lora.lora_dropout: 0; TRL would disable the adapter's",
        ),
        ("sync_ref_model: true", "sync_ref_model: true needs lora: false; an adapter's reference"),
        (
            "lora: false\nsync_ref_model: true\nprecompute_ref_log_probs: true",
            "sync_ref_model: true needs precompute_ref_log_probs: false; the reference",
        ),
        ("neftune_noise_alpha: 5", "neftune_noise_alpha: 5 needs lora: false; an adapter's ref"),
        ("lora: false\nadapter_path: a", "adapter_path: a needs lora: true; the adapter is what"),
        (
            "load_in_4bit: true\nmodel_init_kwargs: {quantization_config: {}}",
            "load_in_4bit: model_init_kwargs has a quantization_config too; remove one of them",
        ),
        ("report_to: [tensorboard, none]", "none means no tracker; write it alone, or remove it"),
        ("fp16: true\nbf16: true", "fp16: true needs bf16: false or null; training uses one"),
        ("optim: galore_adamw", "optim: galore_adamw needs optim_target_modules; it projects"),
        (
            EVALUATED + "save_strategy: best",
            "save_strategy: best needs metric_for_best_model, such as eval_rewards/accuracies",
        ),
        (
            "save_strategy: best\nmetric_for_best_model: null\nload_best_model_at_end: false",
            "save_strategy: best needs eval_strategy: steps or epoch; only an evaluation shows",
        ),
        (
            EVALUATED + "metric_for_best_model: eval_accuracies",
            "metric_for_best_model: 'accuracies' is unknown; did you mean 'rewards/accuracies'? "
            "known: eval_loss, eval_rewards/accuracies",
        ),
        (
            EVALUATED + "metric_for_best_model: rewards/margins\ngreater_is_better: false",
            "greater_is_better: false would keep the checkpoint with the worst eval_rewards/",
        ),
        (
            EVALUATED + "load_best_model_at_end: true\ngreater_is_better: true",
            "greater_is_better: true would keep the checkpoint with the worst eval_loss; remove it",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(errors, text, message):
    lines = errors(text)
    assert any(message in line for line in lines), lines


@pytest.mark.parametrize(
    "text",
    [
        EVALUATED
        + "save_strategy: epoch\nload_best_model_at_end: true\nsave_total_limit: 2\n"
        + "metric_for_best_model: eval_rewards/accuracies\ngreater_is_better: true",
        EVALUATED + "save_strategy: best\nmetric_for_best_model: eval_loss\neval_on_start: true",
        EVALUATED + "lr_scheduler_type: reduce_lr_on_plateau\ngreater_is_better: false",
        "eval_strategy: steps\neval_steps: 5\nsave_steps: 5\nlogging_steps: 3",
        "hub_token: secret\nhub_model_id: me/mine\nhub_private_repo: true\nhub_strategy: end",
        "report_to: [trackio]\nrun_name: x\nproject: y",
        "report_to: all\nrun_name: x",
        "dataloader_num_workers: 2\ndataloader_prefetch_factor: 4",
        "gradient_checkpointing_kwargs: {use_reentrant: false}",
        "activation_checkpointing: true\nactivation_checkpointing_kwargs: {offload: true}",
        "lora: false\nsync_ref_model: true\nref_model_sync_steps: 64\nuse_cache: true",
        "loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.5]\nf_divergence_type: js_divergence",
        "f_divergence_type: alpha_divergence\nf_alpha_divergence_coef: 0.3\nld_alpha: 0.5",
        "loss_type: robust\nlabel_smoothing: 0.1",
        "adam_beta1: 0.8\nwarmup_steps: 0.1\nfp16: true",
        "optim: galore_adamw\noptim_target_modules: [attn]\noptim_args: rank=64",
        "lr_scheduler_type: constant\noptim: schedule_free_adamw\nwarmup_steps: 5",
        "max_steps: 5\nnum_epochs: 3",
        "disable_dropout: false\nlora_dropout: 0.1",
        "disable_dropout: true\nlora_dropout: 0",
        "disable_dropout: true\nlora: false",
    ],
)
def test_keys_that_belong_together_are_accepted(load, text):
    load(text)


def test_keys_at_their_defaults_are_accepted_without_what_they_need(load):
    load(
        "eval_delay: 0\nremove_unused_columns: true\nhub_strategy: every_save\nrun_name: null\n"
        "label_smoothing: 0.0\nref_model_sync_steps: 512\npadding_free: false\nuse_cache: false\n"
        "lora:\n  bias: none"
    )

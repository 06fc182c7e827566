"""arguments: the chosen defaults, and the errors and warnings of TRL and peft."""

import re

import pytest
import torch
import yaml
from configuring import loader
from peft import LoraConfig
from transformers import AutoConfig, GPT2Config, LlamaConfig, trainer_optimizer

from dpo_wrap import arguments, run_dir
from dpo_wrap.arguments import build_arguments, refusal
from dpo_wrap.errors import ConfigError

GPT2 = GPT2Config(n_positions=128, vocab_size=257)
UNTIED = LlamaConfig(vocab_size=257, max_position_embeddings=128, tie_word_embeddings=False)


@pytest.fixture
def build(tmp_path):
    """Settings and arguments of a config text, for a small GPT-2."""

    def built(text, config=GPT2, adapter=None):
        settings = loader(tmp_path)(text + "\n")
        return settings, build_arguments(settings, config, adapter)

    return built


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logging_steps: 1.5", "4: logging_steps: DPOConfig refuses it: --logging_steps must be"),
        ("tf32: true", "4: tf32: DPOConfig refuses it: --tf32 requires Ampere"),
        ("bf16: true", "4: bf16: DPOConfig refuses it: Your setup doesn't support bf16/gpu"),
        ("fsdp: full_shrd", "4: fsdp: DPOConfig refuses it: Unknown `fsdp` option: full_shrd"),
        ("deepspeed: {zero_optimization: {stage: 2}}", "4: deepspeed: DPOConfig refuses it: "),
        ("accelerator_config: {foo: 1}", "DPOConfig refuses it: "),
        (
            "load_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: steps",
            "4: load_best_model_at_end: DPOConfig refuses it: --load_best_model_at_end requires",
        ),
        (
            "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 3\nsave_steps: 5",
            "a round multiple of the evaluation steps, but found 5, which is not a round multiple",
        ),
        (
            "lr_scheduler_type: greedy",
            "4: lr_scheduler_type: DPOConfig refuses it: lr_scheduler_type greedy requires an eval",
        ),
        (
            "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycle: 1}",
            "5: lr_scheduler_kwargs: transformers refuses it: get_cosine_schedule_with_warmup() "
            "got an unexpected keyword argument 'num_cycle'",
        ),
        (
            "lr_scheduler_type: warmup_stable_decay",
            "4: lr_scheduler_type: transformers refuses it: get_wsd_schedule() missing 1 required "
            "positional argument: 'num_decay_steps'",
        ),
        (
            "lora:\n  target_modules: all-linear\n  layers_to_transform: [0]",
            "6: lora.layers_to_transform: LoraConfig refuses it: `layers_to_transform` cannot be",
        ),
        (
            "lora:\n  use_dora: true\n  lora_bias: true",
            "lora.lora_bias: LoraConfig refuses it: The argument lora_bias=True is not supported",
        ),
        (
            "lora:\n  velora_config: {scales: 2}",
            "5: lora.velora_config: 'scales' is unknown; did you mean 'scale'? known: num_groups",
        ),
        ("lora:\n  use_qalora: true", "5: lora.use_qalora: no effect on a model without GPTQ"),
        ("report_to: neptune", "4: report_to: neptune is not installed; install it, or remove it"),
        ("activation_offloading: true", "4: activation_offloading: no device here supports it"),
        (
            "lora:\n  trainable_token_indices: [3]",
            "5: lora.trainable_token_indices: this model's output layer is its embeddings",
        ),
        ("max_length: 500", "4: max_length 500 is more than the model's context of 128 tokens"),
    ],
)
def test_what_a_library_refuses_is_one_line_that_names_the_key(build, text, message):
    with pytest.raises(ConfigError) as caught:
        build(text)
    assert len(str(caught.value).splitlines()) == 1
    assert message in str(caught.value)
    assert "config.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message", "key"),
    [
        (
            "torch_compile_backend: foo",
            "'FOO' is not a valid DynamoBackend",
            "torch_compile_backend",
        ),
        ("deepspeed: {}", "The 'deepspeed>=0.9.3' distribution was not found", "deepspeed"),
        ("lora:\n  target_modules: [a]", "Target modules {'a'} not found", "lora.target_modules"),
        ("save_steps: 3\nsave_strategy: steps", "save_strategy and save_steps", "save_strategy"),
        ("eval_strategy: steps", "not a multiple of the steps", None),
        ("optim: sgd", "not enough values to unpack", None),
        ("optim: adamw_8bit", "install bitsandbytes to use its optimizers", "optim"),
        ("activation_checkpointing: true", "use `is_activation_checkpointing`", None),
    ],
)
def test_a_message_of_a_library_is_placed_at_the_key_that_it_names(tmp_path, text, message, key):
    settings = loader(tmp_path)(text)
    where = settings.where(key) if key else settings.source
    line = str(refusal("DPOConfig", ValueError(message), settings))
    assert line == f"{where}: DPOConfig refuses it: {message}"


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("optim: adamw_8bit", "bitsandbytes"),
        ("optim: paged_adamw_32bit", "bitsandbytes"),
        ("optim: lion_32bit", "bitsandbytes"),
        ("optim: adamw_torch_4bit", "torchao"),
        ("optim: schedule_free_adamw", "schedulefree"),
        ("optim: grokadamw", "grokadamw"),
        ("optim: galore_adamw\noptim_target_modules: [attn]", "galore_torch"),
        ("use_liger_kernel: true", "liger-kernel"),
    ],
)
def test_a_key_whose_package_is_missing_is_refused_with_the_package(
    build, monkeypatch, text, package
):
    for name in vars(trainer_optimizer).copy():
        if re.fullmatch(r"is_\w+_available", name):
            monkeypatch.setattr(trainer_optimizer, name, lambda *version: False)
    monkeypatch.setattr(arguments, "is_liger_kernel_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        build(text)
    key = text.partition(":")[0]
    message = str(caught.value)
    assert f"config.yaml:4: {key}: " in message and "install" in message and package in message
    assert "Traceback" not in message and "\n" not in message


@pytest.mark.parametrize("given", ["momentum", "momentum=high", "nesterov=true"])
def test_an_option_that_the_optimizer_refuses_is_named(build, given):
    with pytest.raises(ConfigError, match="5: optim_args: transformers refuses it: "):
        build(f"optim: sgd\noptim_args: {given}")


def test_token_indices_must_be_in_the_vocabulary(build):
    with pytest.raises(ConfigError, match="300 is not a token; the last one is 256"):
        build("lora:\n  trainable_token_indices: [3, 300]", UNTIED)
    _, arguments = build("lora:\n  trainable_token_indices: [3, 256]", UNTIED)
    assert arguments.lora.trainable_token_indices == [3, 256]


@pytest.mark.parametrize(
    ("text", "name", "value", "note"),
    [
        ("", "learning_rate", 2e-4, "learning_rate: 0.0002 by default with LoRA"),
        ("lora: false", "learning_rate", 1e-6, None),
        ("learning_rate: 3e-5", "learning_rate", 3e-5, None),
        ("", "max_length", 128, "the smaller of 1024 and the model's context of 128 tokens"),
        ("max_seq_length: 64", "max_length", 64, None),
        ("max_length: null", "max_length", None, None),
        ("", "bf16", False, "bf16: false by default, no device here supports it"),
        ("use_cpu: true", "bf16", False, "bf16: false by default, use_cpu"),
        ("", "disable_dropout", True, None),
        ("lora_dropout: 0.1", "disable_dropout", False, "lora_dropout: 0.1 acts on the adapter;"),
        ("logging_dir: logs", "report_to", [], "logging_dir: logs is unused without report_to"),
    ],
)
def test_a_default_that_is_chosen_here_is_in_a_note(build, monkeypatch, text, name, value, note):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, arguments = build(text)
    assert getattr(arguments.dpo, name) == value
    if name in arguments.chosen:
        assert arguments.chosen[name] == value
    notes = "\n".join(arguments.notes)
    assert note in notes if note else f"{name}:" not in notes


def test_activations_are_not_checkpointed_where_the_model_cannot(build):
    config = AutoConfig.for_model("ctrl", architectures=["CTRLLMHeadModel"])
    _, arguments = build("", config)
    assert arguments.dpo.activation_checkpointing is False
    note = "activation_checkpointing: false by default, CTRLLMHeadModel does not support it"
    assert note in arguments.notes
    assert build("activation_checkpointing: true", config)[1].dpo.activation_checkpointing


def test_the_dropout_of_an_adapter_is_never_disabled_silently(build):
    adapter = LoraConfig(lora_dropout=0.1)
    with pytest.raises(ConfigError, match="4: disable_dropout: true would disable the adapter's"):
        build("disable_dropout: true\nadapter_path: a", adapter=adapter)
    _, arguments = build("adapter_path: a", adapter=adapter)
    assert arguments.dpo.disable_dropout is False
    assert "lora_dropout: 0.1 acts on the adapter" in "\n".join(arguments.notes)


def test_warnings_of_the_libraries_about_given_keys_are_notes(build):
    _, arguments = build("truncation_mode: keep_end")
    note = next(note for note in arguments.notes if "keep_end" in note)
    assert "config.yaml:4: truncation_mode: DPOConfig warns: The `'keep_end'` truncation" in note
    assert not any("warns" in note for note in build("")[1].notes)


@pytest.mark.parametrize("value", [True, False])
def test_a_deprecated_name_that_trl_still_uses_causes_no_warning(build, value):
    _, arguments = build(f"gradient_checkpointing: {str(value).lower()}")
    assert not any("warns" in note for note in arguments.notes)
    assert arguments.dpo.activation_checkpointing is value
    assert arguments.dpo.gradient_checkpointing is value


def test_a_note_says_that_max_steps_overrides_num_epochs(build):
    _, arguments = build("num_epochs: 3\nmax_steps: 5")
    assert "num_epochs: not counted, since max_steps: 5 decides" in arguments.notes
    for text in ("num_epochs: 3", "max_steps: 5", "num_epochs: 3\nmax_steps: -1"):
        assert not any(note.startswith("num_epochs") for note in build(text)[1].notes)


def test_the_adapter_is_of_a_causal_model_even_if_task_type_is_null(build):
    assert build("lora:\n  task_type: null")[1].lora.task_type == "CAUSAL_LM"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lora: false\noverlength: drop\ntruncation_mode: keep_start",
        "batch_size: 2\nnum_epochs: 0.5\nmax_seq_length: 64\nbeta: 0.2\nlogging_dir: logs\n"
        "loss_type: [sigmoid, sft]\nloss_weights: [1.0, 1e-3]\nlearning_rate: 1e-5\n"
        "eval_strategy: steps\neval_steps: 0.25\nsave_steps: 0.5\nload_best_model_at_end: true\n"
        "metric_for_best_model: eval_rewards/accuracies\nsave_total_limit: 2\nwarmup_steps: 0.1\n"
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-6}\n"
        "model_init_kwargs: {dtype: bfloat16, attn_implementation: eager}\nrun_name: null\n"
        "gradient_checkpointing_kwargs: {use_reentrant: false}\nreport_to: [tensorboard]\n"
        "lora_r: 4\nlora_dropout: 0.1\nmetrics: [m.py]\nchat_template: chatml\n"
        "lora:\n  use_dora: true\n  target_modules: [c_attn]\n  rank_pattern: {c_attn: 2}\n"
        "  modules_to_save: null\n  init_lora_weights: gaussian",
        "push_to_hub: true\nhub_token: secret\nhub_model_id: me/mine\nhub_strategy: end\n"
        "eval_strategy: no\nfp16: false\ndebug: ''\nmax_length: null",
    ],
)
def test_the_resolved_config_repeats_the_run(build, text, tmp_path):
    settings, arguments = build(text)
    resolved = run_dir.resolved(settings, arguments.chosen)
    written = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    again = loader(tmp_path)(written, whole=True)
    rebuilt = build_arguments(again, GPT2)
    chosen = {n: v for n, v in arguments.chosen.items() if not n.startswith("lora.")}
    given = {**settings.trl, **chosen}
    given.pop("hub_token", None)
    assert again.trl == given
    assert again.lora == settings.lora
    assert again.own() == settings.own()
    assert run_dir.resolved(again, rebuilt.chosen) == resolved
    assert rebuilt.dpo.to_dict() | {"hub_token": None} == arguments.dpo.to_dict() | {
        "hub_token": None
    }
    assert rebuilt.lora == arguments.lora

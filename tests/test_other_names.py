"""other_names: what users of other trainers and methods write, and which key is suggested instead.

The tables are compared with the installed trl and with the keys of a config.
"""

import importlib
import re
import warnings
from dataclasses import fields
from typing import get_args

import pytest
from configuring import error_lister
from trl import KTOConfig, ModelConfig, RewardConfig, ScriptArguments
from trl.import_utils import TRLExperimentalWarning
from trl.scripts.utils import DatasetMixtureConfig

from dpo_wrap.config import own_fields
from dpo_wrap.config_keys import SHORT_NAMES
from dpo_wrap.library_fields import lora_fields, nearest, trl_fields
from dpo_wrap.other_names import METHODS, REPLACED, other_loss, other_option, trl_trainers

KEYS = [*SHORT_NAMES, *trl_fields(), *own_fields(), "lora"]
LLAMA_FACTORY = """
    model_name_or_path adapter_name_or_path template cutoff_len preprocessing_num_workers
    finetuning_type lora_rank lora_target lora_alpha lora_dropout additional_target pref_beta
    pref_loss pref_ftx pref_label_smoothing stage dataset_dir val_size max_samples flash_attn
    quantization_bit ref_model ref_model_adapters simpo_gamma kto_chosen_weight plot_loss packing
    overwrite_cache overwrite_output_dir report_to ddp_timeout trust_remote_code streaming
"""
AXOLOTL = """
    base_model model_type tokenizer_type adapter lora_model_dir lora_r lora_target_linear
    lora_target_modules lora_modules_to_save lora_fan_in_fan_out sequence_len micro_batch_size
    num_epochs optimizer lr_scheduler learning_rate datasets val_set_size rl rl_beta
    dpo_label_smoothing load_in_8bit load_in_4bit flash_attention wandb_project wandb_name
    warmup_steps evals_per_epoch saves_per_epoch sample_packing pad_to_sequence_len train_on_inputs
    chat_template special_tokens dataset_prepared_path gradient_checkpointing xformers_attention
    group_by_length early_stopping_patience output_dir
"""
ALIGNMENT_HANDBOOK = """
    torch_dtype dataset_mixer dataset_splits dataset_configs attn_implementation use_peft
    use_flash_attention_2 bnb_4bit_quant_type max_prompt_length optim hub_model_id log_level
    push_to_hub
"""
TRL_SCRIPTS = [
    field.name
    for config in (ModelConfig, ScriptArguments, DatasetMixtureConfig)
    for field in fields(config)
]


def is_known(key):
    lora = lora_fields().keys() & {key, key.removeprefix("lora_")}
    return bool(key in KEYS or key in REPLACED or lora or other_option(key))


@pytest.mark.parametrize(
    "keys",
    [LLAMA_FACTORY.split(), AXOLOTL.split(), ALIGNMENT_HANDBOOK.split(), TRL_SCRIPTS],
    ids=["LLaMA-Factory", "axolotl", "alignment-handbook", "trl"],
)
def test_every_key_of_another_trainer_is_known(keys):
    assert [key for key in keys if not is_known(key)] == []


def test_no_replaced_key_is_a_key_and_every_fix_names_one():
    assert not REPLACED.keys() & {*KEYS, *(f"lora.{name}" for name in lora_fields())}
    for key, fix in REPLACED.items():
        named = set(re.findall(r"[a-z0-9_]+", fix))
        assert named & {*KEYS, *lora_fields()} or re.search("remove it|python -m|--", fix), key


def test_a_method_that_trl_has_is_named_with_its_trainer():
    losses = set(get_args(get_args(trl_fields()["loss_type"].type)[0]))
    for method, (_, _, near) in METHODS.items():
        text = other_loss(method)
        module, name = re.search(r"train it with ([\w.]+)\.(\w+Trainer)", text).groups()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TRLExperimentalWarning)
            assert hasattr(importlib.import_module(module), name)
        assert set(re.findall(r"\w+", near)) <= losses
    # A trainer for preferences or rewards that a new version of TRL has.
    others = "sft distillation server_distillation async_distillation sdpo sdft iw_opd gold gmpo"
    others = {*others.split(), "gkd", "async_grpo", "a2po"}
    assert trl_trainers().keys() - METHODS.keys() == others


@pytest.mark.parametrize("config", [KTOConfig, RewardConfig])
def test_an_option_of_another_trainer_is_named_with_it(config):
    name = config.__name__.replace("Config", "Trainer")
    options = {field.name for field in fields(config)} - {*KEYS, *REPLACED}
    assert options
    assert all(re.search(rf"trl\.\S*{name}", other_option(option)) for option in options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "loss_type: SimPO",
            "'SimPO' is not a loss of DPOTrainer; SimPO compares the mean log-probabilities of the "
            "answers, without a reference; train it with trl.experimental.cpo.CPOTrainer, or with "
            "the nearest loss here, sigmoid_norm",
        ),
        ("loss_type: [sft, dpo]", "'dpo' is not a loss of DPOTrainer; sigmoid is the DPO loss"),
        ("loss_type: kto-pair", "it was removed; KTO learns from single answers; train it with"),
        ("loss_type: ppo", "as RLOO does, which replaced it in TRL; train it with trl.RLOOTrainer"),
        ("orpo_alpha: 1", "orpo_alpha: an option of another method; ORPO is SFT plus an odds"),
        ("num_generations: 8", "an option of trl.GRPOTrainer, which DPO does not have; remove it"),
    ],
)
def test_the_name_of_another_method_is_explained(tmp_path, text, message):
    [line] = error_lister(tmp_path)(text)
    assert message in line


def typos(name, position):
    """The name without a letter, with two swapped, one doubled, without an underscore, ..."""
    position = min(position, len(name) - 2)
    before, letter, after = name[:position], name[position], name[position + 1 :]
    yield from (before + after, before + letter + letter + after)
    yield before + after[0] + letter + after[1:]
    yield from (f"{name}s", name.removesuffix("s"), name.upper())
    yield from (name.replace("_", other, 1) for other in ("", "-", " "))


@pytest.mark.parametrize("known", [KEYS, lora_fields()], ids=["trl", "peft"])
def test_a_typo_gets_the_key_that_was_meant(known):
    wrong, count = [], 0
    for number, name in enumerate(known):
        for typo in {*typos(name, 2 + number % 5)} - {*known}:
            count += 1
            # Keys that differ in one letter are equally near.
            if name not in ("r", "adam_beta1", "adam_beta2") and not re.search("[bf][fp]16", name):
                wrong += [(typo, found)] if (found := nearest(typo, known)) != name else []
    assert count > 200
    assert wrong == []


@pytest.mark.parametrize(
    "word", ["lora_rank", "ref_model_path", "simpo_beta", "cpo_alpha", "dataset_dir", "dpo_beta"]
)
def test_a_name_with_another_word_is_like_no_key(word):
    assert nearest(word, KEYS) is None


def test_of_the_variants_of_an_option_the_first_is_suggested():
    assert nearest("adamw", ["adamw_torch", "adamw_8bit", "grokadamw"]) == "adamw_torch"
    assert nearest("accuracies", ["loss", "rewards/accuracies"]) == "rewards/accuracies"

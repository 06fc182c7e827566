"""library_fields and config_keys against the installed trl, transformers, peft and torch.

If a library moves, these tests name the rows of the tables that are no longer right.
"""

import inspect
import json
import re
from dataclasses import MISSING, fields
from typing import get_args

import pytest
import torch
from configuring import loader
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import DPOConfig

from dpo_wrap import config_keys, loss
from dpo_wrap.config import own_fields
from dpo_wrap.library_fields import TRAINER, UNKNOWN_DEFAULT, lora_fields, source, trl_fields

LORA = {f"lora.{name}": field for name, field in lora_fields().items()}
FIELDS = {**trl_fields(), **LORA, **own_fields()}


def words(hint):
    """The words that a type hint lists, those of its parts too."""
    if isinstance(hint, str):
        return {hint}
    return {word for part in get_args(hint) for word in words(part)}


@pytest.mark.parametrize(
    ("config", "known"), [(DPOConfig, trl_fields()), (LoraConfig, lora_fields())]
)
def test_names_and_defaults_are_those_of_the_installed_classes(config, known):
    assert {field.name for field in fields(config) if field.init} == set(known)
    for field in fields(config):
        default = known[field.name].default
        if default is not UNKNOWN_DEFAULT and field.default_factory is not list:
            factory = field.default_factory
            made = [] if factory is MISSING else [factory()]
            assert default in (field.default, *made), field.name


def test_every_default_passes_its_own_check(tmp_path):
    for name, field in {**trl_fields(), **LORA}.items():
        # A default of null is chosen elsewhere; a config leaves the key out.
        if field.default in (UNKNOWN_DEFAULT, None) or name in own_fields():
            continue
        settings = loader(tmp_path)("", f"{name}={json.dumps(field.default)}")
        name = config_keys.FULL_NAMES.get(name, name)
        found = settings.lora if name.startswith("lora.") else settings.trl
        assert found[name.removeprefix("lora.")] == field.default


def test_every_key_of_the_tables_is_a_field():
    known = {*FIELDS, "lora"}
    named = {full for full, _ in config_keys.SHORT_NAMES.values()}
    for table in (
        "RANGES",
        "CORRECTED_TYPES",
        "FILES",
        "PATTERNS",
        "MAPPING_KEYS",
        "UNSUPPORTED_KEYS",
    ):
        named |= set(getattr(config_keys, table))
    named |= {condition.partition(":")[0] for condition, _ in config_keys.UNSUPPORTED_VALUES}
    named |= {key for keys, *_ in config_keys.NO_EFFECT_WITHOUT for key in keys.split()}
    assert named <= known


def test_the_trackers_are_those_of_the_installed_transformers():
    assert set(get_args(config_keys.Tracker)) == {*INTEGRATION_TO_CALLBACK, "all", "none"}


def test_every_condition_names_a_field_and_its_values():
    conditions = [one for _, *row in config_keys.NO_EFFECT_WITHOUT for one in row]
    conditions += [one for when, need, _ in config_keys.NEEDS for one in (when, need)]
    conditions += [condition for condition, _ in config_keys.UNSUPPORTED_VALUES]
    for condition in conditions:
        key, _, values = condition.partition(": ")
        if key == "lora":
            continue
        known = words(FIELDS[key].type)
        if key == "report_to":
            known = {*INTEGRATION_TO_CALLBACK, "all"}
        for value in re.split(", | or ", values.removeprefix("other than ")) if known else ():
            assert any(re.fullmatch(value.replace("*", ".*"), word) for word in known), condition


def test_the_losses_that_read_an_option_are_those_of_loss_py():
    rows = dict((keys, row) for keys, *row in config_keys.NO_EFFECT_WITHOUT)
    listed = rows["label_smoothing"][0].partition(": ")[2]
    assert set(re.split(", | or ", listed)) == loss.READS_LABEL_SMOOTHING
    without = next(when for when, need, _ in config_keys.NEEDS if need.startswith("f_divergence"))
    listed = set(re.split(", | or ", without.partition(": ")[2]))
    assert listed == words(trl_fields()["loss_type"].type) - loss.TAKES_DIVERGENCES


def test_the_metrics_are_those_that_dpo_trainer_logs():
    logged = set(re.findall(r'_metrics\[mode\]\["([^"]+)"\]', source(*TRAINER)))
    assert set(config_keys.METRICS) == {"loss", *logged}


def test_the_checkpoint_arguments_are_those_of_torch_and_transformers():
    ours = inspect.signature(checkpoint).parameters
    wrapped = inspect.signature(PreTrainedModel.activation_checkpointing_enable).parameters
    names = [n for n, p in ours.items() if p.kind is p.KEYWORD_ONLY and n != "context_fn"]
    outer = [n for n in wrapped if n not in ("self", "activation_checkpointing_kwargs")]
    # preserve_rng_state is in checkpoint's **kwargs.
    assert set(config_keys.MAPPING_KEYS["activation_checkpointing_kwargs"]) == {
        *names,
        *outer,
        "preserve_rng_state",
    }


@pytest.mark.parametrize(
    ("start", "moves"),
    [
        *((start, True) for start in ("pissa", "pissa_niter_2", "olora")),
        *((start, False) for start in (True, "gaussian", "orthogonal", "mica")),
    ],
)
def test_an_initialization_is_refused_if_it_changes_the_base_model(start, moves):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 32}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    ids = torch.arange(8)[None]
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    with torch.no_grad():
        before = model(ids).logits
        lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=start)
        adapted = get_peft_model(model, lora)
        with adapted.disable_adapter():
            after = adapted(ids).logits
    assert torch.allclose(after, before, atol=1e-6) is not moves
    assert (config_keys.unsupported("lora.init_lora_weights", start, True) is not None) is moves

"""config: what a config means, and --set over it."""

from pathlib import Path

import pytest
from configuring import loader, refuser

from dpo_wrap.config import documented_keys, key_table, load_settings, own_fields
from dpo_wrap.config_readers import readers
from dpo_wrap.library_fields import UNKNOWN_DEFAULT, lora_fields, trl_fields

ROOT = Path(__file__).parent.parent


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


@pytest.fixture
def faults(tmp_path):
    return refuser(tmp_path)


def test_the_sample_config_means_what_it_says():
    settings = load_settings(str(ROOT / "configs/dpo_config.yaml"))
    assert settings.model_path == "gpt2"
    assert settings.dataset_path == ("data/preferences.json",)
    assert settings.output_dir == "checkpoints/dpo"
    assert settings.logging_dir == "logs"
    assert dict(settings.trl) == {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "max_length": 512,
        "beta": 0.1,
    }
    assert dict(settings.lora) == {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1}


def test_lora_is_on_without_any_lora_key(load):
    assert load("").lora == {}
    assert load("lora: true").lora == {}
    assert load("lora: {}").lora == {}
    assert load("lora: false").lora is None


def test_any_field_of_trl_and_peft_is_taken_by_its_own_name(load):
    settings = load("weight_decay: 0.1\nloss_type: [sigmoid, sft]\nlora:\n  use_dora: true\n")
    assert settings.trl["weight_decay"] == 0.1
    assert settings.trl["loss_type"] == ["sigmoid", "sft"]
    assert settings.lora["use_dora"] is True


def test_every_field_of_the_installed_libraries_is_known():
    from dataclasses import fields

    from peft import LoraConfig
    from trl import DPOConfig

    for config, known in ((DPOConfig, trl_fields()), (LoraConfig, lora_fields())):
        assert {field.name for field in fields(config) if field.init} == set(known)
        for field in fields(config):
            read = known[field.name].default
            if read is not UNKNOWN_DEFAULT and field.default_factory is not list:
                assert read in (field.default, *_made(field)), field.name


def _made(field):
    from dataclasses import MISSING

    return [] if field.default_factory is MISSING else [field.default_factory()]


def test_every_default_of_the_installed_libraries_passes_its_own_check(load):
    for name, field in trl_fields().items():
        # A default of null says "decided elsewhere", which a config says by leaving the key out.
        if field.default in (UNKNOWN_DEFAULT, None) or name in own_fields()[0]:
            continue
        assert load("", f"{name}={_yaml(field.default)}").trl[name] == field.default
    for name, field in lora_fields().items():
        if field.default not in (UNKNOWN_DEFAULT, None):
            settings = load("", f"lora.{name}={_yaml(field.default)}")
            assert settings.lora[name] == field.default


def _yaml(value):
    import json

    return json.dumps(value)


def test_the_losses_are_those_that_the_trainer_compares_with():
    losses = readers("loss_type")
    assert list(losses)[:3] == ["sigmoid", "hinge", "ipo"]
    assert len(losses) == 15
    reading = {loss for loss, read in losses.items() if "label_smoothing" in read}
    assert reading == {"exo_pair", "robust", "aot", "aot_unpaired"}


@pytest.mark.parametrize("text", ["1e-6", "1.0e-6", "0.000001", "1E-06"])
def test_numbers_with_exponents_are_numbers(load, text):
    assert load(f"learning_rate: {text}").trl["learning_rate"] == 1e-6
    assert load("", f"learning_rate={text}").trl["learning_rate"] == 1e-6


def test_a_leading_zero_does_not_make_a_number_octal(load):
    assert load("max_seq_length: 0512").trl["max_length"] == 512


def test_yaml_booleans_stand_for_words_where_the_values_are_words(load):
    settings = load("eval_strategy: no\nsave_strategy: off\nprefix_sharing: off\n")
    assert settings.trl["eval_strategy"] == "no"
    assert settings.trl["save_strategy"] == "no"
    assert settings.prefix_sharing == "off"
    assert load("bf16: no").trl["bf16"] is False


def test_a_single_loss_or_path_is_a_list_of_one(load):
    assert load("loss_type: hinge").trl["loss_type"] == "hinge"
    assert load("metrics: m.py").metrics == ("m.py",)
    assert load("", "dataset_path=[a.csv, b.csv]").dataset_path == ("a.csv", "b.csv")


def test_set_overrides_one_key_by_any_of_its_names(load):
    text = "batch_size: 4\nlora_r: 8\nbeta: 0.1\n"
    settings = load(text, "batch_size=2", "lora.r=4", "beta=1e-1")
    assert settings.trl["per_device_train_batch_size"] == 2
    assert settings.lora["r"] == 4
    settings = load("per_device_train_batch_size: 4\n", "batch_size=2")
    assert settings.trl["per_device_train_batch_size"] == 2
    assert load("beta: 0.1", "beta=0.2", "beta=0.3").trl["beta"] == 0.3


def test_two_names_of_one_option_are_refused_on_the_command_line_too(load, faults):
    assert faults("", "max_length=9", "max_seq_length=8") == [
        "--set max_length=9: max_length and max_seq_length (--set max_seq_length=8) are the same "
        "option; keep one"
    ]
    assert load("max_length: 9", "max_seq_length=8").trl["max_length"] == 8


def test_a_mapping_may_be_given_as_json_text(load):
    settings = load("""model_init_kwargs: '{"dtype": "bfloat16"}'""")
    assert settings.trl["model_init_kwargs"] == {"dtype": "bfloat16"}


def test_set_of_the_lora_group_replaces_the_group(load):
    assert load("lora_r: 8\nlora_alpha: 16\n", "lora=false").lora is None
    assert load("lora_r: 8\nlora_alpha: 16\n", "lora={r: 4}").lora == {"r": 4}


def test_options_that_agree_are_accepted_together(load):
    load("loss_type: robust\nlabel_smoothing: 0.1")
    load("label_smoothing: 0.0")
    load("padding_free: false")
    load("disable_dropout: false\nlora_dropout: 0.1")
    load("disable_dropout: true\nlora_dropout: 0")
    load("disable_dropout: true\nlora: false")


def test_settings_cannot_be_changed(load):
    settings = load("beta: 0.1")
    with pytest.raises(AttributeError):
        settings.model_path = "other"
    with pytest.raises(TypeError):
        settings.trl["beta"] = 1


def test_every_own_key_is_documented_with_its_meaning():
    table = key_table()
    for name, _, meaning in documented_keys():
        assert meaning
        assert f"| `{name}` |" in table
    assert "| `lora_r` | `lora.r` | 8 |" in table
    assert "| `overlength` | | truncate |" in table


@pytest.mark.parametrize("text", ["hub_token=hf_secret", "model_init_kwargs={token: hf_secret}"])
def test_a_token_on_the_command_line_is_in_no_place(load, text):
    settings = load("", text)
    assert "hf_secret" not in str(dict(settings.locations))

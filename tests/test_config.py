"""config: what a config means, --set, and how its errors are reported."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from configuring import error_lister, loader

from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError

ROOT = Path(__file__).parent.parent
# Each line repeats the one before it nine times.
ALIAS_BOMB = "run_name: &a [x, x]\n" + "".join(
    f"k{n}: &k{n} [{', '.join([f'*{name}'] * 9)}]\n"
    for n, name in enumerate(("a", *(f"k{n}" for n in range(8))))
)


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


@pytest.fixture
def errors(tmp_path):
    return error_lister(tmp_path)


def test_the_sample_config_loads():
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


def test_fields_of_trl_and_peft_keep_their_names(load):
    settings = load("weight_decay: 0.1\nloss_type: [sigmoid, sft]\nlora:\n  use_dora: true\n")
    assert settings.trl["weight_decay"] == 0.1
    assert settings.trl["loss_type"] == ["sigmoid", "sft"]
    assert settings.lora["use_dora"] is True
    assert settings.option("warmup_steps") == 0


@pytest.mark.parametrize("text", ["1e-6", "1E-06"])
def test_numbers_with_exponents_are_numbers(load, text):
    assert load(f"learning_rate: {text}").trl["learning_rate"] == 1e-6
    assert load("", f"learning_rate={text}").trl["learning_rate"] == 1e-6


def test_a_leading_zero_does_not_make_a_number_octal(load):
    assert load("max_seq_length: 0512").trl["max_length"] == 512


def test_a_date_is_text(load):
    settings = load("project: 2024-01-01\nreport_to: all\nmodel_init_kwargs: {x: 2024-01-01}")
    assert settings.trl["project"] == "2024-01-01"
    assert settings.trl["model_init_kwargs"] == {"x": "2024-01-01"}


def test_a_deprecated_name_of_trl_stands_for_its_new_name(load):
    settings = load("gradient_checkpointing: true\ngradient_checkpointing_kwargs: {debug: true}")
    assert settings.trl == {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"debug": True},
    }
    assert settings.where("activation_checkpointing").endswith(":4: gradient_checkpointing")


def test_yaml_booleans_are_words_where_a_key_takes_words(load):
    settings = load("eval_strategy: no\nsave_strategy: off\nprefix_sharing: off\nbf16: no\n")
    assert settings.trl["eval_strategy"] == "no"
    assert settings.trl["save_strategy"] == "no"
    assert settings.prefix_sharing == "off"
    assert settings.trl["bf16"] is False


def test_a_single_word_is_accepted_for_a_list(load):
    assert load("loss_type: hinge").trl["loss_type"] == "hinge"
    assert load("metrics: m.py").metrics == ("m.py",)
    assert load("", "dataset_path=[a.csv, b.csv]").dataset_path == ("a.csv", "b.csv")


def test_report_to_null_means_none(load):
    assert load("report_to: null").option("report_to") == "none"


def test_set_overrides_a_key_under_any_of_its_names(load):
    settings = load(
        "batch_size: 4\nlora_r: 8\nbeta: 0.1\n", "batch_size=2", "lora.r=4", "beta=1e-1"
    )
    assert settings.trl["per_device_train_batch_size"] == 2
    assert settings.lora["r"] == 4
    settings = load("per_device_train_batch_size: 4\n", "batch_size=2")
    assert settings.trl["per_device_train_batch_size"] == 2
    assert load("beta: 0.1", "beta=0.2", "beta=0.3").trl["beta"] == 0.3
    assert load("max_length: 9", "max_seq_length=8").trl["max_length"] == 8


def test_set_of_the_lora_group_replaces_the_group(load):
    assert load("lora_r: 8\nlora_alpha: 16\n", "lora=false").lora is None
    assert load("lora_r: 8\nlora_alpha: 16\n", "lora={r: 4}").lora == {"r": 4}


@pytest.mark.parametrize("text", ["hub_token=hf_secret", "model_init_kwargs={token: hf_secret}"])
def test_a_token_on_the_command_line_is_in_no_location(load, text):
    assert "hf_secret" not in str(dict(load("", text).locations))


def test_all_errors_are_reported_at_once_in_the_order_of_their_lines(errors):
    lines = errors(
        "bta: 0.1\nbeta: -1\nwarmup_ratio: 0.1\nseed: 1.5\nsave_strategy: stps\neval_steps: 5\n"
        "lora_r: 0\nload_in_4bit: true\nlora: false\nbeta: 1\n",
        "lr=1",
        "nothing",
    )
    assert lines == [
        "config.yaml:4: bta: unknown key; did you mean 'beta'?",
        "config.yaml:5: beta: -1 is out of range; it must be above 0",
        "config.yaml:6: warmup_ratio: not a key of this command; use warmup_steps, where a value "
        "below 1 is a share of all steps",
        "config.yaml:7: seed: an integer expected, found 1.5",
        "config.yaml:8: save_strategy: 'stps' is unknown; did you mean 'steps'? "
        "known: no, steps, epoch, best",
        "config.yaml:9: eval_steps: no effect without eval_strategy: steps; set it, or remove the "
        "key",
        "config.yaml:10: lora_r: 0 is out of range; write lora: false to train full weights",
        "config.yaml:10: lora_r: no effect without lora: true; set it, or remove the key",
        "config.yaml:11: load_in_4bit: true needs lora: true; quantized weights cannot be trained "
        "themselves",
        "config.yaml:13: duplicate key 'beta', first in line 5; remove one",
        "--set lr=1: lr: not a key of this command; use learning_rate",
        "--set nothing: KEY=VALUE expected",
    ]


def test_errors_of_set_are_reported_in_its_order(errors):
    overrides = ("bta=1", "beta=x", "nope", "lora={r: 1, r: 2}", "lora.r=", "a.b=c")
    assert errors("", *overrides, "max_length=9", "max_seq_length=8") == [
        "--set bta=1: bta: unknown key; did you mean 'beta'?",
        "--set beta=x: beta: a number expected, found the text 'x'",
        "--set nope: KEY=VALUE expected",
        "--set lora={r: 1, r: 2}: duplicate key 'r', first in line 1; remove one",
        "--set lora.r=: lora.r: an integer expected, found nothing",
        "--set a.b=c: a.b: unknown key; no key has a similar name; remove it",
        "--set max_length=9: max_length: the same option as max_seq_length (--set "
        "max_seq_length=8); keep one",
    ]


def test_missing_keys_are_named(errors):
    assert [line.partition(";")[0] for line in errors("beta: 0.1", whole=True)] == [
        f"config.yaml: required key '{name}' is missing"
        for name in ("model_path", "dataset_path", "output_dir")
    ]


def test_an_invalid_value_causes_no_second_error(errors):
    assert len(errors("eval_strategy: stps\neval_steps: 5")) == 1
    assert len(errors("loss_type: sigmod\nlabel_smoothing: 0.1\nloss_weights: [1.0, 2.0]")) == 1
    assert len(errors("lora: 8\nlora_r: 8")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; write at least model_path, dataset_path and output_dir"),
        ("# nothing\n", "empty"),
        ("- a\n- b\n", "not a mapping; write lines of `key: value`"),
        ("just words", "not a mapping"),
        ("a: [1", "config.yaml:1: not valid YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2", "config.yaml:2: not valid YAML"),
        ("a: 1\n--- \nb: 2", "not valid YAML"),
        ("a: *nope", "config.yaml:1: not valid YAML: found undefined alias 'nope'"),
        ("beta: " + "[" * 3000, "config.yaml: nested too deeply to be read"),
    ],
)
def test_a_file_that_is_not_a_config_is_refused_in_one_line(errors, text, message):
    lines = errors(text, whole=True)
    assert len(lines) == 1
    assert message in lines[0]


def test_a_path_that_cannot_be_read_is_refused(tmp_path):
    for path, reason in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=reason):
            load_settings(str(path))
    (tmp_path / "latin.yaml").write_bytes("model_path: caf\xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(str(tmp_path / "latin.yaml"))


def test_aliases_that_multiply_do_not_slow_the_check(errors):
    started = time.perf_counter()
    (error,) = errors(f"{ALIAS_BOMB}label_names: *k8")
    assert "expand to too much" in error
    assert time.perf_counter() - started < 1


def test_errors_are_reported_in_two_seconds_and_before_torch_is_imported(tmp_path):
    (tmp_path / "bad.yaml").write_text("bta: 1\nbeta: -1\n")
    code = (
        "import sys\nfrom dpo_wrap.train import main\n"
        f"status = main([{str(tmp_path / 'bad.yaml')!r}])\n"
        "heavy = {'torch', 'trl', 'transformers', 'peft', 'datasets'} & set(sys.modules)\n"
        "print(status, sorted(heavy))\n"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - started < 2
    assert done.stdout == "2 []\n"
    assert len(done.stderr.splitlines()) == 5

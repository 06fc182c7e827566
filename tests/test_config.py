"""dpo_wrap.config: what a config means, and all its faults at once, before torch is imported."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpo_wrap.config import documented_keys, key_table, load_settings, own_fields
from dpo_wrap.errors import ConfigError
from dpo_wrap.keys import RANGES, READ_WITH, REFUSED_VALUES, REMOVED, SHORT_NAMES, WITHOUT_EFFECT
from dpo_wrap.schema import UNKNOWN_DEFAULT, lora_fields, loss_readers, trl_fields

ROOT = Path(__file__).parent.parent
NEEDED = "model_path: base\ndataset_path: pairs.csv\noutput_dir: out\n"


@pytest.fixture
def load(tmp_path):
    """Settings of a config text, which follows NEEDED unless it is whole."""

    def read(text, *overrides, whole=False):
        path = tmp_path / "config.yaml"
        path.write_text(text if whole else NEEDED + text, "utf-8")
        return load_settings(str(path), overrides)

    return read


@pytest.fixture
def faults(load, tmp_path):
    """The lines of the refusal, without the folder that the file lies in."""

    def read(text, *overrides, whole=False):
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides, whole=whole)
        assert caught.value.status == 2
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return read


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
    losses = loss_readers()
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


def test_set_of_the_lora_group_replaces_the_group(load):
    assert load("lora_r: 8\nlora_alpha: 16\n", "lora=false").lora is None
    assert load("lora_r: 8\nlora_alpha: 16\n", "lora={r: 4}").lora == {"r": 4}


def test_all_faults_of_a_file_are_shown_at_once_with_their_lines(faults):
    lines = faults(
        "bta: 0.1\nbeta: -1\nwarmup_ratio: 0.1\nseed: 1.5\nsave_strategy: stps\n", "lr=1", "nothing"
    )
    assert lines == [
        "config.yaml:4: key 'bta' is unknown; did you mean 'beta'?",
        "config.yaml:5: beta: -1 is out of range; it must be above 0",
        "config.yaml:6: key 'warmup_ratio' no longer exists; use warmup_steps, where a value "
        "below 1 is a share of all steps",
        "config.yaml:7: seed: an integer expected, found 1.5",
        "config.yaml:8: save_strategy: 'stps' is unknown; did you mean 'steps'? "
        "known: no, steps, epoch, best",
        "--set lr=1: key 'lr' no longer exists; use learning_rate",
        "--set nothing: KEY=VALUE expected",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learnin_rate: 1", "key 'learnin_rate' is unknown; did you mean 'learning_rate'?"),
        ("lora:\n  alpha: 3", "key 'lora.alpha' is unknown; did you mean 'lora.lora_alpha'?"),
        ("target_modules: [a]", "write it under lora:"),
        ("lora:\n  beta: 1", "write 'beta' at top level"),
        ("training:\n  beta: 1", "key 'training' is unknown"),
        ("zzzz: 1", "neither TRL's DPOConfig nor this wrapper has one like it"),
        ("1: 2", "key '1' is unknown"),
        ("rpo_alpha: 1", "loss_type: [sigmoid, sft]"),
        ("evaluation_strategy: steps", "use eval_strategy"),
        ("max_prompt_length: 5", "use max_length"),
        ("overwrite_output_dir: true", "--resume never"),
        ("beta: 0.1\nbeta: 0.2", "key 'beta' stands twice, first in line 4; remove one"),
        ("lora:\n  r: 1\n  r: 2", "key 'r' stands twice, first in line 5"),
        ("model_init_kwargs:\n  a: 1\n  a: 2", "key 'a' stands twice"),
        ("batch_size: 1\nper_device_train_batch_size: 1", "are the same option; keep one"),
        ("max_seq_length: 9\nmax_length: 9", "are the same option; keep one"),
        ("num_epochs: 1\nnum_train_epochs: 1", "are the same option; keep one"),
        ("lora_r: 8\nlora:\n  r: 8", "lora.r and lora_r (config.yaml:4) are the same option"),
        ("beta: high", "a number expected, found the text 'high'"),
        ('beta: "0.1"', "found the text '0.1'; remove the quotes"),
        ("beta: .nan", "a finite number expected"),
        ("beta: 1e999", "a finite number expected"),
        ("beta: null", "a number expected, found nothing"),
        ("beta: [1]", "a number expected, found a list"),
        ("beta: 0", "0 is out of range; it must be above 0"),
        ("batch_size: 0", "0 is out of range; it must be at least 1"),
        ("batch_size: 4.0", "an integer expected, found 4.0"),
        ("batch_size: true", "an integer expected, found true"),
        ("learning_rate: 0", "out of range; it must be above 0"),
        ("lora_dropout: 1.0", "it must be at least 0 and below 1"),
        ("max_steps: 0", "it must be at least 1 or -1"),
        ("lora_r: 0", "write lora: false to train full weights"),
        ("lora: 8", "a mapping of peft.LoraConfig's fields, true or false expected"),
        ("lora:", "a mapping of peft.LoraConfig's fields, true or false expected"),
        ("bf16: maybe", "true or false expected, found the text 'maybe'"),
        ("run_name: on", "text expected, found true; put the word in quotes"),
        ("run_name: 2024-01-01", "text expected, found the date 2024-01-01; put it in quotes"),
        ("run_name: 7", "text expected, found 7; put it in quotes"),
        ("loss_type: sigmod", "'sigmod' is unknown; did you mean 'sigmoid'?"),
        ("loss_type: [sigmoid, nope]", "'nope' is unknown"),
        ("lr_scheduler_type: cosin", "did you mean 'cosine'?"),
        ("optim: adamw_torc", "did you mean 'adamw_torch'?"),
        ("lora:\n  bias: some", "known: none, all, lora_only"),
        ("overlength: cut", "known: truncate, drop, error"),
        ("prefix_sharing: on", "on is not available in this version; write auto or off"),
        ("padding_free: true", "it would have no effect: TRL's DPOTrainer has switched it off"),
        ("resume_from_checkpoint: x", "use --resume PATH"),
        ("train_sampling_strategy: group_by_length", "have no length"),
        ("lora:\n  inference_mode: true", "it freezes the adapter"),
        ("label_smoothing: 0.1", "no effect with loss_type sigmoid; only exo_pair, robust, aot"),
        ("discopop_tau: 0.1", "no effect with loss_type sigmoid; only discopop read it"),
        ("loss_type: exo_pair", "exo_pair needs label_smoothing above 0"),
        ("lora: false\nlora_r: 8", "lora_r has no effect under lora: false (config.yaml:4)"),
        ("lora: false\nadapter_path: a", "adapter_path is refused beside lora: false"),
        ("disable_dropout: true\nlora_dropout: 0.1", "would switch off lora_dropout too"),
        ("metrics: ['']", "metrics: empty"),
        ("z: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("loss_type: []", "loss_type: empty; name at least one loss"),
        ("lora:\n  peft_type: IA3", "lora.peft_type: it would have no effect"),
        (f"batch_size: {10**30}", "is out of range; it must be below 2**63"),
    ],
)
def test_a_fault_says_what_is_wrong_and_the_mend(faults, text, said):
    lines = faults(text)
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert lines[0].startswith("config.yaml:")


def test_options_that_agree_are_accepted_together(load):
    load("loss_type: robust\nlabel_smoothing: 0.1")
    load("label_smoothing: 0.0")
    load("padding_free: false")
    load("disable_dropout: false\nlora_dropout: 0.1")
    load("disable_dropout: true\nlora_dropout: 0")
    load("disable_dropout: true\nlora: false")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; write at least model_path, dataset_path and output_dir"),
        ("# nothing\n", "empty"),
        ("- a\n- b\n", "not a mapping; write lines of `key: value`"),
        ("just words", "not a mapping"),
        ("a: [1", "config.yaml:1: not valid YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2", "config.yaml:2: not valid YAML"),
        ("a: 1\n--- \nb: 2", "not valid YAML"),
        ("beta: " + "[" * 3000, "config.yaml: nested too deeply to be read"),
    ],
)
def test_a_file_that_is_no_config_is_one_clear_line(faults, text, said):
    lines = faults(text, whole=True)
    assert len(lines) == 1
    assert said in lines[0]


def test_missing_keys_are_named(faults):
    lines = faults("beta: 0.1", whole=True)
    assert [line.partition(";")[0] for line in lines] == [
        f"config.yaml: required key '{name}' is missing"
        for name in ("model_path", "dataset_path", "output_dir")
    ]


def test_the_nearest_key_is_named_whatever_the_case(faults):
    lines = faults("Beta: 1\nMODEL_PATH: x\nLoRA: false")
    assert [line.rpartition("did you mean ")[2] for line in lines] == [
        "'beta'?",
        "'model_path'?",
        "'lora'?",
    ]


def test_a_figure_to_choose_the_best_checkpoint_by_must_be_one_of_the_trainers(load, faults):
    for name in ("loss", "eval_loss", "rewards/accuracies", "eval_rewards/margins"):
        assert load(f"metric_for_best_model: {name}").trl["metric_for_best_model"] == name
    assert faults("metric_for_best_model: eval_accuracies") == [
        "config.yaml:4: metric_for_best_model: 'eval_accuracies' is unknown; did you mean "
        "'eval_rewards/accuracies'?"
    ]


def test_a_key_that_another_keeps_from_being_read_is_refused(load, faults):
    assert faults(
        "eval_steps: 5\nsave_steps: 5\nsave_strategy: epoch\nref_model_sync_steps: 9"
    ) == [
        "config.yaml:4: eval_steps has no effect without eval_strategy: steps; set it, or remove "
        "the key",
        "config.yaml:5: save_steps has no effect without save_strategy: steps; set it, or remove "
        "the key",
        "config.yaml:7: ref_model_sync_steps has no effect without sync_ref_model: true; set it, "
        "or remove the key",
    ]
    load("eval_strategy: steps\neval_steps: 5\nsave_steps: 5\nlogging_steps: 3")


def test_biases_that_would_move_the_reference_are_refused(load, faults):
    assert load("lora:\n  bias: none").lora == {"bias": "none"}
    for bias in ("all", "lora_only"):
        assert "so the reference would move with the policy" in faults(f"lora:\n  bias: {bias}")[0]


def test_a_path_that_is_no_file_is_one_clear_line(tmp_path):
    for path, said in ((tmp_path / "no.yaml", "no such file"), (tmp_path, "a directory")):
        with pytest.raises(ConfigError, match=said):
            load_settings(str(path))
    (tmp_path / "latin.yaml").write_bytes("model_path: caf\xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(str(tmp_path / "latin.yaml"))


def test_settings_cannot_be_changed(load):
    settings = load("beta: 0.1")
    with pytest.raises(AttributeError):
        settings.model_path = "other"
    with pytest.raises(TypeError):
        settings.trl["beta"] = 1


def test_a_refusal_comes_within_two_seconds_and_before_torch_is_imported(tmp_path):
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


def test_every_key_of_the_tables_exists_or_is_gone():
    for name in (*RANGES, *WITHOUT_EFFECT, *READ_WITH, *(key for key, _ in REFUSED_VALUES)):
        assert name in trl_fields() or name.removeprefix("lora.") in lora_fields(), name
    for full, _ in SHORT_NAMES.values():
        assert full in trl_fields() or full.removeprefix("lora.") in lora_fields(), full
    assert not set(REMOVED) & (set(trl_fields()) | set(own_fields()[0]) | set(SHORT_NAMES))


def test_every_own_key_is_documented_with_its_meaning():
    table = key_table()
    for name, _, meaning in documented_keys():
        assert meaning
        assert f"| `{name}` |" in table
    assert "| `lora_r` | `lora.r` | 8 |" in table
    assert "| `overlength` | | truncate |" in table

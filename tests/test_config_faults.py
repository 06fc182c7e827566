"""config: every fault of a file at once, in lines that say what is wrong and the mend."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from configuring import loader, refuser

from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError

ROOT = Path(__file__).parent.parent
BOMB = ("a", *(f"k{n}" for n in range(8)))


@pytest.fixture
def load(tmp_path):
    return loader(tmp_path)


@pytest.fixture
def faults(tmp_path):
    return refuser(tmp_path)


def test_what_is_wrong_with_set_is_said_in_its_order(faults):
    assert faults("", "bta=1", "beta=x", "nope", "lora={r: 1, r: 2}", "lora.r=", "a.b=c") == [
        "--set bta=1: key 'bta' is unknown; did you mean 'beta'?",
        "--set beta=x: beta: a number expected, found the text 'x'",
        "--set nope: KEY=VALUE expected",
        "--set lora={r: 1, r: 2}: key 'r' stands twice",
        "--set lora.r=: lora.r: an integer expected, found nothing",
        "--set a.b=c: key 'a.b' is unknown; neither TRL's DPOConfig nor this wrapper has one like "
        "it",
    ]


def test_aliases_that_multiply_do_not_hold_the_check_up(faults):
    bomb = "run_name: &a [x, x]\n"
    bomb += "".join(f"k{n}: &k{n} [{', '.join([f'*{k}'] * 9)}]\n" for n, k in enumerate(BOMB))
    started = time.perf_counter()
    assert len(faults(f"{bomb}debug: *k8")) == 10
    assert time.perf_counter() - started < 1


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
        "--set lr=1: key 'lr' is none of this command's; use learning_rate",
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
        ("prefix_sharing: maybe", "known: auto, on, off"),
        ("padding_free: true", "it would have no effect: TRL's DPOTrainer has switched it off"),
        ("resume_from_checkpoint: x", "use --resume PATH"),
        (
            "train_sampling_strategy: batch_rebalance",
            "refused: it makes batches of unequal",
        ),
        ("length_column_name: n", "the rows' lengths are counted here, whatever the name"),
        ("lora:\n  inference_mode: true", "it freezes the adapter"),
        ("label_smoothing: 0.1", "no effect with loss_type: sigmoid; only exo_pair, robust, aot"),
        ("discopop_tau: 0.1", "no effect with loss_type: sigmoid; only discopop read it"),
        ("loss_type: exo_pair", "exo_pair needs label_smoothing above 0"),
        ("lora: false\nlora_r: 8", "lora_r has no effect under lora: false (config.yaml:4)"),
        (
            "lora: false\nadapter_path: a",
            "adapter_path needs lora: true; it is the adapter",
        ),
        ("disable_dropout: true\nlora_dropout: 0.1", "would switch off lora_dropout too"),
        ("metrics: ['']", "metrics: empty"),
        (
            "z: !!python/object/apply:os.system [ls]",
            "!!python/object/apply:os.system is refused",
        ),
        ("loss_type: []", "loss_type: empty; name at least one loss"),
        ("lora:\n  peft_type: IA3", "lora.peft_type: it would have no effect"),
        (f"batch_size: {10**30}", "is out of range; it must be below 2**63"),
        ("z: !foo 1", "z cannot be read: the tag !foo is refused; text, numbers, lists and mapp"),
        ("run_name: !!binary aGk=", "the tag !!binary is refused"),
        ("lora: !!python/object:x {r: 3}", "lora cannot be read: the tag !!python/object:x is"),
        ("<<: {beta: 1}", "merge keys (<<) are not read; write the keys out"),
        ("lora:\n  <<: {r: 4}", "merge keys (<<) are not read; write the keys out"),
        ("model_init_kwargs: &a {x: *a}", "cannot be read: found unconstructable recursive node"),
        ("beta: *nope", "not valid YAML: found undefined alias 'nope'"),
        ("beta: 1_000", "a number expected, found the text '1_000'"),
        ("beta: '" + "x" * 5000 + "'", "found the text '" + "x" * 79 + "..."),
        ("chat_template: ' '", "chat_template: empty; for conversational data"),
        ("lora: []", "a mapping of peft.LoraConfig's fields, true or false expected"),
        ("lora: 'off'", "a mapping of peft.LoraConfig's fields, true or false expected"),
        ("lora:\n  r: null", "lora.r: an integer expected, found nothing"),
        ("lora:\n  rank_pattern: {q: 0}", "lora.rank_pattern: 0 is out of range"),
        ("lora:\n  task_type: SEQ_CLS", "'SEQ_CLS' is unknown; known: CAUSAL_LM"),
        ("lora:\n  init_lora_weights: foo", "'foo' is unknown; known: gaussian, eva, olora"),
        ("lora:\n  init_lora_weights: pissa_niter_4", "it rewrites the base weights, so with the"),
        ("lora:\n  velora_config: {scal: 2}", "'scal' is unknown; known: num_groups, scale"),
        ("lora:\n  velora_config: {num_groups: a}", "num_groups: an integer expected, found the"),
        ("lora:\n  velora_config: 5", "lora.velora_config: a mapping expected"),
        ("lora:\n  arrow_config: {}", "refused: it routes between adapters"),
        ("parallelism_config: {tp_size: 2}", "refused: it takes an object that no YAML value"),
        ("enable_jit_checkpoint: true", "true is refused: a signal leaves a checkpoint without"),
        ("debug: underflow_overflow", "underflow_overflow is refused: it fails on the boolean"),
        ("loss_weights: [0]", "loss_weights: 0 is out of range; it must be above 0"),
        ("seed: -1", "it must be at least 0 and below 4294967296"),
        ("model_init_kwargs: words", "a mapping expected, found the text 'words'"),
        ("model_init_kwargs: '{a: 1'", "the text is not valid JSON; write a YAML mapping"),
        ("deepspeed: no.json", "'no.json' is no file; write a mapping, or the path of a JSON file"),
        ("accelerator_config: {split_batches: maybe}", "split_batches: true or false expected"),
        ("accelerator_config: {foo: 1}", "'foo' is unknown; known: split_batches"),
        ("gradient_checkpointing_kwargs: {foo: 1}", "'foo' is unknown; known: use_reentrant"),
        ("pad_to_multiple_of: words", "'words' is unknown; known: auto, none"),
        ("remove_unused_columns: false", "no effect: DPOTrainer picks the columns that it needs"),
        ("model_name_or_path: x", "is none of this command's; use model_path"),
    ],
)
def test_a_fault_says_what_is_wrong_and_the_mend(faults, text, said):
    lines = faults(text)
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert lines[0].startswith("config.yaml:")


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
    best = "eval_strategy: epoch\nmetric_for_best_model:"
    for name in ("loss", "eval_loss", "rewards/accuracies", "eval_rewards/margins"):
        assert load(f"{best} {name}").trl["metric_for_best_model"] == name
    assert faults(f"{best} eval_accuracies") == [
        "config.yaml:5: metric_for_best_model: 'eval_accuracies' is unknown; did you mean "
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


def test_a_key_without_effect_is_refused_for_that_whatever_its_value(faults):
    assert faults("resume_from_checkpoint: true\nremove_unused_columns: maybe\n") == [
        "config.yaml:4: resume_from_checkpoint: it would have no effect: use --resume PATH",
        "config.yaml:5: remove_unused_columns: it would have no effect: DPOTrainer picks the "
        "columns that it needs; remove it",
    ]


def test_no_tracker_may_be_spelled_as_null(load):
    assert load("report_to: null").option("report_to") == "none"

"""What eval refuses, and what stops it: one line on stderr and the exit status."""

import os
import shutil
import signal

import pytest
import yaml
from datasets import Dataset
from evaluating import SHORT, evaluated, keys_of, refused, run_of, write_pairs

from dpo_wrap import eval as eval_command


@pytest.fixture
def copied(trained, tmp_path):
    """The config of a copy of the trained run in tmp_path/run."""
    shutil.copytree(run_of(trained), tmp_path / "run")
    config = tmp_path / "config.yaml"
    keys = keys_of(trained) | {"output_dir": str(tmp_path / "run")}
    config.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return config


def change_tensors(config, change):
    from safetensors.torch import load_file, save_file

    file = run_of(config) / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def test_without_a_finished_run_the_train_command_is_named(trained, tmp_path, capsys):
    error = refused(capsys, str(trained), "--set", f"output_dir={tmp_path}/none")
    assert "has no finished run; train it: python -m dpo_wrap.train" in error
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_run_json_that_is_not_complete_is_no_finished_run(copied, text, capsys):
    (run_of(copied) / "run.json").write_text(text)
    assert "has no finished run" in refused(capsys, str(copied), *SHORT)


def test_a_config_that_differs_from_the_runs_is_refused_with_its_keys(trained, capsys):
    error = refused(capsys, str(trained), "--set", "beta=0.5")
    assert "--set beta=0.5: beta is 0.5, but the run was trained with 0.1" in error
    error = refused(capsys, str(trained), "--set", "lora.r=3", "--set", "overlength=drop")
    assert "lora.r is 3, but the run was" in error and "overlength is 'drop', but" in error


def test_without_a_test_split_the_alternatives_are_named(trained, tmp_path, capsys):
    few = write_pairs(tmp_path / "few.jsonl", 2)
    error = refused(capsys, str(trained), "--dataset", str(few))
    assert "there is no test split" in error and "--split train" in error
    found = evaluated(trained, "--dataset", str(few), "--split", "train", "--samples", "0")
    assert (found["examples"], found["split"], found["dataset"]) == (2, "train", [str(few)])
    assert found["kl_per_sequence"] is None


def test_a_column_that_the_model_should_see_is_refused(trained, tmp_path, capsys):
    rows = [{"prompt": "1:x", "chosen": "a", "rejected": "d", "system": "Be brief."}]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "data"))
    error = refused(capsys, str(trained), "--dataset", str(tmp_path / "data"), "--split", "train")
    assert f"{tmp_path / 'data'}: the column 'system' has system texts that the model" in error


@pytest.mark.parametrize(
    "words, message",
    [
        (("--max-new-tokens", "0"), "out of range; it must be 1 to"),
        (("--seed", str(2**40)), "out of range; it must be 0 to"),
        (("--samples", "many"), "expected an integer, found 'many'"),
    ],
)
def test_a_number_out_of_range_is_a_usage_error(trained, words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        eval_command.main([str(trained), *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "path, message",
    [("/no/where", "--dataset '/no/where' does not exist"), ("", "--dataset: empty")],
)
def test_a_dataset_that_does_not_exist_is_refused(trained, path, message, capsys):
    assert message in refused(capsys, str(trained), "--dataset", path)


@pytest.mark.parametrize(
    ("against", "message"), [("/no/where", "no finished run there"), (None, "this is the same run")]
)
def test_against_takes_only_another_finished_run(trained, against, message, capsys):
    assert message in refused(capsys, str(trained), "--against", against or str(run_of(trained)))


def test_a_run_without_its_weights_is_refused(copied, capsys):
    (run_of(copied) / "adapter_model.safetensors").unlink()
    error = refused(capsys, str(copied))
    assert "its weights (*.safetensors) are missing; train again" in error


def test_incomplete_weights_are_refused(copied, capsys):
    change_tensors(copied, lambda tensors: dict(list(tensors.items())[1:]))
    assert "cannot be loaded" in refused(capsys, str(copied), "--samples", "0")


def test_nan_weights_fail_with_one_line(copied, capsys):
    change_tensors(copied, lambda tensors: {n: t * float("nan") for n, t in tensors.items()})
    assert eval_command.main([str(copied), "--samples", "0"]) == 1
    error = capsys.readouterr().err
    assert "pairs 1 to 4: log-probabilities are NaN or inf" in error and "Traceback" not in error
    assert not list(run_of(copied).glob("*.part"))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("size", [0, 40])
def test_a_truncated_tokenizer_is_refused(copied, name, size, capsys):
    file = run_of(copied) / name
    file.write_bytes(file.read_bytes()[:size])
    error = refused(capsys, str(copied), *SHORT)
    assert "its tokenizer cannot be loaded" in error and "train again" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_eval_with_a_line_and_status_1(trained, number, monkeypatch, capsys):
    from dpo_wrap.evaluation import evaluate

    run = run_of(trained)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.setattr(evaluate, "evaluate_run", lambda *_: os.kill(os.getpid(), number))
    capsys.readouterr()
    assert eval_command.main([str(trained)]) == 1
    assert capsys.readouterr().err == "stopped; run the same command again\n"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before

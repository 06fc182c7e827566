"""What eval refuses or is stopped by, each in a line and by its exit status."""

import os
import shutil
import signal

import pytest
import yaml
from datasets import Dataset
from evaluating import SHORT, evaluated, refused, run_of, write_pairs

from dpo_wrap import eval as eval_command


def spoiled(tmp_path, trained, change):
    """A copy of the trained run whose adapter's tensors were changed, and its config."""
    from safetensors.torch import load_file, save_file

    keys = yaml.safe_load(trained.read_text(encoding="utf-8"))
    shutil.copytree(keys["output_dir"], tmp_path / "run")
    file = tmp_path / "run/adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump(keys | {"output_dir": str(tmp_path / "run")}), encoding="utf-8"
    )
    return str(tmp_path / "c.yaml")


def test_without_a_finished_run_the_train_command_is_named(trained, tmp_path, capsys):
    error = refused(capsys, str(trained), "--set", f"output_dir={tmp_path}/none")
    assert "holds no finished run; train it: python -m dpo_wrap.train" in error
    assert not (tmp_path / "none").exists()


def test_a_config_that_is_not_the_runs_is_refused_by_its_keys(trained, capsys):
    error = refused(capsys, str(trained), "--set", "beta=0.5")
    assert "beta 0.5, trained with 0.1; train it anew" in error
    error = refused(capsys, str(trained), "--set", "lora.r=3", "--set", "overlength=drop")
    assert "lora.r 3, trained with" in error and "overlength 'drop', trained with" in error


def test_without_a_test_split_the_ways_on_are_named(trained, tmp_path, capsys):
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
    "words", [("--max-new-tokens", "0"), ("--seed", str(2**40)), ("--samples", "many")]
)
def test_a_number_that_cannot_be_is_a_fault_of_usage(trained, words, capsys):
    with pytest.raises(SystemExit) as ended:
        eval_command.main([str(trained), *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "out of range; it must be" in said or "an integer expected, found 'many'" in said


def test_another_dataset_that_does_not_exist_is_named_as_it_was_given(trained, capsys):
    assert "--dataset '/no/where' does not exist" in refused(
        capsys, str(trained), "--dataset", "/no/where"
    )


def test_a_run_without_its_weights_is_refused(trained, tmp_path, capsys):
    run = run_of(trained)
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/adapter_model.safetensors").unlink()
    error = refused(capsys, str(trained), "--set", f"output_dir={tmp_path}/run")
    assert "its weights (*.safetensors) are gone; train it again" in error


def test_weights_that_are_not_all_there_are_refused(trained, tmp_path, capsys):
    half = spoiled(tmp_path, trained, lambda tensors: dict(list(tensors.items())[1:]))
    assert "could not be loaded" in refused(capsys, half, "--samples", "0")


def test_weights_that_are_no_numbers_are_one_line(trained, tmp_path, capsys):
    bad = spoiled(
        tmp_path, trained, lambda tensors: {n: t * float("nan") for n, t in tensors.items()}
    )
    assert eval_command.main([bad, "--samples", "0"]) == 1
    said = capsys.readouterr().err
    assert "their log-probabilities are no numbers (NaN)" in said and "Traceback" not in said
    assert not list((tmp_path / "run").glob("*.part"))


def test_an_empty_dataset_is_a_fault_of_usage(trained, capsys):
    assert "--dataset: empty" in refused(capsys, str(trained), "--dataset", "")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_tokenizer_that_is_damaged_is_refused(trained, tmp_path, name, damage, capsys):
    shutil.copytree(run_of(trained), tmp_path / "run")
    file = tmp_path / "run" / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:40])
    error = refused(capsys, str(trained), "--set", f"output_dir={tmp_path}/run", *SHORT)
    assert "its tokenizer cannot be loaded" in error and "train it again" in error


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]"])
def test_a_run_json_that_is_not_whole_is_no_finished_run(trained, tmp_path, text, capsys):
    shutil.copytree(run_of(trained), tmp_path / "run")
    (tmp_path / "run/run.json").write_text(text)
    error = refused(capsys, str(trained), "--set", f"output_dir={tmp_path}/run", *SHORT)
    assert "holds no finished run" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_eval_with_a_line_and_status_1(trained, number, monkeypatch, capsys):
    from dpo_wrap.evaluation import evaluate as evaluation

    run = run_of(trained)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.setattr(evaluation, "evaluate_run", lambda *_: os.kill(os.getpid(), number))
    capsys.readouterr()
    assert eval_command.main([str(trained)]) == 1
    assert capsys.readouterr().err == "stopped; run the same command again\n"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before

"""The suspects command, and how it selects labels."""

import json
import os
import random
import signal

import numpy as np
import pandas as pd
import pytest
import yaml
from datasets import Dataset, DatasetDict, load_from_disk
from training import BAD, GOOD, runner

from data_tools.convert import main as convert
from dpo_wrap import run_dir
from dpo_wrap import suspects as command
from dpo_wrap.suspects import out_of_fold
from dpo_wrap.suspects.out_of_fold import concentrations, fold_of, suspects, threshold
from dpo_wrap.training import session


def table(margins):
    return pd.DataFrame({"reward_margin": margins, "row": range(len(margins))})


def test_the_threshold_is_the_mean_probability_of_the_labels():
    # sigmoid: 0.9, 0.8, 0.2, 0.1, in mean 0.5; the other label's 0.8 and 0.9 reach it.
    margins = [np.log(9), np.log(4), -np.log(4), -np.log(9)]
    assert threshold(table(margins)["reward_margin"]) == pytest.approx(0.5)
    found = suspects(table(margins))
    assert found["row"].tolist() == [3, 2]
    assert found["probability"].tolist() == pytest.approx([0.1, 0.2])


def test_a_pair_below_the_threshold_is_not_suspect():
    margins = [3.0] * 96 + [-0.2, -0.5, -2.9, -9.0]
    assert suspects(table(margins))["row"].tolist() == [99, 98]
    assert suspects(table([0.0] * 50)).empty  # of a policy that learned nothing


def test_groups_with_many_suspects_are_named():
    scored = table([2.0] * 80 + [-9.0] * 10 + [2.0] * 10).assign(
        source=[f"{'a.csv' if row < 80 else 'b.csv'}:{row}" for row in range(100)],
        team=["x", "y"] * 50,
        note=[str(row) for row in range(100)],
    )
    found = suspects(scored)
    (sentence,) = concentrations(scored, found, ["team", "note"])
    assert sentence.startswith("file b.csv: 10 of its 20 pairs are suspect")
    assert concentrations(scored, found[:2], []) == []  # fewer than the minimum of 3


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_wrong_labels_are_found_at_any_scale_of_the_margins(scale):
    draw = np.random.default_rng(0)
    margins = draw.normal(2, 0.7, size=1000)
    margins[:100] *= -1
    found = suspects(table(scale * margins))
    assert set(found["row"][:50]) <= set(range(100))
    assert 20 < len(found) <= 130


def test_all_pairs_of_a_prompt_are_in_one_fold_and_the_folds_have_equal_sizes():
    assert 450 < sum(fold_of(f"prompt {number}") for number in range(1000)) < 550
    for number in range(9):
        message = {"role": "user", "content": str(number)}
        assert fold_of([message]) == fold_of([dict(reversed(message.items()))])


WRONG = (9, 27, 41, 68, 86, 103)


def write_pairs(tmp_path):
    """Write 120 pairs in which good words are chosen, except in those with wrong labels."""
    draw = random.Random(0)
    rows = []
    for number in range(120):
        chosen, rejected = f" {draw.choice(GOOD)}.", f" {draw.choice(BAD)}."
        if number in WRONG:
            chosen, rejected = rejected, chosen
        rows.append({"prompt": f"Day {number}: it was", "chosen": chosen, "rejected": rejected})
        rows[-1]["team"] = "b" if number in WRONG or number % 10 == 0 else "a"
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def config(tiny_model_dir, tmp_path):
    keys = {
        "model_path": str(tiny_model_dir),
        "dataset_path": str(write_pairs(tmp_path)),
        "output_dir": str(tmp_path / "run"),
        "batch_size": 8,
        "num_epochs": 4,
        "learning_rate": 1e-2,
        "save_strategy": "no",
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_wrong_labels_are_listed_and_convert_excludes_them(config, tmp_path, capsys):
    raw, data, run = tmp_path / "pairs.jsonl", tmp_path / "data", tmp_path / "run"
    assert convert([str(raw), "-o", str(data), "--keep", "team"]) == 0
    assert command.main([str(config), "--set", f"dataset_path={data}"]) == 0
    printed = capsys.readouterr().out
    found = lines(run / "suspects.jsonl")
    planted = {f"{raw}:{number + 1}" for number in WRONG}
    assert len(found) >= 3 and {record["source"] for record in found} <= planted
    assert [r["reward_margin"] for r in found] == sorted(r["reward_margin"] for r in found)
    first = found[0]
    record = lines(raw)[int(first["source"].rpartition(":")[2]) - 1]
    assert {name: first[name] for name in record} == record
    scored = pd.read_parquet(run / "out_of_fold.parquet")
    assert len(scored) == 120 and scored["source"].is_unique
    assert len(planted & set(scored.nsmallest(6, "reward_margin")["source"])) >= 5
    assert set(scored["split"]) == {"train", "test"}
    assert (scored["team"] == "b").sum() == len(WRONG) + 12
    crowd = f"team b: {len(found)} of its 18 pairs are suspect"
    for words in (f"{len(found)} suspect", "--exclude-rows", f"! {crowd}", "step 0"):
        assert words in printed
    assert "next: python -m dpo_wrap.eval" not in printed
    assert json.loads((run / "suspects.json").read_text())["crowds"][0].startswith(crowd)
    # The runs and the data of the folds are removed.
    names = {"suspects.jsonl", "suspects.json", "out_of_fold.parquet"}
    assert {path.name for path in run.iterdir()} == names
    words = ["--exclude-rows", str(run / "suspects.jsonl"), "-o", str(tmp_path / "fixed")]
    assert convert([str(raw), *words]) == 0
    report = json.loads((tmp_path / "fixed/report.json").read_text())
    assert report["reasons"] == {"excluded": len(found)}


def test_no_policy_scores_a_pair_that_it_was_trained_on(config, tmp_path, monkeypatch):
    trained, scored = [], []

    def train(settings, resume, stop, brief):
        trained.append(set(load_from_disk(settings.dataset_path[0])["train"]["prompt"]))
        assert brief and resume == "auto" and settings.option("num_train_epochs") == 8

    def evaluate_run(settings, request):
        rows = load_from_disk(settings.dataset_path[0])[request.split]
        scored.append((request.split, set(rows["prompt"])))
        columns = {"row": range(len(rows)), "source": rows["source"], "reward_margin": 1.0}
        examples = pd.DataFrame(columns | {"chosen_tokens": 1, "rejected_tokens": 1})
        return type("Evaluation", (), {"examples": examples})

    monkeypatch.setattr(out_of_fold, "run_session", train)
    monkeypatch.setattr(out_of_fold, "evaluate_run", evaluate_run)
    monkeypatch.setattr(out_of_fold, "run_settings", lambda settings, _: settings)
    assert command.main([str(config)]) == 0
    (_, first), (_, test), (_, second), (_, again) = scored
    assert trained[0].isdisjoint(first | test) and trained[1].isdisjoint(second | again)
    assert trained[0] == second and trained[1] == first and test == again


def test_an_interrupted_command_is_resumed_by_the_same_command(
    config, tmp_path, monkeypatch, capsys
):
    whole, runs, run = session.run_session, [], tmp_path / "run"

    def incomplete(data, folder):
        (run / folder / "train").mkdir(parents=True)
        raise KeyboardInterrupt

    def without_run_json(*_):  # the weights are saved
        raise KeyboardInterrupt

    def stopped_in_fold_2(*words, **more):
        runs.append(words[0].output_dir[-1])
        if runs[-1] == "2":
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*words, **more)

    for module, name, interrupted in (
        (DatasetDict, "save_to_disk", incomplete),
        (run_dir, "finish", without_run_json),
        (out_of_fold, "run_session", stopped_in_fold_2),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, interrupted)
            assert command.main([str(config)]) == 1
        assert "stopped; the same command resumes" in capsys.readouterr().err
    assert runs == ["1", "1", "2"]  # the run without run.json is removed and trained again
    assert not (run / "suspects.jsonl").exists()
    assert command.main([str(config)]) == 0
    assert "already finished with this config and these data" in capsys.readouterr().out
    assert (run / "suspects.jsonl").exists()


def test_a_finished_run_keeps_its_weights_and_its_page_shows_the_suspects(tiny_model_dir, tmp_path):
    status, out = runner(tiny_model_dir, tmp_path)()
    assert status == 0
    before = (out / "adapter_model.safetensors").read_bytes()
    assert command.main([str(out / "config.resolved.yaml")]) == 0
    assert (out / "adapter_model.safetensors").read_bytes() == before
    found = lines(out / "suspects.jsonl")
    page = (out / "report.html").read_text("utf-8")
    assert ("Labels to look at" in page) == bool(found)
    assert not list(out.glob("suspects.part*"))


def test_refused_data_a_refused_config_and_a_launcher_leave_nothing(
    config, tmp_path, monkeypatch, capsys
):
    def refused(*words):
        assert command.main([str(config), *words]) == 2
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().err

    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    assert "no pair can be scored by a policy that was" in refused("--set", f"dataset_path={one}")
    rows = [{"prompt": f"Q{i}", "chosen": "a", "rejected": "b", "context": "Rome."} for i in "1234"]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "data"))
    error = refused("--set", f"dataset_path={tmp_path / 'data'}")
    assert "the column 'context' has context that the model would not" in error
    assert "nope" in refused("--set", "lora.target_modules=[nope]")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start it without a launcher" in refused()


def test_a_test_split_without_usable_rows_is_not_scored(config, tmp_path, capsys):
    rows = lines(write_pairs(tmp_path))
    long = [{"prompt": "p" * 100, "chosen": " a", "rejected": " b"}]
    splits = {"train": Dataset.from_list(rows), "test": Dataset.from_list(long)}
    DatasetDict(splits).save_to_disk(str(tmp_path / "data"))
    words = [f"dataset_path={tmp_path}/data", "overlength=drop", "max_seq_length=60"]
    options = [word for text in words for word in ("--set", text)]
    assert command.main([str(config), *options]) == 0
    assert "the test split is not scored: " in capsys.readouterr().out
    scored = pd.read_parquet(tmp_path / "run/out_of_fold.parquet")
    assert set(scored["split"]) == {"train"}

"""The eval command on small finished runs: its figures equal plain torch and TRL."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
import torch
from evaluating import (
    SHORT,
    evaluated,
    figures_of,
    keys_of,
    lines_of,
    run_of,
    train_run,
    write_lines,
    write_pairs,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dpo_wrap.evaluation import evaluate, models


def log_ratio_of(config: Path):
    """A function (prompt ids, answer ids) -> log-ratio of the answer, by model calls alone."""
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(keys_of(config)["model_path"])
    policy = PeftModel.from_pretrained(base, run_of(config)).eval()

    def logp(prompt, answer):
        with torch.no_grad():
            scores = policy(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return sum(scores[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))

    def log_ratio(prompt, answer):
        ours = logp(prompt, answer)
        with policy.disable_adapter():
            return ours - logp(prompt, answer)

    return log_ratio


def test_the_figures_equal_a_computation_one_sequence_at_a_time(trained):
    from datasets import load_from_disk

    found = evaluated(trained, "--samples", "3")
    rows = list(load_from_disk(str(run_of(trained) / "dataset"))["test"])
    tokenizer, log_ratio = AutoTokenizer.from_pretrained(run_of(trained)), log_ratio_of(trained)

    def ids(text):
        return tokenizer(text)["input_ids"]

    chosen, rejected = (
        [log_ratio(ids(row["prompt"]), ids(row[side] + tokenizer.eos_token)) for row in rows]
        for side in ("chosen", "rejected")
    )
    margins = [0.1 * (c - r) for c, r in zip(chosen, rejected, strict=True)]
    assert found["examples"] == len(rows) >= 3
    assert found["steps"] == json.loads((run_of(trained) / "run.json").read_text())["steps"]
    assert {"tone": "warning", "text": found["caution"]} in found["findings"]
    assert abs(found["reward_margin"]) > 0.05, "a run that has not moved compares nothing"
    assert found["chosen_log_ratio"] == pytest.approx(sum(chosen) / len(chosen), abs=1e-4)
    assert found["rejected_log_ratio"] == pytest.approx(sum(rejected) / len(rejected), abs=1e-4)
    assert found["reward_margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)
    assert found["reward_accuracy"] == sum(m > 0 for m in margins) / len(margins)
    low, high = found["reward_accuracy_interval"]
    assert 0 <= low <= found["reward_accuracy"] <= high <= 1
    table = pandas.read_parquet(run_of(trained) / "examples.parquet")
    assert table["source"].tolist() == [row["source"] for row in rows]
    assert table["chosen_log_ratio"].tolist() == pytest.approx(chosen, abs=1e-4)
    assert table["reward_margin"].tolist() == pytest.approx(margins, abs=1e-4)
    assert table["policy_answer_tokens"].notna().sum() == 3
    likelier = table["reference_chosen_logps"] > table["reference_rejected_logps"]
    assert found["baselines"]["reference"]["accuracy"] == pytest.approx(likelier.mean())
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in rows]
    assert found["baselines"]["longer"]["accuracy"] == sum(longer) / len(rows)
    assert found["calibration"]["log_loss"] == pytest.approx(
        sum(math.log1p(math.exp(-m)) for m in margins) / len(margins), abs=1e-4
    )


def test_kl_and_endings_equal_a_computation_one_answer_at_a_time(trained, monkeypatch):
    sample_answers, drawn = models.sample_answers, []

    def recorded(*arguments):
        drawn.extend(sample_answers(*arguments))
        return drawn

    monkeypatch.setattr(evaluate, "sample_answers", recorded)
    found = evaluated(trained, "--samples", "6", "--max-new-tokens", "12")
    log_ratio = log_ratio_of(trained)
    ratios = [log_ratio(one.prompt_ids, one.policy_ids) for one in drawn]
    tokens = sum(len(one.policy_ids) for one in drawn)
    assert len(drawn) == 6 and max(map(abs, ratios)) > 0.01
    assert found["kl_per_sequence"] == pytest.approx(sum(ratios) / 6, abs=1e-4)
    assert found["kl_per_token"] == pytest.approx(sum(ratios) / tokens, abs=1e-4)
    lengths = tokens / sum(len(one.reference_ids) for one in drawn)
    assert found["length_ratio"] == pytest.approx(lengths)
    assert found["eos_rate"]["policy"] == sum(one.policy_ids[-1] == 0 for one in drawn) / 6
    answers = [[token for token in one.policy_ids if token] for one in drawn]
    shares = [len(set(answer)) / len(answer) for answer in answers if answer]
    assert found["distinct_1"]["policy"] == pytest.approx(sum(shares) / len(shares))


def test_samples_are_of_the_whole_distribution_whatever_the_models_generation_config(trained):
    """Penalties, beams and forbidden tokens of a generation_config.json change no draw."""
    model = AutoModelForCausalLM.from_pretrained(keys_of(trained)["model_path"])
    args = SimpleNamespace(bf16=False, fp16=False, device=torch.device("cpu"))
    drawn = []
    for options in ({}, {"suppress_tokens": list(range(1, 200)), "num_return_sequences": 2}):
        model.generation_config = GenerationConfig()
        vars(model.generation_config).update(options)
        torch.manual_seed(0)
        drawn.append(models.draw_answers(model, [[5, 6], [7]], args, [0], 12, 0))
        assert model.generation_config.suppress_tokens == options.get("suppress_tokens")
    assert drawn[0] == drawn[1] and len(drawn[0]) == 2


def test_batch_size_changes_nothing_and_a_seed_repeats_the_samples(trained, monkeypatch):
    first = evaluated(trained, "--samples", "4", "--seed", "7")
    samples = (run_of(trained) / "samples.jsonl").read_bytes()
    assert evaluated(trained, "--samples", "4", "--seed", "7") == first
    assert (run_of(trained) / "samples.jsonl").read_bytes() == samples
    monkeypatch.setenv("HOME", str(run_of(trained).parent))
    options = ("--set", "per_device_eval_batch_size=1", "--set", "output_dir=~/run")
    alone = evaluated(trained, "--samples", "0", *options)
    for name in ("reward_accuracy", "reward_margin", "chosen_log_ratio", "rejected_log_ratio"):
        assert alone[name] == pytest.approx(first[name], abs=1e-4)


def assert_as_logged(found, run):
    """The figures equal those of the trainer's last evaluation."""
    logged = [line for line in lines_of(run / "metrics.jsonl") if "eval_loss" in line][-1]
    assert abs(found["reward_margin"]) > 0.003, "a run that has not moved compares nothing"
    assert found["reward_margin"] == pytest.approx(logged["eval_rewards/margins"], abs=1e-4)
    assert found["reward_accuracy"] == pytest.approx(logged["eval_rewards/accuracies"], abs=1e-6)
    chosen = 0.1 * found["chosen_log_ratio"]
    assert chosen == pytest.approx(logged["eval_rewards/chosen"], abs=1e-4)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"precompute_ref_log_probs": True},
        {"precompute_ref_log_probs": True, "lora": False, "lora_r": None, "learning_rate": 2e-3},
    ],
)
def test_the_figures_are_those_that_the_trainer_logs(tmp_path, tiny_model_dir, keys):
    data = write_pairs(tmp_path / "pairs.jsonl", 120)
    keys = {"eval_strategy": "epoch", "per_device_eval_batch_size": 64} | keys
    config = train_run(tmp_path, tiny_model_dir, data, **keys)
    assert_as_logged(evaluated(config, "--samples", "1"), tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl", "config.yaml", "run"}


@pytest.fixture(scope="module")
def of_two(tmp_path_factory, tiny_model_dir):
    """A finished run over two datasets: its config, and their paths."""
    folder = tmp_path_factory.mktemp("two")
    one = write_pairs(folder / "a.jsonl", 90)
    # Other prompts than the first dataset has, and swapped answers.
    swapped = [
        {"prompt": f"b{row['prompt']}", "chosen": row["rejected"], "rejected": row["chosen"]}
        for row in lines_of(one)[:40]
    ]
    paths = [str(one), str(write_lines(folder / "b.jsonl", swapped))]
    keys = {"dataset_path": paths, "eval_strategy": "epoch", "per_device_eval_batch_size": 64}
    return train_run(folder, tiny_model_dir, one, **keys), paths


@pytest.mark.parametrize("split", ["test", "train"])
def test_each_of_several_datasets_is_a_slice_with_the_figures_of_that_dataset(
    of_two, split, capsys
):
    config, paths = of_two
    words = ("--samples", "0", "--split", split)
    whole = evaluated(config, *words)
    out = capsys.readouterr().out
    if split == "test":
        assert_as_logged(whole, run_of(config))
    assert list(whole["slices"]) == paths
    assert whole["examples"] == sum(part["examples"] for part in whole["slices"].values())
    for path, part in whole["slices"].items():
        assert f"dataset {path}: {part['examples']} pairs, reward accuracy" in out
        assert part["examples"] > 0
        alone = evaluated(config, *words, "--dataset", path)
        assert alone["slices"] == {}
        for name, value in part.items():
            assert alone[name] == pytest.approx(value, abs=1e-5), name
    assert len({part["reward_margin"] for part in whole["slices"].values()}) == 2


def test_a_dataset_without_held_out_pairs_is_an_empty_slice(of_two, tmp_path, capsys):
    config, paths = of_two
    few = str(write_pairs(tmp_path / "few.jsonl", 2))
    found = evaluated(config, "--samples", "0", "--set", f"dataset_path=[{paths[0]}, {few}]")
    empty = found["slices"][few]
    assert (empty["examples"], empty["reward_accuracy"]) == (0, None)
    assert found["slices"][paths[0]]["examples"] == found["examples"]
    assert f"dataset {few}: no pairs in this split" in capsys.readouterr().out


def test_answers_are_cut_off_where_the_context_ends(trained, capsys):
    found = evaluated(trained, "--samples", "6", "--max-new-tokens", "124")
    note = (
        "leave no room for 124 new tokens in the model's context of 128, so their answers are cut"
    )
    (line,) = found["notes"]
    assert note in line and line in capsys.readouterr().err
    table = pandas.read_parquet(run_of(trained) / "examples.parquet").dropna()
    total = table["prompt_tokens"] + table["policy_answer_tokens"]
    assert len(table) == 6 and total.max() <= 128 and found["kl_per_sequence"] is not None
    assert evaluated(trained, "--samples", "6", "--max-new-tokens", "20")["notes"] == []


def nulls(value, path=""):
    """The path of each null of an object."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from nulls(inner, f"{path}{name}.")
        elif inner is None:
            yield f"{path}{name}"


@pytest.mark.parametrize(
    ("options", "known"),
    [
        (
            ("--samples", "0"),
            {
                "kl_per_sequence": "no answers were sampled (--samples 0)",
                "kl_per_sequence_interval": "no answers were sampled (--samples 0)",
                "eos_rate": "no answers were sampled (--samples 0)",
                "ceiling": "no conversion report has several judgements of a pair",
            },
        ),
        (
            ("--samples", "1", "--max-new-tokens", "1"),
            {
                "kl_per_sequence_interval": "an interval needs two prompts",
                "distinct_3.policy": "no answer has 3 tokens",
            },
        ),
    ],
)
def test_every_null_figure_has_its_reason(trained, capsys, options, known):
    found = evaluated(trained, "--max-new-tokens", "6", *options)
    assert found["reasons"].keys() == {path for path in nulls(found) if path != "caution"}
    assert "it is not defined for these data" not in found["reasons"].values()
    assert found["reasons"].items() >= known.items()
    assert "no first_answer: no conversion report says which" in capsys.readouterr().out


def test_the_reference_of_full_weights_is_the_model_before_training(tmp_path, tiny_model_dir):
    data = write_pairs(tmp_path / "pairs.jsonl", 120)
    keys = {"lora": False, "lora_r": None, "learning_rate": 1e-3}
    config = train_run(tmp_path, tiny_model_dir, data, **keys)
    assert abs(evaluated(config, "--samples", "0")["reward_margin"]) > 0.01
    # With the first weights policy and reference are one model.
    shutil.copy(tiny_model_dir / "model.safetensors", tmp_path / "run")
    same = evaluated(config, "--samples", "2")
    assert same["reward_margin"] == pytest.approx(0, abs=1e-6)
    assert same["kl_per_sequence"] == pytest.approx(0, abs=1e-4)
    assert same["ties"] == same["examples"]


def test_the_reference_of_a_continued_adapter_is_the_one_that_it_started_from(trained, tmp_path):
    keys = keys_of(trained)
    model, data = Path(keys["model_path"]), Path(keys["dataset_path"])
    options = {"adapter_path": keys["output_dir"], "learning_rate": 1e-9}
    found = evaluated(train_run(tmp_path, model, data, **options), "--samples", "2")
    assert found["reward_margin"] == pytest.approx(0, abs=1e-3)
    assert figures_of(trained)["reward_margin"] > 0.05  # against the base model


def test_a_run_that_kept_its_best_checkpoint_is_evaluated(tmp_path, tiny_model_dir):
    data = write_pairs(tmp_path / "pairs.jsonl", 60)
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    best = {"load_best_model_at_end": True, "early_stopping_patience": 9}
    figure = {"metric_for_best_model": "eval_rewards/accuracies", "push_to_hub": False}
    config = train_run(tmp_path, tiny_model_dir, data, **steps, **best, **figure)
    assert evaluated(config, "--samples", "2")["examples"] > 0


def test_kept_columns_group_the_pairs_and_reports_give_annotator_agreement(
    trained, tmp_path, capsys
):
    from data_tools.convert import main as convert

    rows = [
        {
            "prompt": f"{number}: xyz",
            "response_a": "abc" + "a" * (number % 5),
            "response_b": "def" + "d" * (number % 3),
            "annotator": name,
            "label": "b" if name == "bob" and number % 2 else "a",
            "batch": f"batch {number % 2}",
        }
        for number in range(24)
        for name in ("ann", "bob", "cleo")
    ]
    raw = write_lines(tmp_path / "judged.jsonl", rows)
    words = ["-o", str(tmp_path / "data"), "--test-size", "0.5", "--keep", "batch"]
    assert convert([str(raw), *words]) == 0
    found = evaluated(trained, "--samples", "0", "--dataset", str(tmp_path / "data"))
    batches = found["groups"]["batch"]
    assert batches.keys() == {"batch 0", "batch 1"}
    assert sum(group["examples"] for group in batches.values()) == found["examples"]
    assert found["first_answer"] == {"accuracy": 1.0, "pairs": found["examples"]}
    # All three agree on even rows; on odd ones bob alone meets a majority, and differs from it.
    assert found["ceiling"]["share"] == pytest.approx(36 / 48)
    out = capsys.readouterr().out
    assert "batch batch 1: " in out and "the ceiling" in out and "as shown" in out


def test_pairs_with_the_lowest_margins_are_reported_with_their_source(trained, tmp_path):
    rows = [{"prompt": f"{n}: q", "chosen": "fedfed", "rejected": "abcabc"} for n in range(6)]
    raw = write_lines(tmp_path / "swapped.jsonl", [row | {"note": "x"} for row in rows])
    found = evaluated(trained, "--samples", "0", "--dataset", str(raw), "--split", "train")
    pairs = found["against_label"]
    margins = [pair["reward_margin"] for pair in pairs]
    assert margins == sorted(margins) and len(pairs) >= 4 and margins[-1] < 0
    assert pairs[0]["source"].startswith(str(raw)) and pairs[0]["chosen"] == "fedfed"


def test_nothing_is_written_next_to_the_data(trained, tmp_path):
    from datasets import Dataset, DatasetDict

    rows = lines_of(run_of(trained).parent / "pairs.jsonl")
    # The second dataset's test split repeats training rows, which are dropped.
    splits = {"a": (rows[:40], rows[40:44]), "b": (rows[44:60], rows[:8])}
    for name, (some, others) in splits.items():
        both = {"train": Dataset.from_list(some), "test": Dataset.from_list(others)}
        DatasetDict(both).save_to_disk(str(tmp_path / name))
    before = sorted(tmp_path.rglob("*"))
    paths = f"dataset_path=[{tmp_path}/a, {tmp_path}/b]"
    evaluated(trained, "--split", "train", "--samples", "0", "--set", paths)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def weak(trained, tmp_path_factory):
    """A second run over the same pairs, which has moved less."""
    keys = keys_of(trained)
    model, data = Path(keys["model_path"]), Path(keys["dataset_path"])
    return train_run(tmp_path_factory.mktemp("weak"), model, data, max_steps=1, beta=0.2)


def test_against_compares_two_runs_pair_by_pair(trained, weak, capsys):
    evaluated(weak, *SHORT)
    before = (run_of(weak) / "eval.json").read_bytes()
    found = evaluated(trained, *SHORT, "--against", str(run_of(weak)))
    out = capsys.readouterr().out
    here, there = (pandas.read_parquet(run_of(c) / "examples.parquet") for c in (trained, weak))
    margin = found["against"]["differences"]["reward_margin"]
    differences = here["reward_margin"] - there["reward_margin"]
    middle, error = differences.mean(), 1.959964 * differences.std() / len(differences) ** 0.5
    assert margin["examples"] == len(here) == len(there)
    assert margin["difference"] == pytest.approx(middle, abs=1e-5)
    bounds = [middle - error, middle + error]
    assert margin["difference_interval"] == pytest.approx(bounds, abs=1e-4)
    wins = found["against"]["differences"]["reward_accuracy"]
    assert wins["here"] == found["reward_accuracy"]
    assert wins["difference"] == pytest.approx(here["win"].mean() - there["win"].mean())
    assert f"this run and {run_of(weak)}, on the same rows" in out and "difference +" in out
    assert (run_of(weak) / "eval.json").read_bytes() == before  # nothing is written there


def test_a_run_is_not_distinguishable_from_its_own_copy(trained, tmp_path, capsys):
    shutil.copytree(run_of(trained), tmp_path / "copy")
    found = evaluated(trained, *SHORT, "--against", str(tmp_path / "copy"))
    wins = found["against"]["differences"]["reward_accuracy"]
    low, high = wins["difference_interval"]
    assert wins["difference"] == 0
    assert low < -0.05 and high > 0.05  # no pair differs, and these are few
    assert found["against"]["differences"]["kl_per_sequence"]["difference"] == 0
    assert "not distinguishable from 0" in capsys.readouterr().out


def test_a_run_directory_is_evaluated_as_its_config_is(trained, capsys, tmp_path):
    from dpo_wrap import eval as command

    by_config = evaluated(trained, "--samples", "2")
    run = run_of(trained)
    assert command.main([str(run), "--samples", "2", "--max-new-tokens", "6"]) == 0
    by_run = figures_of(trained)
    assert by_run == by_config
    capsys.readouterr()
    assert command.main([str(tmp_path)]) == 2
    assert "give a config, or the output_dir of a run" in capsys.readouterr().err


def test_filled_in_preferences_are_never_overwritten(trained, capsys):
    run = run_of(trained)
    evaluated(trained, "--samples", "4")
    questions = lines_of(run / "to_judge.jsonl")
    write_lines(run / "to_judge.jsonl", [q | {"preference": 1} for q in questions[::-1]])
    judged = (run / "to_judge.jsonl").read_bytes()
    evaluated(trained, "--samples", "4")
    assert (run / "to_judge.jsonl").read_bytes() == judged
    evaluated(trained, "--samples", "0")
    assert (run / "to_judge.old-1.jsonl").read_bytes() == judged
    assert len(lines_of(run / "samples.old-1.jsonl")) == 4
    assert "renamed to *.old-1.jsonl" in capsys.readouterr().out
    evaluated(trained, "--samples", "4")
    verdicts = str(run / "to_judge.old-1.jsonl")
    from dpo_wrap import evaluate

    assert evaluate(trained, verdicts=verdicts).figures["win_rate"]["pairs"] > 0
    (run / "to_judge.jsonl").write_text('[{"preference": 1}]')
    evaluated(trained, "--samples", "4")
    assert (run / "to_judge.old-2.jsonl").is_file()

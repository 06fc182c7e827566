"""The eval command on small finished runs: figures against plain torch and TRL."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
import yaml
from evaluating import evaluated, figures_of, run_of, write_config, write_pairs

from dpo_wrap import eval as eval_command
from dpo_wrap import train
from dpo_wrap.config import load_settings
from dpo_wrap.evaluation.run_settings import trained_settings

PREFERENCE = (
    *("reward_accuracy", "reward_accuracy_interval", "ties"),
    *("reward_margin", "chosen_log_ratio", "rejected_log_ratio"),
)


SAMPLED = ("kl_per_sequence", "kl_per_token", "length_ratio")


def by_hand(config: Path) -> tuple[list[float], list[float], list[dict]]:
    """Log-ratios of the held-out rows, one sequence at a time, by nothing but model calls."""
    import torch
    from datasets import load_from_disk
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    keys = yaml.safe_load(config.read_text(encoding="utf-8"))
    base = AutoModelForCausalLM.from_pretrained(keys["model_path"])
    tokenizer = AutoTokenizer.from_pretrained(keys["model_path"])
    policy = PeftModel.from_pretrained(base, keys["output_dir"]).eval()
    rows = load_from_disk(str(Path(keys["output_dir"]) / "dataset"))["test"]

    def logp(prompt: str, answer: str) -> float:
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor(tokenizer(prompt + answer + tokenizer.eos_token)["input_ids"])
        with torch.no_grad():
            scores = policy(ids[None]).logits[0].log_softmax(-1)
        return sum(scores[i - 1, ids[i]].item() for i in range(start, len(ids)))

    ratios = {"chosen": [], "rejected": []}
    for row in rows:
        for side, found in ratios.items():
            ours = logp(row["prompt"], row[side])
            with policy.disable_adapter():
                found.append(ours - logp(row["prompt"], row[side]))
    return ratios["chosen"], ratios["rejected"], list(rows)


def test_the_figures_equal_a_computation_one_sequence_at_a_time(trained):
    found = evaluated(trained, "--samples", "3")
    chosen, rejected, rows = by_hand(trained)
    margins = [0.1 * (c - r) for c, r in zip(chosen, rejected, strict=True)]
    assert found["examples"] == len(rows) >= 3
    assert abs(found["reward_margin"]) > 0.05  # the run has moved, so the comparison says something
    assert found["chosen_log_ratio"] == pytest.approx(sum(chosen) / len(chosen), abs=1e-4)
    assert found["rejected_log_ratio"] == pytest.approx(sum(rejected) / len(rejected), abs=1e-4)
    assert found["reward_margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)
    assert found["reward_accuracy"] == sum(m > 0 for m in margins) / len(margins)
    low, high = found["reward_accuracy_interval"]
    assert 0 <= low <= found["reward_accuracy"] <= high <= 1
    # The table has the same figures pair by pair, each with its place in the raw file.
    table = pandas.read_parquet(run_of(trained) / "examples.parquet")
    assert table["source"].tolist() == [row["source"] for row in rows]
    assert table["chosen_log_ratio"].tolist() == pytest.approx(chosen, abs=1e-4)
    assert table["reward_margin"].tolist() == pytest.approx(margins, abs=1e-4)
    policy = table["policy_rejected_logps"] - table["reference_rejected_logps"]
    assert policy.tolist() == pytest.approx(rejected, abs=1e-4)
    assert table["policy_answer_tokens"].notna().sum() == 3
    likely = table["reference_chosen_logps"] > table["reference_rejected_logps"]
    assert found["baselines"]["reference"]["accuracy"] == pytest.approx(likely.mean())
    lengths = [len(row["chosen"]) > len(row["rejected"]) for row in rows]
    assert found["baselines"]["longer"]["accuracy"] == sum(lengths) / len(rows)
    assert found["calibration"]["log_loss"] == pytest.approx(
        sum(math.log1p(math.exp(-m)) for m in margins) / len(margins), abs=1e-4
    )


def test_batch_size_changes_nothing_and_a_seed_repeats_the_samples(trained, tmp_path):
    first = evaluated(trained, "--samples", "4", "--seed", "7")
    run = run_of(trained)
    samples = (run / "samples.jsonl").read_text(encoding="utf-8")
    again = evaluated(trained, "--samples", "4", "--seed", "7")
    assert (run / "samples.jsonl").read_text(encoding="utf-8") == samples
    assert again == first
    other = tmp_path / "run"
    shutil.copytree(run, other)
    resolved = other / "config.resolved.yaml"
    keys = yaml.safe_load(resolved.read_text(encoding="utf-8"))
    keys |= {"per_device_eval_batch_size": 1, "output_dir": str(other)}
    resolved.write_text(yaml.safe_dump(keys), encoding="utf-8")
    alone = evaluated(resolved, "--samples", "0")
    for name in ("reward_accuracy", "reward_margin", "chosen_log_ratio", "rejected_log_ratio"):
        assert alone[name] == pytest.approx(first[name], abs=1e-4)


def test_the_figures_are_those_that_the_trainer_logs(tmp_path, tiny_model_dir):
    data = write_pairs(tmp_path / "pairs.jsonl", 120)
    config = write_config(
        tmp_path, tiny_model_dir, data, eval_strategy="epoch", per_device_eval_batch_size=64
    )
    assert train.main([str(config)]) == 0
    lines = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [line for line in map(json.loads, lines) if "eval_rewards/margins" in line][-1]
    found = evaluated(config, "--samples", "0")
    assert found["reward_margin"] == pytest.approx(logged["eval_rewards/margins"], abs=1e-4)
    assert found["reward_accuracy"] == pytest.approx(logged["eval_rewards/accuracies"], abs=1e-6)
    chosen = 0.1 * found["chosen_log_ratio"]
    assert chosen == pytest.approx(logged["eval_rewards/chosen"], abs=1e-4)


@pytest.mark.parametrize("lora", [True, False])
def test_precomputed_reference_figures_change_nothing(tmp_path, tiny_model_dir, lora):
    data = write_pairs(tmp_path / "pairs.jsonl", 60)
    keys = {"eval_strategy": "epoch", "per_device_eval_batch_size": 64, "learning_rate": 2e-3}
    keys |= {"precompute_ref_log_probs": True, "lora": {"r": 4} if lora else False}
    config = write_config(tmp_path, tiny_model_dir, data, **keys)
    given = yaml.safe_load(config.read_text(encoding="utf-8"))
    del given["lora_r"]
    config.write_text(yaml.safe_dump(given), encoding="utf-8")
    assert train.main([str(config)]) == 0
    lines = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [line for line in map(json.loads, lines) if "eval_rewards/margins" in line][-1]
    found = evaluated(config, "--samples", "1")
    assert abs(found["reward_margin"]) > 0.003
    assert found["reward_margin"] == pytest.approx(logged["eval_rewards/margins"], abs=1e-4)
    assert found["reward_accuracy"] == pytest.approx(logged["eval_rewards/accuracies"], abs=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl", "config.yaml", "run"}


@pytest.fixture(scope="module")
def of_two(tmp_path_factory, tiny_model_dir):
    """A finished run over two datasets: its config, and their paths."""
    folder = tmp_path_factory.mktemp("two")
    one, two = (
        write_pairs(folder / name, count) for name, count in (("a.jsonl", 90), ("b.jsonl", 40))
    )
    # Other prompts than the first has, and the preferences the other way round.
    rows = [json.loads(line) for line in two.read_text(encoding="utf-8").splitlines()]
    turned = [
        {"prompt": f"b{r['prompt']}", "chosen": r["rejected"], "rejected": r["chosen"]}
        for r in rows
    ]
    two.write_text("\n".join(map(json.dumps, turned)), encoding="utf-8")
    paths = [str(one), str(two)]
    keys = {"dataset_path": paths, "eval_strategy": "epoch", "per_device_eval_batch_size": 64}
    config = write_config(folder, tiny_model_dir, one, **keys)
    assert train.main([str(config)]) == 0
    return config, paths


@pytest.mark.parametrize("split", ["test", "train"])
def test_each_of_several_datasets_is_a_slice_as_if_it_stood_alone(of_two, split, capsys):
    config, paths = of_two
    words = ("--samples", "0", "--split", split)
    whole = evaluated(config, *words)
    said = capsys.readouterr().out
    assert list(whole["slices"]) == paths
    assert whole["examples"] == sum(part["examples"] for part in whole["slices"].values())
    for path, part in whole["slices"].items():
        assert f"of {path}: {part['examples']} pairs, reward accuracy" in said
        assert part["examples"] > 0
        alone = evaluated(config, *words, "--dataset", path)
        assert alone["slices"] == {}
        for name, value in part.items():
            assert alone[name] == pytest.approx(value, abs=1e-5), name
    assert len({part["reward_margin"] for part in whole["slices"].values()}) == 2


def test_the_trainer_evaluates_several_datasets_as_one(of_two):
    run = of_two[0].parent / "run"
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    logged = [line for line in lines if "eval_rewards/accuracies" in line][-1]
    found = evaluated(of_two[0], "--samples", "0")
    assert found["reward_accuracy"] == pytest.approx(logged["eval_rewards/accuracies"], abs=1e-6)
    assert found["reward_margin"] == pytest.approx(logged["eval_rewards/margins"], abs=1e-4)


def test_a_dataset_that_holds_nothing_out_is_an_empty_slice(of_two, tmp_path, capsys):
    config, paths = of_two
    few = str(write_pairs(tmp_path / "few.jsonl", 2))
    words = ("--samples", "0", "--set", f"dataset_path=[{paths[0]}, {few}]")
    found = evaluated(config, *words)
    empty = found["slices"][few]
    assert (empty["examples"], {empty[name] for name in PREFERENCE}) == (0, {None})
    assert found["slices"][paths[0]]["examples"] == found["examples"]
    assert f"of {few}: no pairs in this split" in capsys.readouterr().out


def test_every_promised_key_is_there_with_and_without_samples(trained):
    run = run_of(trained)
    for count in ("0", "2"):
        found = evaluated(trained, "--samples", count)
        assert found.keys() >= {"examples", *PREFERENCE, *SAMPLED}
        assert {found[name] is None for name in SAMPLED} == {count == "0"}
        assert found["steps"] == json.loads((run / "run.json").read_text("utf-8"))["steps"]


def test_prompts_without_room_for_an_answer_are_said(trained, capsys):
    assert eval_command.main([str(trained), "--samples", "2", "--max-new-tokens", "127"]) == 0
    said = capsys.readouterr().err
    assert "prompts leave no room for 127 tokens in the model's context" in said


def test_the_batch_size_of_now_is_taken(trained):
    settings = load_settings(str(trained), ["per_device_eval_batch_size=1"])
    now = trained_settings(settings, None)
    assert now.option("per_device_eval_batch_size") == 1


def test_an_output_dir_in_the_home_directory_is_found(trained, monkeypatch):
    run = run_of(trained)
    monkeypatch.setenv("HOME", str(run.parent))
    settings = load_settings(str(trained), ["output_dir=~/run"])
    assert trained_settings(settings, None).output_dir == str(run)


def test_full_weights_are_judged_against_the_model_that_they_began_as(tmp_path, tiny_model_dir):
    data = write_pairs(tmp_path / "pairs.jsonl", 120)
    config = write_config(tmp_path, tiny_model_dir, data, lora=False, learning_rate=1e-3)
    keys = yaml.safe_load(config.read_text(encoding="utf-8"))
    del keys["lora_r"]
    config.write_text(yaml.safe_dump(keys), encoding="utf-8")
    assert train.main([str(config)]) == 0
    moved = evaluated(config, "--samples", "0")
    assert abs(moved["reward_margin"]) > 0.01
    # Put the first weights back: policy and reference are one model then.
    for name in ("model.safetensors",):
        shutil.copy(tiny_model_dir / name, tmp_path / "run" / name)
    still = evaluated(config, "--samples", "2")
    assert still["reward_margin"] == pytest.approx(0, abs=1e-6)
    assert still["kl_per_sequence"] == pytest.approx(0, abs=1e-4)
    assert still["ties"] == still["examples"]


def test_a_continued_adapter_is_judged_against_the_one_that_it_went_on_from(trained, tmp_path):
    keys = yaml.safe_load(trained.read_text(encoding="utf-8"))
    config = write_config(
        tmp_path,
        Path(keys["model_path"]),
        Path(keys["dataset_path"]),
        adapter_path=keys["output_dir"],
        learning_rate=1e-9,
    )
    assert train.main([str(config)]) == 0
    found = evaluated(config, "--samples", "2")
    assert found["reward_margin"] == pytest.approx(0, abs=1e-3)
    assert figures_of(trained)["reward_margin"] > 0.05  # against the base it is far from it


def test_a_run_that_kept_its_best_checkpoint_is_judged(tmp_path, tiny_model_dir):
    data = write_pairs(tmp_path / "pairs.jsonl", 60)
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    best = {"load_best_model_at_end": True, "early_stopping_patience": 9}
    figure = {"metric_for_best_model": "eval_rewards/accuracies", "push_to_hub": False}
    config = write_config(tmp_path, tiny_model_dir, data, **steps, **best, **figure)
    assert train.main([str(config)]) == 0
    assert evaluated(config, "--samples", "2")["examples"] > 0


def test_samples_are_of_the_whole_distribution_whatever_the_model_is_configured_to(trained):
    """A generation_config.json of penalties, beams and forbidden tokens changes no draw."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from dpo_wrap.evaluation.sampling import draw_answers

    model = AutoModelForCausalLM.from_pretrained(
        yaml.safe_load(trained.read_text(encoding="utf-8"))["model_path"]
    )
    dpo = SimpleNamespace(bf16=False, fp16=False, device=torch.device("cpu"))
    drawn = []
    for odd in ({}, {"suppress_tokens": list(range(1, 200)), "num_return_sequences": 2}):
        model.generation_config = GenerationConfig()
        vars(model.generation_config).update(odd)
        torch.manual_seed(0)
        drawn.append(draw_answers(model, [[5, 6], [7]], dpo, [0], 12, 0))
        assert model.generation_config.suppress_tokens == odd.get("suppress_tokens")
    assert drawn[0] == drawn[1] and len(drawn[0]) == 2


def test_few_prompts_are_cautioned(trained, capsys):
    found = evaluated(trained, "--samples", "0")
    assert "cannot be told apart" in found["caution"]
    assert {"tone": "warning", "text": found["caution"]} in found["findings"]
    assert f"! {found['caution']}" in capsys.readouterr().out


def test_kept_columns_group_the_pairs_and_the_reports_say_who_agrees(trained, tmp_path, capsys):
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
    raw = tmp_path / "judged.jsonl"
    raw.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["-o", str(tmp_path / "data"), "--test-size", "0.5", "--keep", "batch"]
    assert convert([str(raw), *words]) == 0
    found = evaluated(trained, "--samples", "0", "--dataset", str(tmp_path / "data"))
    batches = found["groups"]["batch"]
    assert batches.keys() == {"batch 0", "batch 1"}
    assert sum(group["examples"] for group in batches.values()) == found["examples"]
    assert found["first_answer"] == {"accuracy": 1.0, "pairs": found["examples"]}
    # Of each even row all three agree; of an odd one bob alone meets a majority, and differs.
    assert found["ceiling"]["share"] == pytest.approx(36 / 48)
    said = capsys.readouterr().out
    assert "batch batch 1: " in said and "the ceiling" in said and "as shown" in said


def test_pairs_that_speak_against_their_label_are_shown_with_their_place(trained, tmp_path):
    rows = [
        {"prompt": f"{n}: q", "chosen": "fedfed", "rejected": "abcabc", "note": "x"}
        for n in range(6)
    ]
    raw = tmp_path / "turned.jsonl"
    raw.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = evaluated(trained, "--samples", "0", "--dataset", str(raw), "--split", "train")
    shown = found["against_label"]
    assert [pair["reward_margin"] for pair in shown] == sorted(p["reward_margin"] for p in shown)
    assert len(shown) == sum(1 for pair in shown if pair["reward_margin"] < 0) >= 4
    assert shown[0]["source"].startswith(str(raw)) and shown[0]["chosen"] == "fedfed"


def test_nothing_is_written_beside_data_of_which_rows_were_left_out(trained, tmp_path):
    from datasets import Dataset, DatasetDict

    rows = [json.loads(line) for line in (run_of(trained).parent / "pairs.jsonl").open()]
    splits = {"a": (rows[:40], rows[40:44]), "b": (rows[44:60], rows[:8])}
    for name, (some, others) in splits.items():
        both = {"train": Dataset.from_list(some), "test": Dataset.from_list(others)}
        DatasetDict(both).save_to_disk(str(tmp_path / name))
    before = sorted(path for path in tmp_path.rglob("*"))
    words = ["--split", "train", "--samples", "0"]
    evaluated(trained, *words, "--set", f"dataset_path=[{tmp_path}/a, {tmp_path}/b]")
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_kl_and_endings_equal_a_computation_one_answer_at_a_time(trained, monkeypatch):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from dpo_wrap.evaluation import sampling

    whole, drawn = sampling.sample_answers, []

    def kept(*words):
        drawn.extend(whole(*words))
        return drawn

    monkeypatch.setattr(sampling, "sample_answers", kept)
    found = evaluated(trained, "--samples", "6", "--max-new-tokens", "12")
    keys = yaml.safe_load(trained.read_text(encoding="utf-8"))
    base = AutoModelForCausalLM.from_pretrained(keys["model_path"])
    policy = PeftModel.from_pretrained(base, keys["output_dir"]).eval()

    def logp(prompt, answer):
        with torch.no_grad():
            scores = policy(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return sum(scores[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))

    ratios = []
    for one in drawn:
        ours = logp(one.prompt_ids, one.policy_ids)
        with policy.disable_adapter():
            ratios.append(ours - logp(one.prompt_ids, one.policy_ids))
    tokens = sum(len(one.policy_ids) for one in drawn)
    assert len(drawn) == 6 and max(map(abs, ratios)) > 0.01
    assert found["kl_per_sequence"] == pytest.approx(sum(ratios) / 6, abs=1e-4)
    assert found["kl_per_token"] == pytest.approx(sum(ratios) / tokens, abs=1e-4)
    lengths = tokens / sum(len(one.reference_ids) for one in drawn)
    assert found["length_ratio"] == pytest.approx(lengths)
    assert found["eos_rate"]["policy"] == sum(one.policy_ids[-1] == 0 for one in drawn) / 6
    words = [[token for token in one.policy_ids if token] for one in drawn]
    shares = [len(set(answer)) / len(answer) for answer in words if answer]
    assert found["distinct_1"]["policy"] == pytest.approx(sum(shares) / len(shares))

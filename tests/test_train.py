"""dpo_wrap.train: what a run does, what it writes, and that the training is TRL's."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn
from training import ROWS, TALK, adapter_weights, metrics, run_json, same
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from dpo_wrap.config import documented_keys
from dpo_wrap.train import main
from dpo_wrap.training import session

ROOT = Path(__file__).parent.parent


@pytest.fixture
def refused(run, capsys):
    """A function that expects exit status 2 and returns what was printed to stderr."""

    def refuse(*options, **keys):
        assert run(*options, **keys)[0] == 2
        return capsys.readouterr().err

    return refuse


def test_the_sample_config_visibly_trains(tiny_model_dir, tmp_path, capsys):
    torch.manual_seed(0)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "model")
    size = {"n_positions": 512, "n_embd": 128, "n_layer": 3, "n_head": 4, "vocab_size": 257}
    config = GPT2Config(**size, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    rows = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(4) for row in ROWS]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    paths = {"model_path": "model", "dataset_path": "pairs.json", "output_dir": "out"}
    options = [part for k, v in paths.items() for part in ("--set", f"{k}={tmp_path / v}")]
    assert main(["--config", str(ROOT / "configs/dpo_config.yaml"), *options]) == 0
    figures = run_json(tmp_path / "out")["figures"]
    assert figures["loss"] < 0.68 < figures["first_loss"] < math.log(2)
    assert figures["reward_margin"] > 0.03
    out = capsys.readouterr().out
    assert "step 0: loss 0.6931 = ln 2, margin 0.0000" in out
    assert "learning_rate: 0.0002 by default with LoRA" in out
    assert "lora_dropout: 0.1" in out and "logging_dir: logs is unused" in out
    # The sample config without --set does not describe this run.
    assert f"next: python -m dpo_wrap.eval {tmp_path}/out/config.resolved.yaml" in out


def test_a_run_writes_all_that_is_promised(run, capsys):
    status, out = run()
    assert status == 0
    for name in ("adapter_config.json", "tokenizer.json", "dataset/report.json", "report.html"):
        assert (out / name).is_file()
    assert "DPO" in (out / "README.md").read_text()
    assert not (out / "training_args.bin").exists()
    assert not any(path.name.endswith(".part") for path in out.rglob("*"))
    assert {path.name for path in out.parent.iterdir()} == {"pairs.json", "config.yaml", "out"}
    lines = metrics(out)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {"loss", "rewards/accuracies", "rewards/margins", "grad_norm"} <= lines[0].keys()
    result = run_json(out)
    assert result["step_0"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert result["step_0"]["margin"] == 0
    assert result["steps"] == 6
    assert result["data"]["fingerprint"] and result["versions"]["trl"]
    assert result["verdict"].startswith("The policy hardly moved: the margin ended at 0.01")
    assert result["verdict"] in capsys.readouterr().out


def test_the_card_says_what_was_trained_and_how_to_load_it(run, tmp_path):
    for keys, kind in (({}, "A LoRA adapter for"), ({"lora": False}, "with all weights trained")):
        _, out = run(output_dir=str(tmp_path / "run"), **keys)
        card, record = (out / "README.md").read_text(), run_json(out)
        _, head, text = card.split("---\n", 2)
        # A local base is no base_model, which the Hub would look up.
        library = "peft" if not keys else "transformers"
        tags = ["dpo", "trl", "preference"]
        assert yaml.safe_load(head) == {"library_name": library, "tags": tags}
        assert kind in text and record["verdict"] in text and "None" not in card
        assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == record["config"]
        compile(text.split("```python\n")[1].split("```")[0], "card", "exec")
        shutil.rmtree(out)


def test_losses_and_weights_are_those_of_plain_trl(run, tiny_model_dir, tmp_path):
    """Over 24 steps with evaluations and checkpoints, step 0, the health watch and the verdict."""
    from trl import DPOConfig, DPOTrainer

    often = {"eval_strategy": "steps", "eval_steps": 6, "save_strategy": "steps", "save_steps": 9}
    (tmp_path / "data").mkdir()
    for split, rows in (("train", ROWS[:18]), ("test", ROWS[18:])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "data" / f"{split}.jsonl").write_text(text)
    keys = {"logging_steps": 1, "max_steps": 24, "prefix_sharing": "off", **often}
    status, out = run(dataset_path=str(tmp_path / "data"), **keys)
    assert status == 0
    trainer = DPOTrainer(
        model=str(tiny_model_dir),
        args=DPOConfig(
            output_dir=str(tmp_path / "plain"),
            per_device_train_batch_size=4,
            max_steps=24,
            logging_steps=1,
            learning_rate=1e-2,
            max_length=128,
            bf16=False,
            report_to="none",
            **often,
        ),
        train_dataset=Dataset.from_list(ROWS[:18]),
        eval_dataset=Dataset.from_list(ROWS[18:]),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
        peft_config=LoraConfig(task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model()
    for name in ("loss", "eval_loss"):
        plain = [entry[name] for entry in trainer.state.log_history if name in entry]
        assert [line[name] for line in metrics(out) if name in line] == plain
    assert same(adapter_weights(out), adapter_weights(tmp_path / "plain"))


def test_the_resolved_config_repeats_the_run(run, tmp_path):
    _, out = run(lora_dropout=0.1, model_init_kwargs={"token": "secret"}, learning_rate=None)
    text = (out / "config.resolved.yaml").read_text()
    resolved = yaml.safe_load(text)
    assert resolved["per_device_train_batch_size"] == 4
    assert resolved["learning_rate"] == 2e-4
    assert resolved["max_length"] == 128
    assert resolved["lora"] == {"lora_dropout": 0.1}
    assert "secret" not in text and "token" not in text
    again = tmp_path / "again"
    assert main([str(out / "config.resolved.yaml"), "--set", f"output_dir={again}"]) == 0
    assert same(adapter_weights(out), adapter_weights(again))
    assert yaml.safe_load((again / "config.resolved.yaml").read_text()) == resolved | {
        "output_dir": str(again)
    }


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_column_that_the_model_should_see_is_refused_before_any_weight_is_loaded(
    refused, tmp_path, options, monkeypatch
):
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", pytest.fail)
    data = str(tmp_path / "data")
    rows = [row | {"history": [["Hi.", "Hello."]]} for row in ROWS]
    Dataset.from_list(rows).save_to_disk(data)
    error = refused(*options, dataset_path=data).splitlines()[-1]
    assert error.startswith(f"{data}: the column 'history' has earlier turns that the model would")
    assert not (tmp_path / "out").exists()


def test_columns_that_are_not_trained_on_are_reported(run, tmp_path, capsys):
    data = str(tmp_path / "data")
    rows = [row | {"id": number, "history": []} for number, row in enumerate(ROWS)]
    Dataset.from_list(rows).save_to_disk(data)
    assert run("--dry-run", dataset_path=data)[0] == 0
    line = f"{data}: columns not trained on: 'history', 'id'"
    assert line in capsys.readouterr().out.splitlines()


def test_dropout_acts_on_the_adapter_only(run, monkeypatch):
    seen = {}

    class Look(session.Progress):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            drops = {n: m.p for n, m in model.named_modules() if isinstance(m, nn.Dropout)}
            seen["adapter"] = {p for n, p in drops.items() if "lora_dropout" in n}
            seen["base"] = {p for n, p in drops.items() if "lora_dropout" not in n}
            seen["training"] = model.training

    monkeypatch.setattr(session, "Progress", Look)
    status, out = run(lora_dropout=0.3)
    assert status == 0
    assert seen == {"adapter": {0.3}, "base": {0}, "training": True}
    assert run_json(out)["step_0"]["margin"] == 0
    _, other = run(lora_dropout=0.0, output_dir=str(out.parent / "other"))
    assert not same(adapter_weights(out), adapter_weights(other))


def test_full_weights_are_trained_against_a_frozen_reference(run, tiny_model_dir, capsys):
    status, out = run(lora=False, learning_rate=1e-4)
    assert status == 0
    assert "full weights" in capsys.readouterr().out
    trained = AutoModelForCausalLM.from_pretrained(out)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    assert not torch.equal(trained.transformer.wte.weight, base.transformer.wte.weight)
    assert run_json(out)["step_0"]["margin"] == 0


def test_an_adapter_is_continued_against_its_frozen_copy(run, tmp_path, capsys):
    _, first = run()
    status, out = run(adapter_path=str(first), output_dir=str(tmp_path / "more"), lora_dropout=0.2)
    assert status == 0
    assert f"continued from {first}" in capsys.readouterr().out
    result = run_json(out)
    assert result["step_0"]["margin"] == 0
    assert result["step_0"]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert same(adapter_weights(first), load_file(out / "ref/adapter_model.safetensors"))
    assert not same(adapter_weights(first), adapter_weights(out))


def test_conversations_train_with_chatml_which_is_saved_with_the_adapter(run, refused, tmp_path):
    data = str(tmp_path / "talk.json")
    Path(data).write_text(json.dumps(TALK))
    assert "has no chat template; set chat_template: chatml" in refused(dataset_path=data)
    status, out = run(dataset_path=data, chat_template="chatml")
    assert status == 0
    saved = AutoTokenizer.from_pretrained(out)
    text = saved.apply_chat_template(TALK[0]["prompt"] + TALK[0]["chosen"], tokenize=False)
    assert text.endswith("assistant\nlovely.<|endoftext|>")


def test_an_evaluation_is_logged_in_the_line_of_its_step(run):
    status, out = run(eval_strategy="steps", eval_steps=3)
    assert status == 0
    lines = metrics(out)
    assert [line["step"] for line in lines] == [2, 3, 4, 6]
    assert "eval_rewards/margins" in lines[1] and "eval_loss" in lines[3] and "loss" in lines[3]


def test_tensorboard_writes_to_logging_dir(run, tmp_path, capsys):
    status, _ = run(report_to="tensorboard", logging_dir=str(tmp_path / "logs"))
    assert status == 0
    assert any((tmp_path / "logs").rglob("events.out.tfevents*"))
    assert "unused" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"output_dir": "config.yaml"}, "is a file; name a directory"),
        ({"output_dir": "config.yaml/below"}, "is a file; name a directory"),
        ({"pad_token": "nowhere"}, "pad_token: DPOTrainer refuses it: The specified `pad_token`"),
        ({"dataloader_drop_last": True, "batch_size": 100}, "pairs fill no batch of 100, so there"),
        ({"optim": "adamw_bnb_8bit"}, "transformers refuses it"),
        ({"lora": {"target_modules": ["nope"]}}, "lora.target_modules: peft refuses it"),
        ({"fp16": True}, "fp16: no device here supports it; remove it"),
        ({"model_init_kwargs": {"dtype": "float8"}}, "model_init_kwargs: Invalid `dtype`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_only_the_libraries_or_the_disk_refuse_is_a_config_error(
    refused, tmp_path, monkeypatch, keys, expected
):
    monkeypatch.chdir(tmp_path)
    error = refused(**keys)
    assert expected in error and "Traceback" not in error


def test_several_gpus_in_one_process_are_refused_with_the_launch_line(refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    line = "--config_file configs/accelerate/ddp.yaml --num_processes 4 -m dpo_wrap.train"
    assert f"accelerate launch {line}" in refused()


def test_weights_are_loaded_as_model_init_kwargs_say(run, capsys):
    status, out = run(model_init_kwargs={"dtype": "bfloat16"}, lora=False)
    assert status == 0
    assert next(iter(load_file(out / "model.safetensors").values())).dtype == torch.bfloat16
    assert "model_init_kwargs" not in capsys.readouterr().err
    resolved = yaml.safe_load((out / "config.resolved.yaml").read_text())
    assert resolved["model_init_kwargs"] == {"dtype": "bfloat16"}


def test_help_lists_every_key_of_this_wrapper(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, _, meaning in documented_keys():
        assert f"  {name} " in text and meaning in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.yaml --beta 0.2", "--beta: write --set beta=0.2"),
        ("--lora-r=8 a.yaml", "--lora-r: write --set lora_r=8"),
        ("a.yaml --hub_token=secret", "--hub_token: write --set hub_token=VALUE"),
        ("a.yaml --bf16", "--bf16: write --set bf16=VALUE"),
        ("--set beta 0.2 a.yaml", "beta: write --set beta=0.2"),
        ("a.yaml --resmue never", "unrecognized arguments: --resmue never"),
    ],
)
def test_a_key_given_as_an_option_is_a_usage_error_that_names_set(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


def test_a_command_without_exactly_one_config_is_refused(capsys):
    assert main([]) == 2
    assert "no config was given" in capsys.readouterr().err
    assert main(["a.yaml", "--config", "b.yaml"]) == 2
    assert "two configs were given" in capsys.readouterr().err


def test_a_test_split_that_is_too_long_stops_only_a_run_that_evaluates_on_it(
    run, refused, tmp_path, capsys
):
    data = str(tmp_path / "pairs")
    long = [{"prompt": "p" * 200, "chosen": "a", "rejected": "b"}]
    splits = {"train": Dataset.from_list(ROWS), "test": Dataset.from_list(long)}
    DatasetDict(splits).save_to_disk(data)
    assert run(dataset_path=data, max_steps=1)[0] == 0
    assert "test: 1 of 1 pairs have more than 128 tokens" in capsys.readouterr().out
    error = refused("--resume", "never", dataset_path=data, eval_strategy="epoch")
    assert "no pair of test can be trained on" in error


def test_a_run_shorter_than_logging_steps_still_has_figures(run):
    status, out = run(max_steps=2, logging_steps=10)
    assert status == 0
    assert [line["step"] for line in metrics(out)] == [2]
    assert "reward_margin" in run_json(out)["figures"]


def test_without_logging_nothing_is_logged(run):
    status, out = run(max_steps=2, logging_steps=None, logging_strategy="no")
    assert status == 0 and metrics(out) == []


def test_a_generation_config_that_cannot_be_saved_is_fixed(run, tiny_model_dir, tmp_path, capsys):
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    config = {"temperature": 0.7, "do_sample": False, "eos_token_id": 0}
    (tmp_path / "model/generation_config.json").write_text(json.dumps(config))
    status, out = run(model_path=str(tmp_path / "model"), lora=False, max_steps=2)
    assert status == 0 and (out / "model.safetensors").is_file()
    assert "so it is saved with do_sample: true" in capsys.readouterr().out


def test_a_directory_of_another_program_is_not_deleted(refused, tmp_path):
    (tmp_path / "out.part-data").mkdir()
    (tmp_path / "out.part-data/mine.txt").write_text("mine")
    assert "out.part-data: needed as a temporary directory, but not made by" in refused()
    assert (tmp_path / "out.part-data/mine.txt").is_file()

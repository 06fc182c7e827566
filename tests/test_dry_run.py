"""train --dry-run: what it reports and measures, and that it changes nothing."""

import json
import math
import re

import pytest
import torch
from torch.nn.functional import cross_entropy
from training import ROWS, TALK
from transformers import Trainer

from dpo_wrap.training import dry_run
from dpo_wrap.training.dry_run import describe_fit


def test_a_dry_run_reports_what_would_be_trained_and_writes_nothing(
    run, tiny_model_dir, tmp_path, capsys
):
    status, _ = run("--dry-run", batch_size=2)
    out = capsys.readouterr().out
    assert status == 0
    assert out.count("[[ ") == 6 and "<|endoftext|>]]" in out and "example 3" in out
    assert f"reference: {tiny_model_dir} with the adapter off" in out
    assert re.search(r"data: 2\d pairs to train on, \d held out", out)
    assert "train: tokens of prompt and longer answer: median" in out
    assert "steps: 6" in out and "step 0: loss 0.6931 = ln 2, margin 0.0000" in out
    longest = max(len(r["prompt"]) + max(len(r["chosen"]), len(r["rejected"])) + 1 for r in ROWS)
    assert f"longest batch: 4 rows of {longest} tokens, run as " in out
    assert "forward and backward took " in out and "in this process; AdamW adds " in out
    # A model with random weights guesses: every byte costs about ln 257.
    assert "a random guess costs 5.55, so it hardly knows such text; run SFT" in out
    assert out.endswith("dry run: nothing was written\n")
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.json", "config.yaml"}


def test_full_weights_and_conversations_are_measured_too(run, tiny_model_dir, tmp_path, capsys):
    (tmp_path / "talk.json").write_text(json.dumps(TALK))
    talk = {"dataset_path": str(tmp_path / "talk.json"), "chat_template": "chatml"}
    assert run("--dry-run", lora=False, **talk)[0] == 0
    out = capsys.readouterr().out
    assert f"reference: a frozen copy of {tiny_model_dir}\n" in out
    assert "longest batch: 8 rows of" in out and "reference: chosen answers cost it" in out


def test_the_number_of_steps_is_that_of_all_rows(run, capsys):
    keys = {"max_steps": None, "num_epochs": 3, "train_sampling_strategy": "group_by_length"}
    assert run("--dry-run", batch_size=2, **keys)[0] == 0
    assert "steps: 36\n" in capsys.readouterr().out


def test_the_nats_are_those_of_a_plain_forward_pass_and_no_weight_changes(run, monkeypatch):
    seen, measure, longest = {}, dry_run.nats_per_token, dry_run.longest_batch

    def watched_batch(trainer):
        seen["before"] = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        return longest(trainer)

    def watched(trainer, prepared, rows):
        seen["found"], nats = measure(trainer, prepared, rows), []
        for prompt, answer, _ in rows:
            ids = torch.tensor([prompt + answer])
            with torch.no_grad():
                logits = trainer.model(input_ids=ids).logits[0, :-1]
            nats.append(cross_entropy(logits, ids[0, 1:], reduction="none")[len(prompt) - 1 :])
        seen["rows"], seen["plain"] = len(rows), torch.cat(nats).mean().item()
        after = dict(trainer.model.named_parameters())
        assert all(torch.equal(seen["before"][name], after[name]) for name in after)
        assert all(parameter.grad is None for parameter in after.values())
        return seen["found"]

    monkeypatch.setattr(dry_run, "longest_batch", watched_batch)
    monkeypatch.setattr(dry_run, "nats_per_token", watched)
    assert run("--dry-run")[0] == 0
    chosen, own = seen["found"]
    assert seen["rows"] == dry_run.PAIRS
    assert chosen == pytest.approx(seen["plain"], abs=1e-4)
    assert own == pytest.approx(math.log(257), abs=0.3)


@pytest.mark.parametrize(
    ("chosen", "own", "expected"),
    [
        (1.2, 1.1, "its own samples 1.10 (16 prompts)"),
        (2.2, 1.1, "(16 prompts); run SFT on the chosen answers first"),
        (9.0, 9.0, "a random guess costs 10.80, so it hardly knows such text; run SFT"),
        (math.nan, math.nan, "is NaN or inf; training would stop there and name the row"),
    ],
)
def test_sft_is_advised_if_the_chosen_answers_are_unlikely_to_the_reference(chosen, own, expected):
    line = describe_fit(chosen, own, 10.8, 16, ["sigmoid"])
    assert expected in line and ("SFT" in expected) == ("SFT" in line)
    assert "SFT" not in describe_fit(chosen, own, 10.8, 16, ["sft"])


def test_prompts_that_leave_no_room_for_a_sample_are_reported(run, tmp_path, capsys):
    rows = [row | {"prompt": row["prompt"] + " x" * 40} for row in ROWS]
    (tmp_path / "long.json").write_text(json.dumps(rows))
    assert run("--dry-run", dataset_path=str(tmp_path / "long.json"))[0] == 0
    assert "no prompt leaves room for a sample" in capsys.readouterr().out


def test_a_policy_that_does_not_start_at_its_reference_fails_the_dry_run(run, capsys):
    status, _ = run("--dry-run", lora={"init_lora_weights": False}, beta=0.01)
    assert status == 1
    assert "the policy does not start at its reference" in capsys.readouterr().out


def test_what_fails_before_the_first_step_fails_the_dry_run_too(run, monkeypatch, capsys):
    def refuse(trainer, model=None):
        raise ValueError("Invalid learning_rate")

    monkeypatch.setattr(Trainer, "create_optimizer", refuse)
    for options in (["--dry-run"], []):
        assert run(*options)[0] == 2
        assert "learning_rate: transformers refuses it: Invalid" in capsys.readouterr().err

"""preflight: what a dry run measures: the longest batch, and the reference's own words."""

import math

import pytest

from dpo_wrap.training import preflight
from dpo_wrap.training.preflight import Familiarity, LongestBatch, spoken
from tests.training import ROWS, TALK, runner


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


def test_a_dry_run_measures_the_longest_batch_and_the_reference(run, capsys):
    status, _ = run("--dry-run", batch_size=2)
    said = capsys.readouterr().out
    assert status == 0
    longest = max(len(r["prompt"]) + max(len(r["chosen"]), len(r["rejected"])) + 1 for r in ROWS)
    assert f"longest batch: 4 rows of {longest} tokens, run as " in said
    # Random weights guess: every byte costs about ln 257.
    assert "a guess costs 5.55, so it knows next to nothing of such text; run SFT" in said
    assert "  pair  " in said and "train: tokens of prompt and longer answer: median" in said


def test_a_dry_run_changes_no_weight(run, monkeypatch):
    """Nor leaves a gradient behind: looked at around both measurements."""
    seen = []
    for name in ("longest_batch", "familiarity"):
        real = getattr(preflight, name)

        def look(trainer, prepared, real=real):
            before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
            found = real(trainer, prepared)
            after = dict(trainer.model.named_parameters())
            seen.append(all(bool((before[n] == p).all()) for n, p in after.items()))
            seen.append(all(p.grad is None for p in after.values()))
            return found

        monkeypatch.setattr(preflight, name, look)
    assert run("--dry-run")[0] == 0
    assert seen == [True] * 4


def test_full_weights_and_conversations_are_measured_too(run, tmp_path, capsys):
    import json

    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TALK))
    talk = {"dataset_path": str(tmp_path / "talk.jsonl"), "chat_template": "chatml"}
    assert run("--dry-run", lora=False, **talk)[0] == 0
    said = capsys.readouterr().out
    assert "longest batch: 8 rows of" in said and "reference: chosen answers cost it" in said


def test_the_nats_are_those_of_a_plain_forward_pass(run, monkeypatch):
    import torch
    from torch.nn.functional import cross_entropy

    seen = {}
    real = preflight.familiarity

    def look(trainer, prepared):
        seen["found"] = real(trainer, prepared)
        model, total, count = trainer.model, 0.0, 0
        for row in prepared.train.select(range(len(prepared.train))):
            if seen["found"].pairs < len(prepared.train):
                raise AssertionError("not all pairs were taken")
            ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, :-1]
            nats = cross_entropy(logits, ids[0, 1:], reduction="none")[len(row["prompt_ids"]) - 1 :]
            total, count = total + nats.sum().item(), count + len(nats)
        seen["plain"] = total / count
        return seen["found"]

    monkeypatch.setattr(preflight, "familiarity", look)
    monkeypatch.setattr(preflight, "PAIRS", 1000)
    assert run("--dry-run")[0] == 0
    assert seen["found"].chosen == pytest.approx(seen["plain"], abs=1e-4)
    assert seen["found"].own == pytest.approx(math.log(257), abs=0.3)


@pytest.mark.parametrize(
    ("chosen", "own", "said"),
    [
        (1.2, 1.1, "its own samples 1.10 (16 prompts)"),
        (2.2, 1.1, "(16 prompts); run SFT on the chosen answers first"),
        (9.0, 9.0, "a guess costs 10.80, so it knows next to nothing of such text; run SFT"),
    ],
)
def test_sft_is_advised_where_the_answers_are_far_from_the_reference(chosen, own, said):
    import torch

    batch = LongestBatch(8, 1024, 2500, 3 * 2**30, 2**30, 2**20, 1.5)
    lines = spoken(batch, Familiarity(chosen, own, 16, 10.8), torch.device("cpu"), ["sigmoid"])
    assert lines[0] == (
        "longest batch: 8 rows of 1,024 tokens, run as 2,500 tokens; forward and backward took "
        "1.5 s and 1.0 GiB, at peak 3.0 GiB in this process; AdamW adds 1.0 MiB"
    )
    assert said in lines[1] and ("SFT" in said) == ("SFT" in lines[1])


def test_where_no_prompt_leaves_room_it_is_said():
    import torch

    batch = LongestBatch(8, 1024, 0, 1, 1, 1, 1.0)
    first, second = spoken(batch, None, torch.device("cpu"), ["sft"])
    assert "8 rows of 1,024 tokens; forward" in first
    assert second.endswith("so its fit is unknown")

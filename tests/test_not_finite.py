"""not_finite: a loss or gradient that is no number stops the run and names its rows."""

import json
import math

import pytest
import torch
from datasets import Dataset, DatasetDict
from training import ROWS, runner
from transformers import Trainer
from trl import DPOTrainer

from dpo_wrap.training import session

ODD = "Z"  # stands in no row of training.py


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


@pytest.fixture
def poisoned(monkeypatch):
    """Let the model make no number of a text with ODD in it; gives the trainers that are built."""
    return after_building(monkeypatch, break_odd_texts)


def after_building(monkeypatch, change):
    """Do `change(trainer, prepared)` once a trainer is built; gives the trainers."""
    build, trainers = session.build_trainer, []

    def built(prepared, *others, **named):
        trainers.append(build(prepared, *others, **named))
        change(trainers[0], prepared)
        return trainers[0]

    monkeypatch.setattr(session, "build_trainer", built)
    return trainers


def break_odd_texts(trainer, prepared):
    odd = prepared.tokenizer.convert_tokens_to_ids(ODD)

    def spoil(module, inputs, output):
        return output.masked_fill((inputs[0] == odd)[..., None], math.nan)

    trainer.model.get_input_embeddings().register_forward_hook(spoil)


def with_odd(number, side):
    return [row | ({side: f" {ODD}."} if n == number else {}) for n, row in enumerate(ROWS)]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_one_row_that_breaks_the_loss_is_named_by_its_source(
    run, poisoned, tmp_path, capsys, side
):
    (tmp_path / "pairs.json").write_text(json.dumps(with_odd(20, side)))
    status, out = run()
    assert status == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path}/pairs.json#21 ({side}: policy, reference) are not finite" in said
    assert ": the loss is nan; the run was stopped before the weights took it in" in said
    assert "those of the batch's other pairs (3) are; look at that row" in said
    assert all(p.isfinite().all() for p in poisoned[0].model.parameters())
    assert not (out / "run.json").exists()


def test_a_row_without_a_source_is_named_by_its_place_and_its_beginning(
    run, poisoned, tmp_path, capsys
):
    rows = Dataset.from_list(with_odd(20, "chosen"))
    DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "pairs"))
    status, _ = run(dataset_path=str(tmp_path / "pairs"), max_length=20)
    assert status == 1
    assert "train[20] ('Day 20: it was') (chosen: policy" in capsys.readouterr().err


def test_a_held_out_row_that_breaks_the_loss_is_named(run, poisoned, tmp_path, capsys):
    rows = with_odd(20, "chosen")
    splits = {"train": Dataset.from_list(rows[:12]), "test": Dataset.from_list(rows[12:])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "pairs"))
    often = {"eval_strategy": "steps", "eval_steps": 2, "precompute_ref_log_probs": False}
    status, _ = run(dataset_path=str(tmp_path / "pairs"), **often)
    assert status == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("evaluation after step 2: the loss is nan")
    assert "test[8] ('Day 20: it was') (chosen: policy, reference)" in said


def test_weights_that_a_step_broke_are_told_from_rows_that_break_the_loss(run, monkeypatch, capsys):
    class Poison(session.Progress):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(math.nan)

    monkeypatch.setattr(session, "Progress", Poison)
    status, _ = run()
    assert status == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        "step 4: the loss is nan; the run was stopped: the log-probabilities of every row" in said
    )
    assert said.count("(chosen: policy; rejected: policy)") == 4
    assert "nor are 1 of 32 weight tensors (first: base_model.model.transformer.h.0" in said
    assert "an earlier step broke them; lower learning_rate (the peak is 0.01)" in said


def test_a_loss_that_breaks_by_itself_is_said_to(run, monkeypatch, capsys):
    plain = DPOTrainer.compute_loss

    def broken(self, *args, **kwargs):
        loss = plain(self, *args, **kwargs)
        return loss * math.inf if self.state.global_step == 2 else loss

    monkeypatch.setattr(DPOTrainer, "compute_loss", broken)
    status, _ = run()
    assert status == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("step 3: the loss is inf; the run was stopped")
    assert "are all finite, so it is the loss itself: loss_type sigmoid, beta 0.1" in said


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_no_number_never_reaches_the_weights(run, monkeypatch, capsys, clip):
    def spoil(trainer, prepared):
        weight = next(p for p in trainer.model.parameters() if p.requires_grad)
        weight.register_hook(
            lambda grad: grad * math.inf if trainer.state.global_step == 1 else grad
        )

    trainers = after_building(monkeypatch, spoil)
    status, _ = run(batch_size=2, gradient_accumulation_steps=2, max_grad_norm=clip)
    assert status == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("step 2: the loss is a number, but the norm of its gradient is ")
    assert said.count("pairs.json#") == 4  # both batches that the step is made of
    assert all(torch.isfinite(p).all() for p in trainers[0].model.parameters())


@pytest.mark.parametrize(("fp16", "expected"), [(False, 1), (True, 0)])
def test_with_fp16_such_a_gradient_is_left_to_the_scaler(run, monkeypatch, fp16, expected):
    def pretend(trainer, prepared):
        trainer.args.fp16 = fp16

    after_building(monkeypatch, pretend)
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda self, model, grad_norm=None: math.inf)
    status, _ = run(max_steps=1)
    assert status == expected

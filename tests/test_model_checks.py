"""diagnostics.checks: NaN and inf stop a run and name its rows; the final KL agrees with torch.

Step 0 is tested where runs are: test_train.py, test_lora_options.py.
"""

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from training import ROWS, runner
from transformers import AutoModelForCausalLM, Trainer
from trl import DPOTrainer

from dpo_wrap.diagnostics.checks import KL_ANSWERS, measure_kl
from dpo_wrap.diagnostics.verdict import ReferenceKL
from dpo_wrap.training import session

BAD_TOKEN = "Z"  # in no row of training.py


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


def after_building(monkeypatch, change):
    """Call `change(trainer, prepared)` on every trainer that is built; returns the trainers."""
    build, trainers = session.build_trainer, []

    def built(prepared, *others, **named):
        trainers.append(build(prepared, *others, **named))
        change(trainers[-1], prepared)
        return trainers[-1]

    monkeypatch.setattr(session, "build_trainer", built)
    return trainers


@pytest.fixture
def broken_token(monkeypatch):
    """Make the model return NaN for every text with BAD_TOKEN; gives the trainers."""

    def embed_as_nan(trainer, prepared):
        bad = prepared.tokenizer.convert_tokens_to_ids(BAD_TOKEN)
        trainer.model.get_input_embeddings().register_forward_hook(
            lambda module, ids, output: output.masked_fill((ids[0] == bad)[..., None], math.nan)
        )

    return after_building(monkeypatch, embed_as_nan)


def with_bad_token(number, side):
    return [row | ({side: f" {BAD_TOKEN}."} if n == number else {}) for n, row in enumerate(ROWS)]


def last_error(capsys):
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_row_that_breaks_the_loss_is_named_by_its_source(
    run, broken_token, tmp_path, capsys, side
):
    (tmp_path / "pairs.json").write_text(json.dumps(with_bad_token(20, side)))
    status, out = run()
    assert status == 1
    error = last_error(capsys)
    assert ": the loss is nan; the run was stopped before the weights were updated" in error
    assert f"{tmp_path}/pairs.json#21 ({side}) are NaN or inf" in error
    assert "those of the other pairs of the batch (3) are finite; fix these rows" in error
    assert all(p.isfinite().all() for p in broken_token[0].model.parameters())
    assert not (out / "run.json").exists()


def test_a_held_out_row_that_breaks_the_loss_is_named_by_its_position(
    run, broken_token, tmp_path, capsys
):
    rows = with_bad_token(20, "chosen")
    splits = {"train": Dataset.from_list(rows[:12]), "test": Dataset.from_list(rows[12:])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "pairs"))
    often = {"eval_strategy": "steps", "eval_steps": 2, "precompute_ref_log_probs": False}
    status, _ = run(dataset_path=str(tmp_path / "pairs"), **often)
    assert status == 1
    error = last_error(capsys)
    assert error.startswith("evaluation after step 2: the loss is nan")
    assert "test[8] (chosen) are NaN or inf" in error


def test_weights_that_a_step_broke_are_named(run, monkeypatch, capsys):
    class Poison(session.Progress):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(math.nan)

    monkeypatch.setattr(session, "Progress", Poison)
    status, _ = run()
    assert status == 1
    error = last_error(capsys)
    assert error.startswith("step 4: the loss is nan; the run was stopped; the log-probabilities")
    assert error.count("(chosen and rejected)") == 4
    assert "so are 1 of 32 weight tensors (first: base_model.model.transformer.h.0" in error
    assert error.endswith("lower learning_rate (0.01) or max_grad_norm (1)")


def test_a_loss_that_is_not_finite_by_itself_names_its_options(run, monkeypatch, capsys):
    compute_loss = DPOTrainer.compute_loss

    def overflow(self, *args, **kwargs):
        loss = compute_loss(self, *args, **kwargs)
        return loss * math.inf if self.state.global_step == 2 else loss

    monkeypatch.setattr(DPOTrainer, "compute_loss", overflow)
    status, _ = run()
    assert status == 1
    error = last_error(capsys)
    assert error.startswith("step 3: the loss is inf; the run was stopped")
    assert "the cause is the reference or the loss: loss_type sigmoid, beta 0.1" in error


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(run, monkeypatch, capsys, clip):
    def spoil(trainer, prepared):
        weight = next(p for p in trainer.model.parameters() if p.requires_grad)
        weight.register_hook(
            lambda grad: grad * math.inf if trainer.state.global_step == 1 else grad
        )

    trainers = after_building(monkeypatch, spoil)
    status, _ = run(batch_size=2, gradient_accumulation_steps=2, max_grad_norm=clip)
    assert status == 1
    error = last_error(capsys)
    assert error.startswith("step 2: the loss is finite, but its gradient norm is ")
    assert error.count("pairs.json#") == 4  # both batches of the step
    assert all(p.isfinite().all() for p in trainers[0].model.parameters())


@pytest.mark.parametrize(("fp16", "expected"), [(False, 1), (True, 0)])
def test_with_fp16_such_a_gradient_is_left_to_the_scaler(run, monkeypatch, fp16, expected):
    after_building(monkeypatch, lambda trainer, _: setattr(trainer.args, "fp16", fp16))
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda self, model, grad_norm=None: math.inf)
    status, _ = run(max_steps=1)
    assert status == expected


KL_ROWS = Dataset.from_list(
    [
        {"prompt_ids": [5] * (n % 4), "chosen_ids": [7, n + 1, 9, 3], "rejected_ids": [8]}
        for n in range(KL_ANSWERS)
    ]
)


def kl(policy, reference=None, held_out=KL_ROWS, load=None, sharded=False):
    device = torch.device("cpu")
    options = {"max_length": 6, "truncation_mode": "keep_start", "bf16": False, "fp16": False}
    trainer = SimpleNamespace(
        model=policy,
        ref_model=reference,
        args=SimpleNamespace(device=device, **options),
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        train_dataset=KL_ROWS,
        is_deepspeed_enabled=False,
        is_fsdp_enabled=sharded,
    )
    return measure_kl(trainer, held_out, load)


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir)


def moved(model):
    """A copy with other weights, in training mode."""
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=draw)
    return other.train()


def kl_by_torch(policy, reference):
    total, count = 0.0, 0
    for row in KL_ROWS:
        prompt = row["prompt_ids"]
        ids = torch.tensor([(prompt + row["chosen_ids"])[:6]])
        positions = slice(max(0, len(prompt) - 1), -1)
        with torch.no_grad():
            one, other = (
                m.eval()(ids).logits[0, positions].double().log_softmax(-1)
                for m in (policy, reference)
            )
        total += functional.kl_div(other, one, reduction="sum", log_target=True).item()
        count += len(one)
    return total / count


def test_the_kl_is_the_mean_over_the_tokens_of_chosen_answers(model):
    policy = moved(model)
    found = kl(policy, model)
    assert policy.training
    assert found.per_token == pytest.approx(kl_by_torch(policy, model), rel=1e-4)
    assert found.source == f"{KL_ANSWERS} chosen answers of test"
    assert kl(model, copy.deepcopy(model)).per_token == 0


def test_under_lora_the_reference_is_the_model_with_its_adapter_disabled(model):
    base = copy.deepcopy(model)
    policy = get_peft_model(model, LoraConfig(fan_in_fan_out=True, init_lora_weights=False))
    found = kl(policy, held_out=KL_ROWS.select(range(KL_ANSWERS // 2 - 1)))
    assert found.source.endswith("of train")  # too few are held out
    assert found.per_token > 1e-3
    assert found.per_token == pytest.approx(kl_by_torch(policy, base), rel=1e-4)


def test_a_reference_that_training_did_not_keep_is_loaded_again(model):
    policy = moved(model)
    found = kl(policy, load=lambda: copy.deepcopy(model).train())
    assert found.per_token == pytest.approx(kl_by_torch(policy, model), rel=1e-4)


def test_where_the_kl_cannot_be_measured_the_reason_is_given(model):
    def out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    full, sharded = kl(model, load=out_of_memory), kl(model, sharded=True)
    assert full == ReferenceKL(None, "the reference or an answer's logits do not fit in memory")
    assert sharded == ReferenceKL(None, "the model is sharded")

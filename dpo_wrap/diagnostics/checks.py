"""Checks of the model: loss and margin of step 0, NaN and inf with their rows, the final KL."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from trl import DPOTrainer

from dpo_wrap.data.length_stats import kept_ids, kept_mask
from dpo_wrap.diagnostics.pairs import SIDES, batch_rows, listed
from dpo_wrap.diagnostics.verdict import ReferenceKL
from dpo_wrap.errors import ModelError
from dpo_wrap.evaluation.same_reference import FEWEST, FULL, HALF, SAME, longest, record
from dpo_wrap.logps import (
    answer_batch,
    answer_logps,
    is_half,
    mixed_precision,
    next_token_logps,
    reference_model,
)
from dpo_wrap.trl_hooks import PreparedTrainer, loss_and_margin

# Losses that are -log sigmoid(0) = ln 2 where policy and reference agree.
LN_2_LOSSES = {"sigmoid", "robust", "sigmoid_norm"}
# Nats per answer by which policy and reference may differ at step 0, whatever beta, through
# rounding in float32 and in half precision.
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.1
# Nats per token by which TRL's fused kernels may differ from a plain pass in float32 on a GPU; the
# models that it scores wrongly differ by tenths to whole nats.
SCORING = 0.02
KL_ANSWERS = 16
PREFIX = 16
"""Tokens of a row on which it is checked that a model does not see what follows."""


@dataclass(frozen=True)
class StepZero:
    """Loss and mean reward margin on the first rows before any update, dropout off.

    They are those of training mode, in which a dropout that stays on would show, unless the config
    keeps the base model's dropout.
    """

    loss: float
    margin: float
    fault: str | None


def step_zero(trainer: PreparedTrainer) -> StepZero | None:
    """Measure step 0 on a batch of the first rows; None for a sharded model, which is not set up.

    The rows are read from the dataset, as drawing a batch would shift the run's random state.
    """
    if is_sharded(trainer):
        return None
    size = min(trainer.args.per_device_train_batch_size, len(trainer.train_dataset))
    rows = [trainer.train_dataset[row] for row in range(size)]
    if trainer.base_dropout:
        return _step_zero(trainer, rows, training=False)
    zero = _step_zero(trainer, rows, training=True)
    if zero.fault and _step_zero(trainer, rows, training=False).fault is None:
        fault = (
            f"step 0 has a loss of {zero.loss:.4f} and a margin of {zero.margin:.4f} in training "
            "mode only: the code of the model adds dropout or other noise that cannot be disabled"
        )
        return dataclasses.replace(zero, fault=fault)
    return zero


def _step_zero(trainer: PreparedTrainer, rows: list[dict[str, Any]], training: bool) -> StepZero:
    args, model = trainer.args, trainer.model
    loss, margin = loss_and_margin(trainer, rows, training)
    tolerance = trainer.beta * (HALF_TOLERANCE if is_half(model, args) else TOLERANCE)
    more_terms = trainer.use_weighting or trainer.aux_loss_enabled or trainer.loss_weights != [1.0]
    starts_at_ln_2 = trainer.loss_types[0] in LN_2_LOSSES and not more_terms
    fault = None
    if abs(margin) > tolerance:
        fault = (
            f"step 0 has a margin of {margin:.4f}, not 0: the policy does not start at its "
            "reference (an adapter initialized away from zero?)"
        )
    elif starts_at_ln_2 and abs(loss - math.log(2)) > max(tolerance, 1e-4):
        fault = f"step 0 has a loss of {loss:.4f}, not ln 2 = 0.6931"
    return StepZero(loss, margin, fault)


def reference_record(trainer: DPOTrainer) -> dict[str, Any] | None:
    """What eval checks its reference with; None for a sharded model. For step 0 only."""
    if is_sharded(trainer):
        return None
    policy = trainer.accelerator.unwrap_model(trainer.model)
    # Full weights with a precomputed reference are still that reference.
    separate = trainer.ref_model or (None if isinstance(policy, PeftModel) else policy)
    training = policy.training
    policy.eval()
    try:
        with reference_model(policy, separate) as reference:
            return record(reference, trainer.train_dataset, trainer.args)
    finally:
        policy.train(training)


def check_scoring(trainer: DPOTrainer, place: str) -> None:
    """Raise ModelError if TRL scores an answer otherwise than the model itself does.

    TRL multiplies the last hidden states by the output layer's weight, and knows some scales and
    soft caps by their keys. A model that does more would be trained on log-probabilities that are
    not its own. Compared on the first row.
    """
    if is_sharded(trainer):
        return
    args, policy = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    prompt, answer = kept_ids(trainer.train_dataset[0], "chosen", longest(args), "keep_end")
    batch = answer_batch([prompt], [answer], 0)
    ids, mask, scored = (values.to(args.device) for values in batch.values())
    labels = ids.masked_fill(scored == 0, -100)
    model = policy.get_base_model() if isinstance(policy, PeftModel) else policy
    what, training = f"{place} is a {type(model).__name__}", policy.training
    policy.eval()
    try:
        _check_causal(trainer, policy, (prompt + answer)[:PREFIX], what)
        own = answer_logps(policy, batch, args).item()
        with torch.no_grad(), mixed_precision(args):
            output = policy(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    finally:
        policy.train(training)
    nats = abs(output.log_probs.sum().item() - own) / max(FEWEST, len(answer))
    exact = SCORING if args.device.type != "cpu" else FULL * SAME
    if nats > (HALF if is_half(policy, args) else exact):
        raise ModelError(
            f"{what}, which cannot be trained: TRL scores answers by "
            f"the weight of the output layer alone, {nats:.2g} nats per token off what the model's "
            "own code gives; choose a model of another family"
        )


def _check_causal(trainer: DPOTrainer, policy: nn.Module, ids: list[int], what: str) -> None:
    """Raise ModelError if a prediction depends on the tokens after it."""
    last = next((token for token in ids if token != ids[-1]), ids[-1])
    with mixed_precision(trainer.args):
        one, other = (next_token_logps(policy, row)[:-1] for row in (ids, [*ids[:-1], last]))
    nats = (one - other).nan_to_num().abs().max().item() if len(one) else 0.0
    if nats > (HALF if is_half(policy, trainer.args) else SCORING):
        raise ModelError(
            f"{what}, whose predictions change by {nats:.2g} nats with the tokens that follow, so "
            "it is not a causal language model; choose another"
        )


def describe_bad_loss(trainer: DPOTrainer, batch: dict[str, Any], loss: float) -> str:
    """One line on a loss of NaN or inf: whether its rows or the weights cause it, and the fix."""
    names = [name for name, _ in batch_rows(trainer, batch)]
    line, fix = f"{current_step(trainer)}: the loss is {loss}; the run was stopped", _fix(trainer)
    if is_sharded(trainer):
        # A forward pass on this process alone would wait for the others.
        return f"{line}; check the rows of its batch ({listed(names)}), or {fix}"
    sides = _not_finite_sides(trainer, batch)
    broken = [f"{name} ({side})" for name, side in zip(names, sides, strict=True) if side]
    if not broken:
        return (
            f"{line}; the policy's log-probabilities of its rows ({listed(names)}) are finite, so "
            f"the cause is the reference or the loss: loss_type {', '.join(trainer.loss_types)}, "
            f"beta {trainer.beta:g}, label_smoothing {trainer.label_smoothing:g}; {fix}"
        )
    if len(broken) < len(names):
        return (
            f"{line} before the weights were updated; the log-probabilities of {listed(broken)} "
            f"are NaN or inf, those of the other pairs of the batch ({len(names) - len(broken)}) "
            "are finite; fix these rows, or remove them with convert --exclude-rows"
        )
    weights = dict(trainer.model.named_parameters())
    bad = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if bad and trainer.state.global_step == 0:
        fix = "replace the model's files, or load it in a larger dtype"
    tensors = "all weights are finite"
    if bad:
        tensors = f"so are {len(bad)} of {len(weights)} weight tensors (first: {bad[0]})"
    return (
        f"{line}; the log-probabilities of all its rows ({listed(broken)}) are NaN or inf, and "
        f"{tensors}; {fix}"
    )


def describe_bad_gradient(trainer: DPOTrainer, batches: list[dict[str, Any]], norm: float) -> str:
    """One line on a step whose losses are finite and whose gradient norm is NaN or inf."""
    names = [name for batch in batches for name, _ in batch_rows(trainer, batch)]
    return (
        f"{current_step(trainer)}: the loss is finite, but its gradient norm is {norm}; the run "
        f"was stopped before the weights were updated; check the rows of the step "
        f"({listed(names)}), or {_fix(trainer)}"
    )


def current_step(trainer: DPOTrainer) -> str:
    """The step that is running, such as `step 7`, `evaluation after step 6` or `step 0`."""
    step = trainer.state.global_step
    if trainer.model.training:
        return f"step {step + 1}"
    return f"evaluation after step {step}" if step else "step 0"


def is_sharded(trainer: DPOTrainer) -> bool:
    """Whether the weights are sharded, so that no single process can run the model."""
    return trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled


def measure_kl(
    trainer: DPOTrainer, held_out: Dataset | None, load: Callable[[], nn.Module]
) -> ReferenceKL:
    """The KL from the reference over the whole vocabulary, on chosen answers spread over the rows.

    The answers are held out, unless there are few. They run one at a time, so that only one
    answer's logits are added to the memory of training. `load` gives the reference of full
    weights that were trained on precomputed log-probabilities and have none in memory.
    """
    if is_sharded(trainer):
        return ReferenceKL(None, "the model is sharded")
    enough = held_out is not None and len(held_out) >= KL_ANSWERS // 2
    rows, split = (held_out, "test") if enough else (trainer.train_dataset, "train")
    args, separate = trainer.args, trainer.ref_model
    policy = trainer.accelerator.unwrap_model(trainer.model)
    count, total, tokens, training = min(KL_ANSWERS, len(rows)), 0.0, 0, policy.training

    policy.eval()
    try:
        if separate is None and not isinstance(policy, PeftModel):
            separate = load().to(args.device).eval()
        for number in range(count):
            row = rows[number * len(rows) // count]
            cut = (row, "chosen", args.max_length, args.truncation_mode)
            prompt, answer = kept_ids(*cut)
            # The first token of a text has nothing before it.
            ids, start = prompt + answer, max(0, len(prompt) - 1)
            with mixed_precision(args):
                logps = next_token_logps(policy, ids, start)[:-1]
                with reference_model(policy, separate) as reference:
                    difference = logps - next_token_logps(reference, ids, start)[:-1]
            scored = torch.tensor(kept_mask(*cut)[-len(logps) :], device=logps.device)
            total += (logps.exp() * difference).sum(1)[scored].sum().item()
            tokens += int(scored.sum())
    except torch.OutOfMemoryError:
        return ReferenceKL(None, "the reference or an answer's logits do not fit in memory")
    finally:
        policy.train(training)
    # Rounding can make the KL negative.
    return ReferenceKL(max(0.0, total / max(1, tokens)), f"{count} chosen answers of {split}")


def _not_finite_sides(trainer: DPOTrainer, batch: dict[str, Any]) -> list[str]:
    """For each pair, the answers whose log-probability under the policy is NaN or inf, or ""."""
    fields = ("input_ids", "attention_mask", "completion_mask")
    policy = trainer.accelerator.unwrap_model(trainer.model)
    # One row at a time: the logits of a batch may not fit next to what training holds.
    finite = [
        answer_logps(policy, {f: batch[f][i : i + 1] for f in fields}, trainer.args).isfinite()
        for i in range(len(batch["input_ids"]))
    ]
    pairs = zip(finite[: len(finite) // 2], finite[len(finite) // 2 :], strict=True)
    return [
        " and ".join(side for side, ok in zip(SIDES, pair, strict=True) if not ok) for pair in pairs
    ]


def _fix(trainer: DPOTrainer) -> str:
    args = trainer.args
    if args.fp16:
        return "train in bf16 or fp32 instead of fp16"
    return f"lower learning_rate ({args.learning_rate:g}) or max_grad_norm ({args.max_grad_norm:g})"

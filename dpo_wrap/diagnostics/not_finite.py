"""A loss or a gradient that is no number: which rows, which weights, and what to do about it."""

from typing import Any

import torch
from peft import PeftModel
from trl import DPOTrainer

from dpo_wrap.diagnostics.batch_rows import listed, rows_in
from dpo_wrap.logps import answer_logps, reference_model


def loss_fault(trainer: DPOTrainer, batch: dict[str, Any], loss: float) -> str:
    """What is to be said of a batch whose loss is no number, in a line."""
    names = [row.name for row in rows_in(trainer, batch)]
    head = f"{_moment(trainer)}: the loss is {loss}; the run was stopped"
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        # A forward pass on this process alone would wait for the others.
        return f"{head}; its batch: {listed(names)}; look at those rows, else {_gentler(trainer)}"
    sides = _broken_sides(trainer, batch)
    broken = [f"{name} ({where})" for name, where in zip(names, sides, strict=True) if where]
    if not broken:
        return (
            f"{head}: the log-probabilities of its rows ({listed(names)}) are all finite, so it is "
            f"the loss itself: loss_type {', '.join(trainer.loss_types)}, beta {trainer.beta:g}, "
            f"label_smoothing {trainer.label_smoothing:g}; {_gentler(trainer)}"
        )
    if len(broken) < len(names):
        few = "that row" if len(broken) == 1 else "those rows"
        return (
            f"{head} before the weights took it in: the log-probabilities of {listed(broken)} are "
            f"not finite, those of the batch's other pairs ({len(names) - len(broken)}) are; look "
            f"at {few}, or leave {few} out: convert --exclude-rows"
        )
    every = f"{head}: the log-probabilities of every row of the batch ({listed(broken)}) are not "
    weights = dict(trainer.model.named_parameters())
    bad = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
    if not bad:
        return f"{every}finite, though all weights are; {_gentler(trainer)}"
    every += f"finite, nor are {len(bad)} of {len(weights)} weight tensors (first: {bad[0]})"
    if trainer.state.global_step == 0:
        return f"{every}, as they were loaded; the model's files are damaged, or its dtype is small"
    return f"{every}: an earlier step broke them; {_gentler(trainer)}"


def gradient_fault(trainer: DPOTrainer, batches: list[dict[str, Any]], norm: float) -> str:
    """What is to be said of a step whose losses are numbers and whose gradient is not."""
    names = [row.name for batch in batches for row in rows_in(trainer, batch)]
    return (
        f"{_moment(trainer)}: the loss is a number, but the norm of its gradient is {norm}; the "
        f"run was stopped before the weights took it in; the step's rows: {listed(names)}; look "
        f"at those, else {_gentler(trainer)}"
    )


def _moment(trainer: DPOTrainer) -> str:
    step = trainer.state.global_step
    if trainer.model.training:
        return f"step {step + 1}"
    return f"evaluation after step {step}" if step else "step 0"


def _gentler(trainer: DPOTrainer) -> str:
    if trainer.args.fp16:
        return "train in bf16 or fp32 in place of fp16"
    return (
        f"lower learning_rate (the peak is {trainer.args.learning_rate:g}) or max_grad_norm "
        f"({trainer.args.max_grad_norm:g})"
    )


def _broken_sides(trainer: DPOTrainer, batch: dict[str, Any]) -> list[str]:
    """For each pair whose log-probabilities are not finite, where that is; "" for the others.

    Row by row, as a batch's whole logits may not fit beside what training holds.
    """
    names = ("input_ids", "attention_mask", "completion_mask")
    rows = [{n: batch[n][i : i + 1] for n in names} for i in range(len(batch["input_ids"]))]
    model = trainer.accelerator.unwrap_model(trainer.model)

    def finite(scorer: torch.nn.Module) -> list[bool]:
        logps = torch.cat([answer_logps(scorer, row, trainer.args) for row in rows])
        return torch.isfinite(logps).tolist()

    found = {"policy": finite(model)}
    if "ref_chosen_logps" in batch:
        precomputed = torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
        found["reference"] = torch.isfinite(precomputed).tolist()
    elif trainer.ref_model is not None or isinstance(model, PeftModel):
        with reference_model(model, trainer.ref_model) as reference:
            found["reference"] = finite(reference)
    half = len(rows) // 2
    sides = {"chosen": 0, "rejected": half}
    return [
        "; ".join(
            f"{side}: {', '.join(bad)}"
            for side, start in sides.items()
            if (bad := [who for who, fine in found.items() if not fine[start + pair]])
        )
        for pair in range(half)
    ]

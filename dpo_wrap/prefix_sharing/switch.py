"""Prefix sharing for a trainer: switched on where it is proven on a batch, else why not."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from trl import DPOTrainer

from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import pair_lengths
from dpo_wrap.prefix_sharing.choice import unshareable
from dpo_wrap.prefix_sharing.forward import Layouts, Sharing
from dpo_wrap.prefix_sharing.layout import IGNORED
from dpo_wrap.prefix_sharing.proof import Agreement, share_if_proven
from dpo_wrap.prefix_sharing.support import attention_unsupported_reasons, class_unsupported_reasons


@dataclass(frozen=True)
class Shared:
    """What came of `prefix_sharing`."""

    models: tuple[Sharing, ...]
    """The policy's and, where it is a model by itself, the reference's; none where it is off."""
    layouts: Layouts
    reason: str | None
    """Why it is off."""
    proof: Agreement | None = None

    def line(self) -> str:
        """It in a line."""
        if self.reason is not None:
            return f"prefix sharing: off, since {self.reason}; every prompt is computed twice"
        proof = self.proof
        return (
            "prefix sharing: on, a prompt is computed once for both answers; on two pairs "
            f"{proof.tokens:,} tokens stand for {proof.padded:,}, and a token's log-probability "
            f"changes by {proof.apart:.1g} nats {'at most' if proof.exact else 'in mean'}"
        )

    @property
    def newest(self) -> int:
        """Tokens that the newest batch was run as; 0 where prompts are not shared."""
        layout = self.layouts.newest
        return layout.input_ids.numel() if layout else 0

    def figures(self) -> dict[str, Any]:
        """For run.json: tokens that the models ran over, and would have with prompts twice."""
        return {
            "on": self.reason is None,
            "reason": self.reason,
            "tokens": sum(model.tokens for model in self.models),
            "padded_tokens": sum(model.padded for model in self.models),
        }


def switched_on(trainer: DPOTrainer, settings: Settings, unsupported_reason: str | None) -> Shared:
    """Share prompts in the trainer's models. Raises ConfigError under `prefix_sharing: on`.

    `unsupported_reason` is what the config is already known to forbid it by.
    """
    if settings.prefix_sharing == "off":
        return Shared((), Layouts(), "the config says so")
    models, proof, layouts = [], None, Layouts()
    for model in _models(trainer):
        unsupported_reason = unsupported_reason or next(_obstacles(model), None)
        if unsupported_reason is None:
            sharing, proof = _proven(trainer, model, layouts)
            models.append(sharing)
            unsupported_reason = proof.fault
    if unsupported_reason is None:
        return Shared(tuple(models), layouts, None, proof)
    for sharing in filter(None, models):
        sharing.undo()
    if settings.prefix_sharing == "on":
        raise unshareable(settings, unsupported_reason)
    return Shared((), Layouts(), unsupported_reason)


def _models(trainer: DPOTrainer) -> list[PreTrainedModel]:
    policy = trainer.model
    whole = [policy.get_base_model() if isinstance(policy, PeftModel) else policy]
    if trainer.ref_model is not None:
        whole.append(trainer.accelerator.unwrap_model(trainer.ref_model))
    return whole


def _obstacles(model: PreTrainedModel) -> Iterator[str]:
    yield from class_unsupported_reasons(type(model))
    yield from attention_unsupported_reasons(model.config._attn_implementation, model.config)


def _proven(
    trainer: DPOTrainer, model: PreTrainedModel, layouts: Layouts
) -> tuple[Sharing | None, Agreement]:
    """Try it on the first pair and the longest, in the run's precision.

    The longest reaches as far as any window of the model's would on these data.
    """
    longest = int(pair_lengths(trainer.train_dataset, None).argmax())
    rows = [trainer.train_dataset[row] for row in (0, longest)]
    batch = trainer._prepare_inputs(trainer.data_collator(rows))
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    given["labels"] = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    half = trainer.args.bf16 or trainer.args.fp16 or getattr(model, "is_quantized", False)
    exact, training = not half and model.dtype == torch.float32, model.training
    model.eval()
    try:
        with trainer.accelerator.autocast():
            return share_if_proven(
                model, layouts, lambda: model(**given, fused_lm_head=True, use_cache=False), exact
            )
    finally:
        model.train(training)

"""The check at start: a model scores two pairs of the run's data with and without sharing."""

from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel
from trl import DPOTrainer

from dpo_wrap.data.length_stats import pair_lengths
from dpo_wrap.errors import one_line
from dpo_wrap.model.dropout import measuring
from dpo_wrap.prefix_sharing.forward import PrefixSharing, share_forward
from dpo_wrap.prefix_sharing.layout import IGNORE_INDEX
from dpo_wrap.prefix_sharing.support import UnsupportedModelError

FP32_TOLERANCE = 2e-4
"""Nats, for any token: twenty times the rounding that models of four layers show."""
HALF_TOLERANCE = 0.03
"""Nats, on average, in bf16 and fp16. Models of four layers in bf16 differ by 0.005 to 0.01 from
fp32 and by 0.002 from themselves with sharing; a prompt that is not seen costs whole nats."""


def share_if_equal(
    trainer: DPOTrainer, model: PreTrainedModel, sharing: PrefixSharing, training: bool
) -> None:
    """Let the model share prefixes, and compare its log-probabilities on two pairs of the data.

    They are the first pair and the longest, which exceeds a sliding window if any pair does. With
    `training` the model is in training mode. Raises as `compare`.
    """
    longest = int(pair_lengths(trainer.train_dataset, None).argmax())
    rows = [trainer.train_dataset[row] for row in (0, longest)]
    batch = send_to_device(trainer.data_collator(rows), trainer.args.device)
    arguments = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORE_INDEX),
        "fused_lm_head": True,
        "use_cache": False,
    }
    half = trainer.args.bf16 or trainer.args.fp16 or getattr(model, "is_quantized", False)
    fp32 = not half and model.dtype == torch.float32
    with measuring(model, training), trainer.accelerator.autocast():
        compare(model, sharing, arguments, fp32)


def compare(
    model: PreTrainedModel, sharing: PrefixSharing, arguments: dict[str, Any], fp32: bool
) -> None:
    """Call the model with TRL's arguments, let it share prefixes, and call it again.

    Sets `sharing.difference`. Raises UnsupportedModelError if the second call fails or gives other
    log-probabilities; `sharing.restore` then takes the change back.
    """
    with torch.no_grad():
        plain = model(**arguments)
        try:
            share_forward(model, sharing)
            log_probs = model(**arguments).log_probs
        except (UnsupportedModelError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model's own code may raise anything
            reason = f"its code fails on a shared row ({one_line(error)})"
            raise UnsupportedModelError(reason) from error
    if not sharing.tokens:
        raise UnsupportedModelError("TRL's batch is not one of pairs padded on the right")
    # Both are zero where there is no label. NaN is a difference unless it is in both.
    shared, expected = (x.nan_to_num(nan=1e6) for x in (log_probs, plain.log_probs))
    differences = (shared - expected).abs()
    if fp32:
        sharing.difference, tolerance = differences.max().item(), FP32_TOLERANCE
    else:
        mean = differences.sum() / plain.label_mask.sum().clamp(min=1)
        sharing.difference, tolerance = mean.item(), HALF_TOLERANCE
    if not sharing.difference <= tolerance:
        raise UnsupportedModelError(
            f"log-probabilities on two pairs of the data differ by {sharing.difference:.2g} nats "
            f"per token from those without sharing, more than rounding explains ({tolerance:g})"
        )
    sharing.tokens = sharing.padded_tokens = 0

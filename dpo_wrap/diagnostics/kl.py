"""How far the policy has gone from its reference: exact KL over the vocabulary, token by token."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from trl import DPOTrainer

from dpo_wrap.data.length_stats import kept_ids
from dpo_wrap.logps import mixed_precision, next_token_logps, reference_model

ANSWERS = 16


@dataclass(frozen=True)
class Drift:
    """KL(policy || reference) of the next token, mean over the tokens of chosen answers."""

    per_token: float | None
    """In nats; None where it cannot be measured."""
    split: str
    answers: int
    missing: str | None = None
    """Why it could not be measured."""


def measure_drift(
    trainer: DPOTrainer, held_out: Dataset | None, load: Callable[[], nn.Module]
) -> Drift:
    """Measure it on some chosen answers, evenly spread over the rows; changes no weight.

    Held-out answers, unless there are few. One at a time, so that no more than its logits are added
    to what training holds; but full weights that train against log-probabilities computed
    beforehand keep no reference, and `load` has to give it again.
    """
    enough = held_out is not None and len(held_out) >= ANSWERS // 2
    rows, split = (held_out, "test") if enough else (trainer.train_dataset, "train")
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return Drift(None, split, 0, "the model is sharded")
    policy = trainer.accelerator.unwrap_model(trainer.model)
    separate = trainer.ref_model
    count = min(ANSWERS, len(rows))
    args, total, tokens, training = trainer.args, 0.0, 0, policy.training
    policy.eval()
    try:
        if separate is None and not isinstance(policy, PeftModel):
            separate = load().to(args.device).eval()
        for place in range(count):
            row = rows[place * len(rows) // count]
            prompt, answer = kept_ids(row, "chosen", args.max_length, args.truncation_mode)
            # The first token of all has nothing before it.
            ids, start = prompt + answer, max(0, len(prompt) - 1)
            with mixed_precision(args), reference_model(policy, separate) as reference:
                other = next_token_logps(reference, ids, start)[:-1]
            with mixed_precision(args):
                logps = next_token_logps(policy, ids, start)[:-1]
            total += (logps.exp() * (logps - other)).sum().item()
            tokens += len(logps)
    except torch.OutOfMemoryError:
        return Drift(None, split, 0, "the reference or an answer's logits do not fit the memory")
    finally:
        policy.train(training)
    # Never negative but for rounding.
    return Drift(max(0.0, total / max(1, tokens)), split, count)

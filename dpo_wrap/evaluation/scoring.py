"""Sequence log-probabilities of policy and reference, by a plain forward pass and loss.py.

Nothing of the trainer takes part, so that these figures check its own; rows are cut and padded by
TRL's collator, as in training.
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm import tqdm
from trl import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_wrap.errors import RunError
from dpo_wrap.evaluation.models import JudgedModel
from dpo_wrap.loss import sequence_logps

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


@dataclass(frozen=True)
class Scores:
    """log pi(y|x) of both answers of every row under both models, in nats, in the rows' order."""

    policy_chosen_logps: list[float]
    policy_rejected_logps: list[float]
    reference_chosen_logps: list[float]
    reference_rejected_logps: list[float]

    @property
    def chosen_log_ratios(self) -> list[float]:
        """Policy over reference, without beta."""
        return _differences(self.policy_chosen_logps, self.reference_chosen_logps)

    @property
    def rejected_log_ratios(self) -> list[float]:
        return _differences(self.policy_rejected_logps, self.reference_rejected_logps)


def _differences(ones: list[float], others: list[float]) -> list[float]:
    return [one - other for one, other in zip(ones, others, strict=True)]


def score_rows(judged: JudgedModel, rows: Dataset, dpo: DPOConfig) -> Scores:
    """Score rows that carry prompt_ids, chosen_ids and rejected_ids. Raises RunError for NaN."""
    collate = DataCollatorForPreference(
        pad_token_id=judged.tokenizer.pad_token_id,
        max_length=dpo.max_length,
        truncation_mode=dpo.truncation_mode,
    )
    rows = rows.select_columns(list(IDS))
    size = dpo.per_device_eval_batch_size
    found = Scores([], [], [], [])
    for start in tqdm(range(0, len(rows), size), desc="scoring", disable=None):
        pairs = [rows[i] for i in range(start, min(start + size, len(rows)))]
        policy, reference = (logps.tolist() for logps in both_logps(judged, collate(pairs), dpo))
        if not all(map(math.isfinite, policy + reference)):
            raise RunError(
                f"pair {start + 1} and those scored beside it: their log-probabilities are no "
                "numbers (NaN); look at the weights of the run and of its base"
            )
        # A batch holds its chosen rows first, then its rejected ones.
        count = len(pairs)
        found.policy_chosen_logps.extend(policy[:count])
        found.policy_rejected_logps.extend(policy[count:])
        found.reference_chosen_logps.extend(reference[:count])
        found.reference_rejected_logps.extend(reference[count:])
    return found


def both_logps(
    judged: JudgedModel, batch: dict[str, Tensor], dpo: DPOConfig
) -> tuple[Tensor, Tensor]:
    """log pi(y|x) and log pi_ref(y|x) of each row of a batch as for `answer_logps`: (B,) each."""
    policy = answer_logps(judged.policy, batch, dpo)
    with judged.as_reference() as reference:
        return policy, answer_logps(reference, batch, dpo)


def answer_logps(model: nn.Module, batch: dict[str, Tensor], dpo: DPOConfig) -> Tensor:
    """log pi(y|x) of each row of input_ids, attention_mask, completion_mask: (B,), in nats."""
    batch = {name: value.to(dpo.device) for name, value in batch.items()}
    with torch.no_grad(), precision(dpo):
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
    return sequence_logps(logits, batch["input_ids"], batch["completion_mask"])


def precision(dpo: DPOConfig) -> AbstractContextManager:
    """The mixed precision that the run was trained in."""
    kind = torch.bfloat16 if dpo.bf16 else torch.float16
    return torch.autocast(dpo.device.type, dtype=kind, enabled=bool(dpo.bf16 or dpo.fp16))

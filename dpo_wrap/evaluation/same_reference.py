"""Proof that eval compares with the reference of training.

Training records the reference's log-probabilities of a few training answers in run.json, before the
first step; eval computes them again with its own reference.
"""

from typing import Any

import torch
from datasets import Dataset
from torch import nn
from trl import DPOConfig

from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import kept_ids
from dpo_wrap.errors import RunError
from dpo_wrap.logps import answer_batch, answer_logps, is_half
from dpo_wrap.run_dir import versions, weight_digests

ROWS, LONGEST = 2, 256
"""Training rows that are recorded, and the last tokens of each side that are scored."""
# Nats per token by which rounding may change an answer's log-probability on another device or with
# other libraries, in float32 and in half precision; on the same ones a tenth of it. Random models
# of 12 layers in bfloat16 on a CPU differ from float32 by a mean of 0.002 to 0.06 nats per token
# over 200 tokens, and by up to 0.09 over 5.
FULL, HALF, SAME = 1e-3, 0.1, 0.1
FEWEST = 8
"""Tokens that a shorter answer counts as, since errors of few tokens do not average out."""


def record(reference: nn.Module, rows: Dataset, args: DPOConfig) -> dict[str, Any]:
    """The reference's log-probabilities of the first rows, which `check` reads; no random numbers.

    `ids` are the tokens of the prompt and the answer, of which the last `tokens` are scored.
    """
    answers = []
    for number, row in enumerate(rows.select(range(min(ROWS, len(rows))))):
        for side in ("chosen", "rejected"):
            prompt, answer = kept_ids(row, side, longest(args), "keep_end")
            name = f"{row.get('source') or f'train[{number}]'} ({side})"
            one = {"row": name, "ids": _joined(prompt + answer), "tokens": len(answer)}
            answers.append({**one, "logps": _logps(reference, one, args)})
    return {"measured_on": _measured_on(reference, args), "answers": answers}


def longest(args: DPOConfig) -> int:
    """Tokens of a row that are scored."""
    return min(LONGEST, args.max_length or LONGEST)


def check(
    reference: nn.Module, run: dict[str, Any], settings: Settings, args: DPOConfig
) -> str | None:
    """Raise RunError if the reference is not that of run.json; returns a note if it has no record.

    The tolerance is that of rounding on the two devices.
    """
    recorded = run.get("reference")
    if not recorded:
        return (
            "the run recorded no log-probabilities of its reference (a sharded model, or a run of "
            "an older version), so it is not checked that the reference is still the same"
        )
    then, now = recorded["measured_on"], _measured_on(reference, args)
    per_token = HALF if then["half_precision"] or now["half_precision"] else FULL
    per_token *= SAME if then == now else 1
    for answer in recorded["answers"]:
        logps, limit = _logps(reference, answer, args), per_token * max(FEWEST, answer["tokens"])
        if not abs(logps - answer["logps"]) <= limit:
            files = weight_digests(settings.model_path, settings.adapter_path)
            old = {**run.get("weights", {}), **then}
            changed = [n for n, value in {**files, **now}.items() if old.get(n, value) != value]
            given = filter(None, (settings.model_path, settings.adapter_path))
            raise RunError(
                f"{settings.output_dir}: its reference is not that of training: log p of "
                f"{answer['row']} was {answer['logps']:.4f} nats and is {logps:.4f}, of which "
                f"rounding explains {limit:.2g}; changed since: "
                f"{', '.join(changed) or 'no file and no library that run.json names'}; restore "
                f"{' and '.join(given)} and the libraries as they were, or train again"
            )
    return None


def _logps(model: nn.Module, answer: dict[str, Any], args: DPOConfig) -> float:
    ids = [int(token) for token in answer["ids"].split()]
    start = len(ids) - answer["tokens"]
    return answer_logps(model, answer_batch([ids[:start]], [ids[start:]], 0), args).item()


def _joined(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def _measured_on(model: nn.Module, args: DPOConfig) -> dict[str, Any]:
    """What rounding depends on."""
    device = args.device.type
    name = torch.cuda.get_device_name(args.device) if device == "cuda" else device
    return {"device": name, "half_precision": is_half(model, args), **versions()}

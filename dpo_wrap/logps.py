"""Log-probabilities of a policy and its reference, by a plain forward pass.

The one home of such a pass outside the trainer: eval, the dry run, the NaN and KL checks and merge
call it. Natural logs; `args` is the DPOConfig of the run, for its device and mixed precision.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from trl import DPOConfig
from trl.trainer.utils import pad, use_adapter

from dpo_wrap.loss import sequence_logps

REFERENCE_ADAPTER = "ref"
"""TRL's name for the frozen copy of the adapter that training started from."""


def answer_batch(
    prompts: list[list[int]],
    answers: list[list[int]],
    pad_id: int,
    scored: list[list[bool]] | None = None,
) -> dict[str, Tensor]:
    """A right-padded batch of prompts with their answers; `scored` masks the answers' tokens."""
    pairs = list(zip(prompts, answers, strict=True))
    scored = scored or [[True] * len(answer) for answer in answers]
    ids = [torch.tensor(prompt + answer) for prompt, answer in pairs]
    masks = [
        torch.tensor([0] * len(prompt) + [*map(int, mask)])
        for prompt, mask in zip(prompts, scored, strict=True)
    ]
    return {
        "input_ids": pad(ids, padding_value=pad_id),
        "attention_mask": pad([torch.ones_like(row) for row in ids], padding_value=0),
        "completion_mask": pad(masks, padding_value=0),
    }


@torch.no_grad()
def answer_logps(model: nn.Module, batch: dict[str, Tensor], args: DPOConfig) -> Tensor:
    """log pi(y|x) of each row of input_ids, attention_mask and completion_mask: (B,), in nats."""
    ids, attention, answers = (
        batch[name].to(args.device) for name in ("input_ids", "attention_mask", "completion_mask")
    )
    with mixed_precision(args):
        logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    return sequence_logps(logits, ids, answers)


@torch.no_grad()
def next_token_logps(model: nn.Module, ids: Sequence[int], start: int = 0) -> Tensor:
    """Log-probabilities over the vocabulary after each token from `start` on: (T - start, V).

    `ids` is one sequence of T tokens without padding. The result is in float32.
    """
    row = torch.tensor([ids], device=next(model.parameters()).device)
    logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits
    return logits[0, start:].float().log_softmax(dim=-1)


def mixed_precision(args: DPOConfig) -> AbstractContextManager:
    """The autocast that the run was trained in."""
    dtype = torch.bfloat16 if args.bf16 else torch.float16
    return torch.autocast(args.device.type, dtype=dtype, enabled=bool(args.bf16 or args.fp16))


def is_half(model: nn.Module, args: DPOConfig) -> bool:
    """Whether rounding is that of half precision: by autocast, TF32, weights or quantization."""
    quantized = getattr(model, "is_quantized", False)
    return bool(args.bf16 or args.fp16 or args.tf32 or quantized or model.dtype != torch.float32)


@contextlib.contextmanager
def reference_model(policy: nn.Module, separate: nn.Module | None = None) -> Iterator[nn.Module]:
    """The reference: a model of its own, or with LoRA the policy without its trained adapter.

    An adapter that training started from is enabled in its place.
    """
    if separate is not None:
        yield separate
        return
    name = REFERENCE_ADAPTER if REFERENCE_ADAPTER in policy.peft_config else None
    with use_adapter(policy, adapter_name=name):
        yield policy

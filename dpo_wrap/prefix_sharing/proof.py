"""Whether a model says the same with and without shared prompts, measured on a batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo_wrap.errors import one_line
from dpo_wrap.prefix_sharing.attention import UnsupportedModelError
from dpo_wrap.prefix_sharing.forward import Layouts, Sharing, share

EXACT = 2e-4
"""Nats a token by which two orders of the same fp32 arithmetic may differ, at most: twenty times
what models of four layers show."""
HALF = 0.03
"""The same in bf16 and fp16, in mean. Models of four layers in bf16 come out 0.005 to 0.01 from
fp32, and 0.002 at most from themselves without sharing; a prompt that is not seen costs whole nats.
"""


@dataclass(frozen=True)
class Agreement:
    """Log-probabilities of a batch's answers, with shared prompts and without."""

    apart: float
    """Nats a token: the largest difference in fp32, the mean one in half precision."""
    exact: bool
    """Whether the model calculates in fp32."""
    tokens: int
    """Tokens of the shared row."""
    padded: int
    """Tokens of the padded batch."""
    fault: str | None
    """Why prompts cannot be shared."""


def share_if_proven(
    model: PreTrainedModel, layouts: Layouts, ask: Callable[[], Any], exact: bool
) -> tuple[Sharing | None, Agreement]:
    """Let the model share prompts if it then says what it says now; else it stays as it is.

    `ask` gives TRL's output for a batch, `exact` is whether the model calculates in fp32.
    """
    with torch.no_grad():
        plain = ask().log_probs
    sharing, found = None, None
    try:
        sharing = share(model, layouts)
        with torch.no_grad():
            shared = ask().log_probs
        found = _compared(sharing, shared, plain, exact)
    except UnsupportedModelError as error:
        found = Agreement(math.nan, exact, 0, 0, str(error))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model's own code may raise anything
        fault = f"its code fails on a shared row ({one_line(error)})"
        found = Agreement(math.nan, exact, 0, 0, fault)
    if found.fault is None:
        sharing.calls = sharing.tokens = sharing.padded = 0
        return sharing, found
    if sharing is not None:
        sharing.undo()
    return None, found


def _compared(sharing: Sharing, shared: Tensor, plain: Tensor, exact: bool) -> Agreement:
    apart, fault = _apart(shared, plain, exact), None
    limit = EXACT if exact else HALF
    if not sharing.calls:
        fault = "TRL asks the model otherwise than is known here"
    elif not apart <= limit:
        fault = (
            f"its log-probabilities come out {apart:.2g} nats a token apart on a real batch, where "
            f"{limit:g} is rounding"
        )
    return Agreement(apart, exact, sharing.tokens, sharing.padded, fault)


def _apart(shared: Tensor, plain: Tensor, exact: bool) -> float:
    """Nats a token, the largest or the mean; what is no number is to be none in both."""
    finite = plain.isfinite()
    if not torch.equal(shared.isfinite(), finite):
        return math.inf
    difference = (shared.float() - plain.float())[finite].abs()
    # Zero where nothing is scored, in both.
    scored = max(1, int((plain[finite] != 0).sum()))
    return (difference.max() if exact and finite.any() else difference.sum() / scored).item()

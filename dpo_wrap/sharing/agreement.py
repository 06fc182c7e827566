"""Whether a model says the same with and without shared prompts, measured on a batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpo_wrap.errors import one_line
from dpo_wrap.sharing.attention import CannotShareError
from dpo_wrap.sharing.forward import Sharing

EXACT = 1e-3
"""Nats a token by which two orders of the same fp32 arithmetic may differ, at most."""
HALF = 0.03
"""The same for bf16 and fp16, in mean: they round at every layer, and tests measure a third of it
between shared and not shared, as between either and fp32."""


@dataclass(frozen=True)
class Agreement:
    """Log-probabilities of a batch's answers, with shared prompts and without."""

    apart: float
    """Nats a token: the largest difference in fp32, the mean one in half precision."""
    tokens: int
    """Tokens of the shared row."""
    padded: int
    """Tokens of the padded batch."""
    fault: str | None
    """Why prompts cannot be shared."""


def agreement(sharing: Sharing, ask: Callable[[], Any], exact: bool) -> Agreement:
    """Ask the model twice; `exact` is whether it calculates in fp32."""
    before = sharing.calls, sharing.tokens, sharing.padded
    try:
        with torch.no_grad():
            shared = ask().log_probs
    except CannotShareError as error:
        return Agreement(math.nan, 0, 0, str(error))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model's own code may raise anything
        return Agreement(math.nan, 0, 0, f"its code fails on a shared row ({one_line(error)})")
    sharing.enabled = False
    try:
        with torch.no_grad():
            plain = ask().log_probs
    finally:
        sharing.enabled = True
    calls, tokens, padded = (
        now - then
        for now, then in zip((sharing.calls, sharing.tokens, sharing.padded), before, strict=True)
    )
    apart, fault = _apart(shared, plain, exact), None
    limit = EXACT if exact else HALF
    if not calls:
        fault = "TRL asks the model otherwise than is known here"
    elif not apart <= limit:
        fault = (
            f"its log-probabilities come out {apart:.2g} nats a token apart on a real batch, where "
            f"{limit:g} is rounding"
        )
    return Agreement(apart, tokens, padded, fault)


def _apart(shared: Tensor, plain: Tensor, exact: bool) -> float:
    difference = (shared.float() - plain.float()).abs()
    # Zero where nothing is scored, in both.
    scored = max(1, int((plain != 0).sum()))
    return (difference.max() if exact else difference.sum() / scored).item()

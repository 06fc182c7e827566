"""The language-model head on a CPU: log-probabilities of answers, and at once their gradient.

Stands in for TRL's own function, which defines it, where that has no kernel: its tiles are small,
and the logits are computed once for both directions.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl.trainer import utils as trl_utils

TILE, ROWS = 1 << 20, 128
"""Logits that are worked on at a time, 4 MiB in fp32, and the states that these are of at least:
fewer would read a large head's weights too often."""
OUTPUTS = {"log_probs", "entropy", "mean_logits", "is_top1"}
FUNCTION = "_ChunkedLogProbFunction"
"""TRL's name for the function that its fused head applies."""


class AnswerHead(torch.autograd.Function):
    """log softmax(hidden @ weight.T + bias) at the targets, for a head that is not trained."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, ...]:
        """hidden (M, H), weight (V, H), bias (V,), targets (M,); returns four tensors (M,):

        log-probability and entropy in nats, mean logit, whether the target is the first of the
        most likely tokens. The first alone has a gradient.
        """
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        tiles = (
            _tile(hidden, weight, bias, targets, slopes, rows) for rows in _tiles(hidden, weight)
        )
        logps, entropy, mean, top = map(torch.cat, zip(*tiles, strict=True))
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropy, mean, top)
        return logps, entropy, mean, top

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return grad[:, None] * slopes, None, None, None


def _tiles(hidden: Tensor, weight: Tensor) -> list[slice]:
    size = max(ROWS, TILE // weight.shape[0])
    return [slice(start, start + size) for start in range(0, max(1, len(hidden)), size)]


def _tile(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    slopes: Tensor | None,
    rows: slice,
) -> tuple[Tensor, ...]:
    logits = torch.nn.functional.linear(hidden[rows], weight, bias)
    wanted = targets[rows, None]
    mean, (top, place) = logits.mean(1), logits.max(1)
    aim = logits.gather(1, wanted)
    shifted = logits.sub_(top[:, None])
    share = shifted.exp()
    total = share.sum(1, keepdim=True)
    # Of shifted logits z - top: log sum exp z = top + log sum exp (z - top).
    log_total = total.log()
    entropy = log_total[:, 0] - torch.linalg.vecdot(share, shifted) / total[:, 0]
    logps = aim - top[:, None] - log_total
    if slopes is not None:
        # d log p(y) / d hidden = W[y] - sum over v of p(v) W[v].
        torch.addmm(weight[wanted[:, 0]], share.div_(total), weight, alpha=-1, out=slopes[rows])
    return logps[:, 0], entropy, mean, place == wanted[:, 0]


class _Applied:
    """What TRL's fused head finds under its function's name."""

    def __init__(self, theirs: Any):
        self.theirs = theirs

    def apply(self, *given: Any, **named: Any) -> Any:
        if named or len(given) != len(GIVEN) or not _serves(**dict(zip(GIVEN, given, strict=True))):
            return self.theirs.apply(*given, **named)
        logps, entropy, mean, top = AnswerHead.apply(*given[:4])
        return logps, entropy, None, mean, top


def _serves(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    chunk_size: int,
    softcap: float | None,
    scale: float,
    outputs: tuple[str, ...],
) -> bool:
    """Whether all is in fp32 on a CPU, and nothing is asked for that is not done here."""
    plain = temperature == 1 and softcap is None and scale == 1 and set(outputs) <= OUTPUTS
    fp32 = hidden.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    trained = weight.requires_grad or bias is not None and bias.requires_grad
    return plain and fp32 and hidden.device.type == "cpu" and not trained


GIVEN = tuple(inspect.signature(_serves).parameters)
"""What TRL applies its function to, in its order."""


@contextmanager
def answer_head() -> Iterator[None]:
    """Within the context TRL's fused head applies `AnswerHead` wherever that serves."""
    theirs = getattr(trl_utils, FUNCTION, None)
    if theirs is None:
        yield
        return
    setattr(trl_utils, FUNCTION, _Applied(theirs))
    try:
        yield
    finally:
        setattr(trl_utils, FUNCTION, theirs)

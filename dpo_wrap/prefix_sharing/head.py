"""The language-model head on a CPU: log-probabilities of labels, and their gradient at once.

TRL's fused head applies `_ChunkedLogProbFunction`, which computes the logits in the forward pass
and again in the backward pass, in tiles sized for a GPU. `FrozenHead` gives the same results from
small tiles that are computed once: as the head is not trained, the gradient by the hidden state is
known in the forward pass. TRL's function is used wherever `supports` is false.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl.trainer import utils as trl_utils

ARGUMENT_COUNT = 9
"""How many arguments TRL's function takes; `supports` names them."""
OUTPUTS = {"log_probs", "entropy", "mean_logits", "is_top1"}
TILE_LOGITS = 1 << 20
"""Logits that are held at a time: 4 MiB in fp32."""
MIN_TILE_TOKENS = 128
"""With fewer tokens a tile, the weights of a large vocabulary would be read too often."""


class FrozenHead(torch.autograd.Function):
    """log softmax(hidden @ weight.T + bias) at the targets, for a head that is not trained."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
    ) -> tuple[Tensor, ...]:
        """hidden (M, H), weight (V, H), bias (V,), targets (M,). Returns four tensors (M,).

        They are the log-probability and the entropy in nats, the mean logit, and whether the target
        is the most likely token (of equal ones the first). Only the first has a gradient.
        """
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        size = max(MIN_TILE_TOKENS, TILE_LOGITS // len(weight))
        tiles = []
        for start in range(0, max(1, len(hidden)), size):
            rows = slice(start, start + size)
            out = None if gradient is None else gradient[rows]
            tiles.append(_score(hidden[rows], weight, bias, targets[rows], out))
        log_probs, entropy, mean_logits, is_top1 = map(torch.cat, zip(*tiles, strict=True))
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropy, mean_logits, is_top1)
        return log_probs, entropy, mean_logits, is_top1

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad[:, None] * gradient, None, None, None


def _score(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, gradient: Tensor | None
) -> tuple[Tensor, ...]:
    """One tile; d log p(target) / d hidden is written into `gradient`."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    target_logits = logits.gather(1, targets[:, None])[:, 0]
    mean_logits, (top, top_token) = logits.mean(1), logits.max(1)
    # log sum exp z = top + log sum exp (z - top), which cannot overflow.
    shifted = logits.sub_(top[:, None])
    exp = shifted.exp()
    total = exp.sum(1)
    log_total = total.log()
    entropy = log_total - torch.linalg.vecdot(exp, shifted) / total
    log_probs = target_logits - top - log_total
    if gradient is not None:
        # d log p(y) / d hidden = W[y] - sum over v of p(v) W[v].
        probs = exp.div_(total[:, None])
        torch.addmm(weight[targets], probs, weight, alpha=-1, out=gradient)
    return log_probs, entropy, mean_logits, top_token == targets


def supports(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    chunk_size: int,
    softcap: float | None,
    logit_scale: float,
    outputs: tuple[str, ...],
) -> bool:
    """Whether `FrozenHead` gives what TRL's function would; the arguments are that function's."""
    plain = temperature == 1 and softcap is None and logit_scale == 1 and set(outputs) <= OUTPUTS
    fp32 = hidden.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    trained = weight.requires_grad or bias is not None and bias.requires_grad
    return plain and fp32 and hidden.device.type == "cpu" and not trained


@contextmanager
def frozen_cpu_head() -> Iterator[None]:
    """Within the context TRL's fused head applies `FrozenHead` where that is supported."""
    original = trl_utils._ChunkedLogProbFunction

    def apply(*args: Any, **kwargs: Any) -> Any:
        # A TRL that passes other arguments than those of `supports` gets its own function.
        if kwargs or len(args) != ARGUMENT_COUNT or not supports(*args):
            return original.apply(*args, **kwargs)
        log_probs, entropy, mean_logits, is_top1 = FrozenHead.apply(*args[:4])
        return log_probs, entropy, None, mean_logits, is_top1

    trl_utils._ChunkedLogProbFunction = SimpleNamespace(apply=apply)
    try:
        yield
    finally:
        trl_utils._ChunkedLogProbFunction = original

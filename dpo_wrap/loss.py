"""The losses of the DPO family in plain torch: the reference that the tests compare TRL with.

Log-probabilities are natural logs, summed over the tokens of one answer. Losses, rewards and
accuracies are per pair, of shape (B,); the caller takes the mean over the batch. For every loss, no
gradient reaches the reference, rewards have no gradient, and a tie is not counted as accurate.
Not covered: TRL's `ld_alpha` (weights of tokens), `use_weighting` (weights of pairs) and the router
loss of mixture-of-experts models.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch import sigmoid as sigma
from torch.nn.functional import logsigmoid as log_sigma


def token_logps(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log-probability of each answer token given the tokens before it: (B, T-1), 0 elsewhere.

    Args: logits (B, T, V), input_ids (B, T) and completion_mask (B, T) of 0 and 1, all unshifted;
    [:, t] of the result scores the token at t + 1. The token at 0 is never scored, even if the mask
    includes it, since no logits predict it. Ids outside the answer are ignored and may be -100.
    Half precision is cast to float32 before the softmax. Raises ValueError for other shapes.
    """
    for name, given in {"input_ids": input_ids, "completion_mask": completion_mask}.items():
        if logits.dim() != 3 or logits.shape[:2] != given.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} do not match {name} {tuple(given.shape)}: "
                f"pass logits of shape (B, T, V) and {name} of shape (B, T), both unshifted"
            )
    scored = completion_mask[:, 1:].bool()
    targets = input_ids[:, 1:].masked_fill(~scored, 0)
    logps = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    return logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1).masked_fill(~scored, 0.0)


def sequence_logps(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log-probability of each answer given its prompt: (B,), the sum of `token_logps`."""
    return token_logps(logits, input_ids, completion_mask).sum(dim=-1)


# The score s = f'(u) of an answer under an f-divergence, as a function of v = log u, where
# u = pi(y|x) / pi_ref(y|x); shifted so that s = 0 at u = 1. TRL's coefficient a is 1 minus the
# paper's alpha, and TRL limits the exponent of alpha_divergence to 80.
# Wang et al. 2023, f-DPO (arXiv 2309.16240)
DIVERGENCES = {
    "reverse_kl": lambda v, a: v,
    "forward_kl": lambda v, a: 1 - torch.exp(-v),  # 1 - 1/u
    "js_divergence": lambda v, a: math.log(2) + log_sigma(v),  # log(2u / (1 + u))
    # (u^(a - 1) - 1) / (a - 1), whose limit is log u
    "alpha_divergence": lambda v, a: v if a == 1 else torch.expm1((a - 1) * v) / (a - 1),
}


@dataclass(frozen=True, eq=False)
class Terms:
    """The inputs of a loss: tensors of shape (B,), and options with TRL's names and defaults.

    As in the papers, w is the chosen answer and l the rejected one, r = beta * s the implicit
    reward, m = r_w - r_l the reward margin and e the assumed share of wrong labels.
    """

    policy_chosen_logps: Tensor
    policy_rejected_logps: Tensor
    reference_chosen_logps: Tensor
    reference_rejected_logps: Tensor
    beta: float
    label_smoothing: float = 0.0
    discopop_tau: float = 0.05
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    chosen_lengths: Tensor | None = None  # in tokens: completion_mask.sum(dim=-1)
    rejected_lengths: Tensor | None = None

    def reward(self, policy_logps: Tensor, reference_logps: Tensor) -> Tensor:
        score, a = DIVERGENCES[self.f_divergence_type], self.f_alpha_divergence_coef
        return self.beta * score(policy_logps - reference_logps.detach(), a)

    @property
    def r_w(self) -> Tensor:
        return self.reward(self.policy_chosen_logps, self.reference_chosen_logps)

    @property
    def r_l(self) -> Tensor:
        return self.reward(self.policy_rejected_logps, self.reference_rejected_logps)

    @property
    def m(self) -> Tensor:
        return self.r_w - self.r_l

    @property
    def m_per_token(self) -> Tensor:
        lengths = self.chosen_lengths.clamp(min=1), self.rejected_lengths.clamp(min=1)
        return self.r_w / lengths[0] - self.r_l / lengths[1]

    @property
    def e(self) -> float:
        return self.label_smoothing


def smoothed(m: Tensor, e: float) -> Tensor:
    """The sigmoid loss for labels that are right with probability 1 - e."""
    return (1 - e) * -log_sigma(m) + e * -log_sigma(-m)


# Each loss with its meaning, its source, and how TRL differs from the source.
LOSSES: dict[str, Callable[[Terms], Tensor]] = {
    # Minus the Bradley-Terry log-likelihood of the label.
    # Rafailov et al. 2023, DPO (arXiv 2305.18290), eq. 7
    "sigmoid": lambda t: -log_sigma(t.m),
    # Zero from a margin of 1 on.
    # Liu et al. 2023, RSO (arXiv 2309.06657), hinge-norm, after SLiC-HF (2305.10425)
    "hinge": lambda t: torch.relu(1 - t.m),
    # (s_w/|w| - s_l/|l| - 1/(2 beta))^2. TRL divides by the lengths, as the authors advised.
    # Azar et al. 2023, IPO (arXiv 2310.12036), eq. 17, beta being its tau
    "ipo": lambda t: ((t.m_per_token - 1 / 2) / t.beta) ** 2,
    # KL divergence of (q, 1 - q) from the smoothed label (1 - e, e), q = sigma(m).
    # Ji et al. 2024, EXO (arXiv 2402.00856), eq. 16
    "exo_pair": lambda t: (
        sigma(t.m) * (log_sigma(t.m) - math.log1p(-t.e))
        + sigma(-t.m) * (log_sigma(-t.m) - math.log(t.e))
    ),
    # Increases the reward of w itself, not only the margin.
    # Chen et al. 2024, NCA (arXiv 2402.05369), section 4.1, with two answers
    "nca_pair": lambda t: -log_sigma(t.r_w) - (log_sigma(-t.r_w) + log_sigma(-t.r_l)) / 2,
    # Unbiased: its mean over labels flipped with probability e is the sigmoid loss; may be below 0.
    # Chowdhury et al. 2024, rDPO (arXiv 2403.00409), section 3.1
    "robust": lambda t: ((1 - t.e) * -log_sigma(t.m) - t.e * -log_sigma(-t.m)) / (1 - 2 * t.e),
    # Binary classification of w and l. TRL omits the reward shift (the running mean).
    # Jung et al. 2024, BCO (arXiv 2404.04656), section 4
    "bco_pair": lambda t: -log_sigma(t.r_w) - log_sigma(-t.r_l),
    # (s_w - 1/(2 beta))^2 + (s_l + 1/(2 beta))^2: the probability of winning is set to 1 and 0.
    # Wu et al. 2024, SPPO (arXiv 2405.00675), eq. 4.7, 1/beta being its eta
    "sppo_hard": lambda t: ((t.r_w - 1 / 2) ** 2 + (t.r_l + 1 / 2) ** 2) / t.beta**2,
    # log pi(w)/pi(l) of the batch, sorted, minus the reference's, sorted; smoothed by e.
    # Melnyk et al. 2024, AOT (arXiv 2406.05882), section 3, paired
    "aot": lambda t: smoothed(
        t.beta * (t.policy_chosen_logps - t.policy_rejected_logps).sort().values
        - t.beta * (t.reference_chosen_logps - t.reference_rejected_logps).detach().sort().values,
        t.e,
    ),
    # The rewards of w of the batch, sorted, minus those of l, sorted; smoothed by e.
    # Melnyk et al. 2024, AOT (arXiv 2406.05882), section 3, unpaired
    "aot_unpaired": lambda t: smoothed(t.r_w.sort().values - t.r_l.sort().values, t.e),
    # Increases w and decreases l, for chosen answers better than the model's. TRL adds 1.
    # D'Oosterlinck et al. 2024, APO (arXiv 2408.06266), eq. 7
    "apo_zero": lambda t: 1 - sigma(t.r_w) + sigma(t.r_l),
    # Decreases both, l more, for chosen answers worse than the model's. TRL adds 1.
    # D'Oosterlinck et al. 2024, APO (arXiv 2408.06266), eq. 8
    "apo_down": lambda t: sigma(t.r_w) + 1 - sigma(t.m),
    # (1 - g) times the logistic loss plus g times the exponential one, g = sigma(m / tau).
    # Lu et al. 2024, DiscoPOP (arXiv 2406.08414), eq. 5
    "discopop": lambda t: (
        -log_sigma(t.m) * sigma(-t.m / t.discopop_tau)
        + torch.exp(-t.m) * sigma(t.m / t.discopop_tau)
    ),
    # Mean over all tokens of the batch's chosen answers, the same for every pair; no reference.
    # Pang et al. 2024, Iterative RPO (arXiv 2404.19733), the NLL term, there a mean per answer
    "sft": lambda t: (-t.policy_chosen_logps.sum() / t.chosen_lengths.sum()).expand_as(t.r_w),
    # Length-normalized DPO.
    # Lambert et al. 2024, Tulu 3 (arXiv 2411.15124)
    "sigmoid_norm": lambda t: -log_sigma(t.m_per_token),
}
READS_LABEL_SMOOTHING = frozenset({"robust", "exo_pair", "aot", "aot_unpaired"})
READS_LENGTHS = frozenset({"ipo", "sft", "sigmoid_norm"})
TAKES_DIVERGENCES = READS_LENGTHS | {"sigmoid", "hinge", "exo_pair", "robust", "discopop"}


def covers(losses: Iterable[str], divergence: str, ld_alpha: Any, use_weighting: bool) -> bool:
    """Whether this module defines the loss that TRL computes with these options."""
    known = set(losses) <= LOSSES.keys() and divergence in DIVERGENCES
    return known and ld_alpha in (None, 1) and not use_weighting


@dataclass(frozen=True, eq=False)
class DPOLoss:
    """Losses (B,) with a gradient and implicit rewards (B,) without, of a batch of pairs."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def margins(self) -> Tensor:
        return self.chosen_rewards - self.rejected_rewards

    @property
    def accuracies(self) -> Tensor:
        """1 where the chosen answer has the strictly larger reward, else 0: (B,)."""
        return (self.chosen_rewards > self.rejected_rewards).to(self.chosen_rewards.dtype)


def dpo_loss(
    *logps: Tensor,
    loss_type: str | Sequence[str] = "sigmoid",
    loss_weights: Sequence[float] | None = None,
    **options: Any,
) -> DPOLoss:
    """Losses and implicit rewards of a batch; `logps` and `options` are the fields of `Terms`.

    Several losses are summed with their weights, by default 1. Rewards are
    beta * log(pi(y|x) / pi_ref(y|x)) (Rafailov et al. 2023, section 4) under any divergence, as TRL
    logs them. Raises ValueError for options that the loss does not take, and for other shapes.
    """
    types = [loss_type] if isinstance(loss_type, str) else list(loss_type)
    weights = [1.0] * len(types) if loss_weights is None else loss_weights
    t = Terms(*logps, **options)
    _check(t, types)
    kl = replace(t, f_divergence_type="reverse_kl")
    losses = sum(weight * LOSSES[name](t) for weight, name in zip(weights, types, strict=True))
    return DPOLoss(losses, chosen_rewards=kl.r_w.detach(), rejected_rewards=kl.r_l.detach())


def _check(t: Terms, types: list[str]) -> None:
    names, divergence = ", ".join(types), t.f_divergence_type
    shapes = {name: tuple(v.shape) for name, v in vars(t).items() if isinstance(v, Tensor)}
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    # (B,) with (B, 1) would broadcast to every chosen answer against every rejected one.
    one_shape = len(set(shapes.values())) == 1 and t.policy_chosen_logps.dim() == 1
    lengths_given = {"chosen_lengths", "rejected_lengths"} <= shapes.keys()
    has_lengths = lengths_given or READS_LENGTHS.isdisjoint(types)
    reads_e = not t.e or READS_LABEL_SMOOTHING & {*types}
    takes_divergence = divergence == "reverse_kl" or {*types} <= TAKES_DIVERGENCES
    known = f"use {', '.join(LOSSES)} with {', '.join(DIVERGENCES)}"
    needed = {
        f"expected one shape (B,) for all, got {listed}: sum over tokens first": one_shape,
        f"unknown loss {names} with {divergence}: {known}": covers(types, divergence, None, False),
        f"beta is {t.beta}: set a number above 0, such as 0.1": 0 < t.beta < math.inf,
        f"label_smoothing is {t.e}: set at least 0 and less than 0.5": 0 <= t.e < 0.5,
        f"label_smoothing has no effect on {names}: set it to 0, or add robust": reads_e,
        "exo_pair needs label_smoothing above 0, such as 1e-3": t.e or "exo_pair" not in types,
        f"{names} needs lengths in tokens: pass chosen_lengths, rejected_lengths": has_lengths,
        f"{divergence} is only for {', '.join(sorted(TAKES_DIVERGENCES))}": takes_divergence,
    }
    for message, holds in needed.items():
        if not holds:
            raise ValueError(message)


def sigmoid_loss_gradient(*logps: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Derivatives of the sigmoid loss by log pi(y_w|x) and by log pi(y_l|x): two tensors (B,).

    `logps` are those of `dpo_loss`. Rafailov et al. 2023, section 4, the gradient below eq. 7:
    -beta * sigma(r_l - r_w) * [grad log pi(y_w|x) - grad log pi(y_l|x)]
    """
    weight = beta * sigma(-dpo_loss(*logps, beta=beta).margins)
    return -weight, weight

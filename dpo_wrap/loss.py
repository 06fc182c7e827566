"""The DPO family in plain torch: the definition that the tests hold TRL's losses against.

Log-probabilities are natural logs, summed over the tokens of one answer and never averaged; every
figure is per pair, of shape (B,); the mean over a batch is the caller's. Three rules hold for every
loss: the reference is a constant, rewards carry no gradient, and accuracy counts no ties.
Not covered: TRL's `ld_alpha`, which weighs tokens, its `use_weighting`, which weighs pairs, and the
balancing term that it adds to any loss of a mixture of experts.
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
    """Log-probability of each answer token given all before it: (B, T-1), 0 outside the answer.

    logits (B, T, V), input_ids (B, T), completion_mask (B, T) of 0 and 1. The shift is done here:
    [t] of the result scores the token at t + 1. The token at 0 has nothing before it and is never
    scored, even where the mask claims it. Ids outside the answer are not read and may be -100. Half
    precision is raised to float32 before softmax and sum. ValueError when the shapes do not fit.
    """
    for name, given in {"input_ids": input_ids, "completion_mask": completion_mask}.items():
        if logits.dim() != 3 or logits.shape[:2] != given.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} do not fit {name} {tuple(given.shape)}:"
                f" give logits of shape (B, T, V) and {name} of shape (B, T), both unshifted"
            )
    scored = completion_mask[:, 1:].bool()
    targets = input_ids[:, 1:].masked_fill(~scored, 0)
    logps = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    return logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1).masked_fill(~scored, 0.0)


def sequence_logps(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log-probability of each answer given its prompt: (B,), the sum of `token_logps`."""
    return token_logps(logits, input_ids, completion_mask).sum(dim=-1)


# The score s = f'(u) that a divergence gives an answer, from v = log u = log pi(y|x) / pi_ref(y|x),
# shifted so that s = 0 at u = 1; TRL's coefficient a is 1 less the paper's alpha.
# Wang et al. 2023, f-DPO (arXiv 2309.16240); TRL caps the exponent of the last at 80
DIVERGENCES = {
    "reverse_kl": lambda v, a: v,
    "forward_kl": lambda v, a: 1 - torch.exp(-v),  # 1 - 1/u
    "js_divergence": lambda v, a: math.log(2) + log_sigma(v),  # log(2u / (1 + u))
    # (u^(a - 1) - 1) / (a - 1), whose limit is log u
    "alpha_divergence": lambda v, a: v if a == 1 else torch.expm1((a - 1) * v) / (a - 1),
}


@dataclass(frozen=True, eq=False)
class Terms:
    """All that a loss may depend on: tensors of shape (B,), options by TRL's names and defaults.

    As in the papers w is the chosen answer and l the rejected one; r = beta s is the implicit
    reward of an answer, m = r_w - r_l the margin, e the share of labels that are wrong.
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
    chosen_lengths: Tensor | None = None  # tokens of the answer, completion_mask.sum(dim=-1)
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
    """The sigmoid loss where a label is right with probability 1 - e only."""
    return (1 - e) * -log_sigma(m) + e * -log_sigma(-m)


# Each loss with its formula where the code is not one, its source, and what is TRL's own in it.
LOSSES: dict[str, Callable[[Terms], Tensor]] = {
    # Minus the Bradley-Terry log-likelihood of the label.
    # Rafailov et al. 2023, DPO (arXiv 2305.18290), eq. 7
    "sigmoid": lambda t: -log_sigma(t.m),
    # A pair costs nothing once its margin has reached 1.
    # Liu et al. 2023, RSO (arXiv 2309.06657), hinge-norm, after SLiC-HF (2305.10425)
    "hinge": lambda t: torch.relu(1 - t.m),
    # (s_w/|w| - s_l/|l| - 1/(2 beta))^2. TRL divides by the lengths, after word with the authors.
    # Azar et al. 2023, IPO (arXiv 2310.12036), eq. 17, beta being its tau
    "ipo": lambda t: ((t.m_per_token - 1 / 2) / t.beta) ** 2,
    # KL divergence of (q, 1 - q) from the smoothed label (1 - e, e), q = sigma(m).
    # Ji et al. 2024, EXO (arXiv 2402.00856), eq. 16
    "exo_pair": lambda t: (
        sigma(t.m) * (log_sigma(t.m) - math.log1p(-t.e))
        + sigma(-t.m) * (log_sigma(-t.m) - math.log(t.e))
    ),
    # Raises w by itself, not only against l.
    # Chen et al. 2024, NCA (arXiv 2402.05369), section 4.1, with two answers
    "nca_pair": lambda t: -log_sigma(t.r_w) - (log_sigma(-t.r_w) + log_sigma(-t.r_l)) / 2,
    # The sigmoid loss of the true labels in the mean over flips of a share e; may fall below 0.
    # Chowdhury et al. 2024, rDPO (arXiv 2403.00409), section 3.1
    "robust": lambda t: ((1 - t.e) * -log_sigma(t.m) - t.e * -log_sigma(-t.m)) / (1 - 2 * t.e),
    # A classifier of w from l. TRL leaves out the shift of both rewards by their running mean.
    # Jung et al. 2024, BCO (arXiv 2404.04656), section 4
    "bco_pair": lambda t: -log_sigma(t.r_w) - log_sigma(-t.r_l),
    # (s_w - 1/(2 beta))^2 + (s_l + 1/(2 beta))^2: an answer's chance to win is taken as 1 or 0.
    # Wu et al. 2024, SPPO (arXiv 2405.00675), eq. 4.7, 1/beta being its eta
    "sppo_hard": lambda t: ((t.r_w - 1 / 2) ** 2 + (t.r_l + 1 / 2) ** 2) / t.beta**2,
    # Over the batch, log pi(w)/pi(l) in order of size against the reference's; smoothed by e.
    # Melnyk et al. 2024, AOT (arXiv 2406.05882), section 3, paired
    "aot": lambda t: smoothed(
        t.beta * (t.policy_chosen_logps - t.policy_rejected_logps).sort().values
        - t.beta * (t.reference_chosen_logps - t.reference_rejected_logps).detach().sort().values,
        t.e,
    ),
    # Over the batch, rewards of w in order of size against those of l; smoothed by e.
    # Melnyk et al. 2024, AOT (arXiv 2406.05882), section 3, unpaired
    "aot_unpaired": lambda t: smoothed(t.r_w.sort().values - t.r_l.sort().values, t.e),
    # w up and l down, for chosen answers better than the model's. TRL adds 1.
    # D'Oosterlinck et al. 2024, APO (arXiv 2408.06266), eq. 7
    "apo_zero": lambda t: 1 - sigma(t.r_w) + sigma(t.r_l),
    # Both down, l further, for chosen answers worse than the model's. TRL adds 1.
    # D'Oosterlinck et al. 2024, APO (arXiv 2408.06266), eq. 8
    "apo_down": lambda t: sigma(t.r_w) + 1 - sigma(t.m),
    # (1 - g) times the logistic loss plus g times the exponential one, g = sigma(m / tau).
    # Lu et al. 2024, DiscoPOP (arXiv 2406.08414), eq. 5
    "discopop": lambda t: (
        -log_sigma(t.m) * sigma(-t.m / t.discopop_tau)
        + torch.exp(-t.m) * sigma(t.m / t.discopop_tau)
    ),
    # Per scored token of the batch's chosen answers: one figure for all pairs, without a reference.
    # Pang et al. 2024, Iterative RPO (arXiv 2404.19733), its NLL term, which averages by answer
    "sft": lambda t: (-t.policy_chosen_logps.sum() / t.chosen_lengths.sum()).expand_as(t.r_w),
    # The length-normalized DPO of Lambert et al. 2024, Tulu 3 (arXiv 2411.15124)
    "sigmoid_norm": lambda t: -log_sigma(t.m_per_token),
}
READS_LABEL_SMOOTHING = frozenset({"robust", "exo_pair", "aot", "aot_unpaired"})
READS_LENGTHS = frozenset({"ipo", "sft", "sigmoid_norm"})
TAKES_DIVERGENCES = READS_LENGTHS | {"sigmoid", "hinge", "exo_pair", "robust", "discopop"}


def covers(losses: Iterable[str], divergence: str, ld_alpha: Any, use_weighting: bool) -> bool:
    """Whether the loss is defined here for which TRL is given these options."""
    known = set(losses) <= LOSSES.keys() and divergence in DIVERGENCES
    return known and ld_alpha in (None, 1) and not use_weighting


@dataclass(frozen=True, eq=False)
class DPOLoss:
    """What one batch of pairs gives: losses (B,) with a gradient, rewards (B,) without."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def margins(self) -> Tensor:
        return self.chosen_rewards - self.rejected_rewards

    @property
    def accuracies(self) -> Tensor:
        """1 where the chosen answer is rewarded strictly more, else 0: (B,); a tie is no win."""
        return (self.chosen_rewards > self.rejected_rewards).to(self.chosen_rewards.dtype)


def dpo_loss(
    *logps: Tensor,
    loss_type: str | Sequence[str] = "sigmoid",
    loss_weights: Sequence[float] | None = None,
    **options: Any,
) -> DPOLoss:
    """Losses and implicit rewards of a batch; `logps` and `options` are the fields of `Terms`.

    Several losses are added, each times its weight, or 1. ValueError where the loss would not be
    the one meant. The rewards are those of reverse KL under any divergence, as in TRL's log:
    Rafailov et al. 2023, section 4: beta * log(pi(y|x) / pi_ref(y|x))
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
    # (B,) beside (B, 1) would broadcast to every chosen answer against every rejected one.
    one_shape = len(set(shapes.values())) == 1 and t.policy_chosen_logps.dim() == 1
    counted = READS_LENGTHS.isdisjoint(types) or {"chosen_lengths", "rejected_lengths"} <= {*shapes}
    read = not t.e or READS_LABEL_SMOOTHING & {*types}
    allowed = divergence == "reverse_kl" or {*types} <= TAKES_DIVERGENCES
    known = f"choose of {', '.join(LOSSES)}, under {', '.join(DIVERGENCES)}"
    needed = {
        f"expected one shape (B,) for all, got {listed}: sum over tokens first": one_shape,
        f"unknown loss {names} under {divergence}: {known}": covers(types, divergence, None, False),
        f"beta is {t.beta}: give a number above 0, such as 0.1": 0 < t.beta < math.inf,
        f"label_smoothing is {t.e}: give at least 0 and less than 0.5": 0 <= t.e < 0.5,
        f"label_smoothing has no effect on {names}: leave it at 0, or add robust": read,
        "exo_pair needs label_smoothing above 0, such as 1e-3": t.e or "exo_pair" not in types,
        f"{names} needs the tokens of the answers: pass chosen_lengths, rejected_lengths": counted,
        f"{divergence} is for {', '.join(sorted(TAKES_DIVERGENCES))} alone": allowed,
    }
    for message, holds in needed.items():
        if not holds:
            raise ValueError(message)


def sigmoid_loss_gradient(*logps: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Derivatives of each pair's sigmoid loss by log pi(y_w|x) and by log pi(y_l|x): two (B,).

    Their size is beta times how wrongly the implicit reward orders the pair; called as `dpo_loss`.
    Rafailov et al. 2023, section 4, the unnumbered gradient under eq. 7:
    -beta * sigma(r_l - r_w) * [grad log pi(y_w|x) - grad log pi(y_l|x)]
    """
    weight = beta * sigma(-dpo_loss(*logps, beta=beta).margins)
    return -weight, weight

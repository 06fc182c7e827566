"""The DPO family in plain torch: the definition that the tests hold TRL's losses against.

Log-probabilities are natural logs, summed over the tokens of one answer and never averaged; every
figure is per example, of shape (B,); the mean over a batch is the caller's. Three rules hold for
every loss: the reference is a constant, rewards carry no gradient, and accuracy counts no ties.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def token_logps(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log-probability of each answer token given all before it: (B, T-1), 0 outside the answer.

    logits (B, T, V), input_ids (B, T), completion_mask (B, T) of 0 and 1. The shift is done here:
    the logits at position t score the token at t + 1, which stands at [t] of the result. The token
    at position 0 has nothing before it and is never scored, even where the mask claims it. Ids
    outside the answer are not read, so that they may be padding or -100. Half precision is raised
    to float32 before the softmax. ValueError when the shapes do not fit.
    """
    if logits.dim() != 3 or logits.shape[:2] != input_ids.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} do not fit input_ids {tuple(input_ids.shape)}:"
            " give logits of shape (B, T, V) and input_ids of shape (B, T), both unshifted"
        )
    if completion_mask.shape != input_ids.shape:
        raise ValueError(
            f"completion_mask {tuple(completion_mask.shape)} does not fit input_ids"
            f" {tuple(input_ids.shape)}: give both as (B, T), unshifted"
        )
    scored = completion_mask[:, 1:].bool()
    targets = input_ids[:, 1:].masked_fill(~scored, 0)
    at_least_float32 = torch.promote_types(logits.dtype, torch.float32)
    logps = logits[:, :-1].to(at_least_float32).log_softmax(dim=-1)
    return logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1).masked_fill(~scored, 0.0)


def sequence_logps(logits: Tensor, input_ids: Tensor, completion_mask: Tensor) -> Tensor:
    """Log-probability of each answer given its prompt: (B,), the sum of `token_logps`.

    Summed in float32 (float64 for float64 logits), since a sum over hundreds of tokens in half
    precision is off by more than the differences that DPO learns from.
    """
    return token_logps(logits, input_ids, completion_mask).sum(dim=-1)


@dataclass(frozen=True, eq=False)
class DPOLoss:
    """What one batch of pairs gives: losses (B,) with a gradient, rewards (B,) without."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor

    @property
    def margins(self) -> Tensor:
        """How much more the implicit reward gives the chosen answer: (B,)."""
        return self.chosen_rewards - self.rejected_rewards

    @property
    def accuracies(self) -> Tensor:
        """1 where the chosen answer is rewarded strictly more, else 0: (B,); a tie is no win."""
        return (self.chosen_rewards > self.rejected_rewards).to(self.chosen_rewards.dtype)


@dataclass(frozen=True, eq=False)
class Terms:
    """All that a loss of the family may depend on; tensors are (B,)."""

    chosen_log_ratios: Tensor  # log pi(y_w|x) - log pi_ref(y_w|x)
    rejected_log_ratios: Tensor  # log pi(y_l|x) - log pi_ref(y_l|x)
    beta: float
    label_smoothing: float
    chosen_lengths: Tensor | None  # tokens of the answer, for losses that average over them
    rejected_lengths: Tensor | None

    @property
    def delta(self) -> Tensor:
        """Difference of the log-ratios, without beta: (B,)."""
        return self.chosen_log_ratios - self.rejected_log_ratios


def sigmoid(terms: Terms) -> Tensor:
    """-log sigmoid(beta * delta): minus the Bradley-Terry log-likelihood of the label.

    Rafailov et al. 2023 (arXiv 2305.18290), eq. 7
    """
    return -F.logsigmoid(terms.beta * terms.delta)


def hinge(terms: Terms) -> Tensor:
    """relu(1 - beta * delta): a pair costs nothing once delta has reached 1/beta.

    Zhao et al. 2023, SLiC-HF (arXiv 2305.10425), its calibration loss, on log-ratios, times beta
    """
    return torch.relu(1 - terms.beta * terms.delta)


def ipo(terms: Terms) -> Tensor:
    """(h - 1/(2 beta))^2, where h is the difference of the log-ratios *per token*.

    Azar et al. 2023 (arXiv 2310.12036), eq. 17, beta being its tau. The division by the answers'
    lengths is not in the paper: it is TRL's, after word with the authors. ValueError without them.
    """
    if terms.chosen_lengths is None or terms.rejected_lengths is None:
        raise ValueError(
            "ipo averages over tokens and needs the answers' lengths:"
            " pass chosen_lengths and rejected_lengths, each completion_mask.sum(dim=-1)"
        )
    chosen = terms.chosen_log_ratios / terms.chosen_lengths.clamp(min=1)
    rejected = terms.rejected_log_ratios / terms.rejected_lengths.clamp(min=1)
    return (chosen - rejected - 1 / (2 * terms.beta)) ** 2


def robust(terms: Terms) -> Tensor:
    """((1 - e) L(w, l) - e L(l, w)) / (1 - 2 e), L the sigmoid loss and e = label_smoothing.

    e is the probability that a label is flipped; over such flips the mean of this loss is the
    sigmoid loss of the true labels. It falls below zero for pairs that are already well separated.
    Chowdhury et al. 2024 (arXiv 2403.00409), the unbiased loss of rDPO
    """
    flip_rate = terms.label_smoothing
    as_labelled = -F.logsigmoid(terms.beta * terms.delta)
    as_flipped = -F.logsigmoid(-terms.beta * terms.delta)
    return ((1 - flip_rate) * as_labelled - flip_rate * as_flipped) / (1 - 2 * flip_rate)


LOSSES = {"sigmoid": sigmoid, "hinge": hinge, "ipo": ipo, "robust": robust}
READS_LABEL_SMOOTHING = frozenset({"robust"})


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    *,
    beta: float,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
    chosen_lengths: Tensor | None = None,
    rejected_lengths: Tensor | None = None,
) -> DPOLoss:
    """Losses and implicit rewards of a batch of pairs from four sequence log-probabilities (B,).

    The reference is held constant: no gradient reaches it. Lengths (B,) are the answers' token
    counts, `completion_mask.sum(dim=-1)`; losses that do not average ignore them. ValueError for
    shapes that differ, an unknown loss, beta not above 0, or label_smoothing outside [0, 0.5) or
    given to a loss that does not read it (TRL would ignore it without a word).

    Rewards: Rafailov et al. 2023, section 4: beta * log(pi(y|x) / pi_ref(y|x))
    """
    tensors = {
        "policy_chosen_logps": policy_chosen_logps,
        "policy_rejected_logps": policy_rejected_logps,
        "reference_chosen_logps": reference_chosen_logps,
        "reference_rejected_logps": reference_rejected_logps,
        "chosen_lengths": chosen_lengths,
        "rejected_lengths": rejected_lengths,
    }
    _check_shapes({name: tensor for name, tensor in tensors.items() if tensor is not None})
    if loss_type not in LOSSES:
        raise ValueError(f"unknown loss_type {loss_type!r}: choose one of {', '.join(LOSSES)}")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta is {beta}: give a number above 0, such as 0.1")
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}: it is the share of flipped labels,"
            " give at least 0 and less than 0.5"
        )
    if label_smoothing and loss_type not in READS_LABEL_SMOOTHING:
        raise ValueError(
            f"label_smoothing has no effect on {loss_type}:"
            f" leave it at 0, or use loss_type {' or '.join(sorted(READS_LABEL_SMOOTHING))}"
        )
    terms = Terms(
        chosen_log_ratios=policy_chosen_logps - reference_chosen_logps.detach(),
        rejected_log_ratios=policy_rejected_logps - reference_rejected_logps.detach(),
        beta=beta,
        label_smoothing=label_smoothing,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
    )
    return DPOLoss(
        losses=LOSSES[loss_type](terms),
        chosen_rewards=beta * terms.chosen_log_ratios.detach(),
        rejected_rewards=beta * terms.rejected_log_ratios.detach(),
    )


def sigmoid_loss_gradient(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Derivatives of each example's sigmoid loss by its two policy log-probabilities: two (B,).

    The first is by log pi(y_w|x), never positive; the second by log pi(y_l|x), its negative. Their
    size is beta times how wrongly the implicit reward orders the pair. The gradient of the batch's
    mean loss in the model's parameters is that of the two log-probabilities, weighted by these and
    divided by B. ValueError as in `dpo_loss`.

    Rafailov et al. 2023, section 4, the unnumbered gradient under eq. 7:
    -beta * sigmoid(r(y_l) - r(y_w)) * [grad log pi(y_w|x) - grad log pi(y_l|x)]
    """
    with torch.no_grad():
        pairs = dpo_loss(
            policy_chosen_logps,
            policy_rejected_logps,
            reference_chosen_logps,
            reference_rejected_logps,
            beta=beta,
        )
        weight = beta * torch.sigmoid(pairs.rejected_rewards - pairs.chosen_rewards)
    return -weight, weight


def _check_shapes(tensors: dict[str, Tensor]) -> None:
    # (B,) beside (B, 1) would broadcast to every chosen answer against every rejected one.
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or len(shapes["policy_chosen_logps"]) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected one shape (B,) for all, got {listed}: sum over tokens first")

"""The losses compared with hand-worked numbers, their gradients and refusals."""

import ast
import math
import re
from typing import get_args

import pytest
import torch

from dpo_wrap.library_fields import TRAINER, source, trl_fields
from dpo_wrap.loss import (
    DIVERGENCES,
    LOSSES,
    READS_LABEL_SMOOTHING,
    TAKES_DIVERGENCES,
    Terms,
    dpo_loss,
    sequence_logps,
    sigmoid_loss_gradient,
    token_logps,
)

LN2 = math.log(2)
LN3 = math.log(3)


def options_of(loss_type):
    return {"label_smoothing": 0.2} if loss_type in READS_LABEL_SMOOTHING else {}


def lengths(chosen, rejected):
    return dict(chosen_lengths=torch.tensor(chosen), rejected_lengths=torch.tensor(rejected))


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def of_log_ratios(chosen, rejected, *, beta=0.5, **options):
    """The loss of pairs with these log-ratios; the reference is not zero."""
    chosen, rejected = tensor(*chosen), tensor(*rejected)
    reference = torch.full_like(chosen, -7.0)
    return dpo_loss(
        chosen + reference, rejected + 2 * reference, reference, 2 * reference, beta=beta, **options
    )


def close(actual, *expected, rtol=1e-12, atol=1e-12):
    torch.testing.assert_close(actual, tensor(*expected), rtol=rtol, atol=atol)


# The logits are logs of whole numbers, so that a probability is a share of their sum:
# positions 0 to 3 give the three tokens of the vocabulary 1:1:2, 2:1:1, 1:6:1 and 5:1:1.
LOGITS = torch.log(tensor([1, 1, 2], [2, 1, 1], [1, 6, 1], [5, 1, 1])).unsqueeze(0)
IDS = torch.tensor([[1, 2, 0, 1]])


def test_each_token_is_scored_by_the_logits_one_position_before_it():
    mask = torch.tensor([[0, 1, 1, 1]])
    # Token 2 after position 0: 2/4. Token 0 after position 1: 2/4. Token 1 after position 2: 6/8.
    close(token_logps(LOGITS, IDS, mask)[0], math.log(1 / 2), math.log(1 / 2), math.log(3 / 4))
    close(sequence_logps(LOGITS, IDS, mask), math.log(3 / 16))


@pytest.mark.parametrize(
    "mask, logps",
    [
        ([0, 0, 0, 1], [0, 0, math.log(3 / 4)]),
        ([0, 0, 1, 0], [0, math.log(1 / 2), 0]),
        ([0, 0, 0, 0], [0, 0, 0]),
        # The first token has nothing before it and is not scored.
        ([1, 1, 1, 1], [math.log(1 / 2), math.log(1 / 2), math.log(3 / 4)]),
    ],
)
def test_only_answer_tokens_are_scored_and_other_ids_are_not_read(mask, logps):
    mask = torch.tensor([mask])
    close(token_logps(LOGITS, IDS, mask)[0], *logps)
    close(sequence_logps(LOGITS, IDS.masked_fill(mask == 0, -100), mask), sum(logps))


def test_rows_are_summed_separately_and_a_single_token_scores_zero():
    ids = torch.tensor([[1, 2, 0, 1], [0, 0, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0]])
    # Second row: token 0 after position 0 is 1/4, after position 1 it is 2/4.
    close(sequence_logps(LOGITS.expand(2, -1, -1), ids, mask), math.log(3 / 16), math.log(1 / 8))
    close(sequence_logps(LOGITS[:, :1], IDS[:, :1], torch.tensor([[1]])), 0)


def test_half_precision_logits_are_summed_in_float32():
    torch.manual_seed(0)
    logits = torch.randn(2, 200, 5).to(torch.bfloat16)
    ids, mask = torch.randint(5, (2, 200)), torch.ones(2, 200, dtype=torch.long)
    logps = sequence_logps(logits, ids, mask)
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps, sequence_logps(logits.float(), ids, mask), rtol=0, atol=0)
    assert sequence_logps(logits.double(), ids, mask).dtype == torch.float64


@pytest.mark.parametrize(
    "logits, ids, mask, message",
    [
        ((2, 4), (2, 4), (2, 4), r"logits \(2, 4\) do not match input_ids \(2, 4\)"),
        ((2, 3, 9), (2, 4), (2, 4), r"logits \(2, 3, 9\) do not match .*\(2, 4\): .*unshifted"),
        ((2, 4, 9), (2, 4), (2, 3), r"logits \(2, 4, 9\) do not match completion_mask \(2, 3\)"),
    ],
)
def test_shapes_that_do_not_match_are_named(logits, ids, mask, message):
    with pytest.raises(ValueError, match=message):
        sequence_logps(torch.zeros(logits), torch.zeros(ids, dtype=torch.long), torch.ones(mask))


def test_sigmoid_of_a_correctly_and_of_a_wrongly_ordered_pair():
    # The margin is ln 3 and -ln 3: the model's probability of the label is 3/4 and 1/4.
    loss = of_log_ratios([LN3, -LN3], [-LN3, LN3], beta=0.5)
    close(loss.losses, math.log(4 / 3), math.log(4))
    close(loss.chosen_rewards, LN3 / 2, -LN3 / 2)
    close(loss.rejected_rewards, -LN3 / 2, LN3 / 2)
    close(loss.margins, LN3, -LN3)
    close(loss.accuracies, 1, 0)
    close(of_log_ratios([0], [0]).accuracies, 0)  # a tie is not accurate


LIKELY, UNLIKELY = math.log(4 / 3), math.log(4)  # -log sigma(ln 3), -log sigma(-ln 3)


@pytest.mark.parametrize(
    "loss_type, chosen, rejected, options, losses",
    [
        # No overflow where the probability of the label underflows.
        ("sigmoid", [-2000, 2000], [2000, -2000], {}, [2000, 0]),
        # A margin of (4 + 2)/4.
        ("sigmoid", [4], [-2], {"beta": 0.25}, [math.log1p(math.exp(-1.5))]),
        # 1 - margin: 1 - 3/4, 1 - 5/4 (set to 0), 1 - 4/4, 1 + 2/4.
        ("hinge", [2, 3, 4, -1], [-1, -2, 0, 1], {"beta": 0.25}, [0.25, 0, 0, 1.5]),
        # 6/3 + 2/4 - 1 and 6/4 - 2/1 - 1, squared.
        ("ipo", [6, 6], [-2, 2], lengths([3, 4], [4, 1]), [2.25, 2.25]),
        # An answer of no tokens has length 1: 0/1 - 2/1 - 1 and 2/1 - 0/1 - 1, squared.
        ("ipo", [0, 2], [2, 0], lengths([0, 1], [1, 0]), [9, 1]),
        # (3/4 ln(4/3) - 1/4 ln 4) / (1/2), which is below 0, and (3/4 ln 4 - 1/4 ln(4/3)) / (1/2).
        (
            *("robust", [2 * LN3, 0], [0, 2 * LN3], {"label_smoothing": 0.25}),
            [2 * LN2 - 1.5 * LN3, 2 * LN2 + 0.5 * LN3],
        ),
        # q = 3/4 and 1/4 compared with 1 - e = 3/4: 0, and 1/4 ln(1/3) + 3/4 ln 3.
        ("exo_pair", [LN3, -LN3], [-LN3, LN3], {"label_smoothing": 0.25}, [0, LN3 / 2]),
        # Rewards ln 3 and -ln 3, of probability 3/4 and 1/4; then swapped.
        (
            *("nca_pair", [2 * LN3, -2 * LN3], [-2 * LN3, 2 * LN3], {}),
            [LIKELY + (UNLIKELY + LIKELY) / 2, UNLIKELY + (LIKELY + UNLIKELY) / 2],
        ),
        # Rewards (ln 3, -ln 3), (-ln 3, ln 3) and (0, ln 3).
        (
            *("bco_pair", [2 * LN3, -2 * LN3, 0], [-2 * LN3, 2 * LN3, 2 * LN3], {}),
            [2 * LIKELY, 2 * UNLIKELY, LN2 + UNLIKELY],
        ),
        # (1 - 1)^2 + (-1 + 1)^2 and (3 - 1)^2 + (2 + 1)^2.
        ("sppo_hard", [1, 3], [-1, 2], {}, [0, 13]),
        # Sorted: 1 - 0, 3 - 2 and 5 - 4, times ln 3.
        ("aot_unpaired", [3, 1, 5], [4, 0, 2], {"beta": LN3}, [LIKELY] * 3),
        (
            *("aot_unpaired", [3], [2], {"beta": LN3, "label_smoothing": 0.25}),
            [0.75 * LIKELY + 0.25 * UNLIKELY],
        ),
        # Rewards (ln 3, -ln 3) and (-ln 3, -2 ln 3), of probability 3/4, 1/4 and 1/4, 1/10.
        (
            *("apo_zero", [2 * LN3, -2 * LN3], [-2 * LN3, -4 * LN3], {}),
            [1 / 4 + 1 / 4, 3 / 4 + 1 / 10],
        ),
        # The same rewards; margins 2 ln 3 and ln 3, of probability 9/10 and 3/4.
        (
            *("apo_down", [2 * LN3, -2 * LN3], [-2 * LN3, -4 * LN3], {}),
            [3 / 4 + 1 / 10, 1 / 4 + 1 / 4],
        ),
        # tau = 1: at a margin of ln 3 the exponential loss 1/3 has weight 3/4; at -ln 3 it is 3 and
        # has weight 1/4.
        (
            *("discopop", [LN3, -LN3], [-LN3, LN3], {"discopop_tau": 1.0}),
            [LIKELY / 4 + 1 / 4, 3 / 4 * UNLIKELY + 3 / 4],
        ),
        # tau = 1/20, the default: a twentieth of that margin has the same weights.
        (
            *("discopop", [LN3 / 20], [-LN3 / 20], {}),
            [math.log1p(3 ** (-1 / 20)) / 4 + 3 / 4 * 3 ** (-1 / 20)],
        ),
        # 3 ln 3 / 3 - 0, and -2 ln 3 / 4 - ln 3 / 2.
        (
            "sigmoid_norm",
            [6 * LN3, -4 * LN3],
            [0, 2 * LN3],
            lengths([3, 4], [7, 2]),
            [LIKELY, UNLIKELY],
        ),
    ],
)
def test_hand_worked_losses(loss_type, chosen, rejected, options, losses):
    found = of_log_ratios(chosen, rejected, loss_type=loss_type, **options)
    close(found.losses, *losses)
    # Rewards and margins are those of whole answers for every loss.
    beta = options.get("beta", 0.5)
    close(found.chosen_rewards, *(beta * c for c in chosen))
    close(found.margins, *(beta * (c - r) for c, r in zip(chosen, rejected, strict=True)))


def test_aot_compares_the_sorted_batch():
    # log pi(w)/pi(l) is 5 and 1, the reference's 2 and 3: sorted 1 - 2 and 5 - 3, times ln 3.
    arguments = tensor(5, 1), tensor(0, 0), tensor(2, 3), tensor(0, 0)
    loss = dpo_loss(*arguments, beta=LN3, loss_type="aot")
    close(loss.losses, UNLIKELY, math.log(10 / 9))
    close(loss.margins, 3 * LN3, -2 * LN3)  # of the pairs in their own order
    smoothed = dpo_loss(*arguments, beta=LN3, loss_type="aot", label_smoothing=0.25)
    close(smoothed.losses[:1], 0.75 * UNLIKELY + 0.25 * LIKELY)


def test_sft_is_the_mean_over_all_tokens_and_the_same_for_every_pair():
    chosen, other = tensor(-6, -2), tensor(-50, -70)
    options = dict(beta=0.5, loss_type="sft", **lengths([3, 5], [1, 9]))
    loss = dpo_loss(chosen, other, other, other, **options)
    close(loss.losses, 1, 1)  # 8 nats over 8 tokens; the means per answer are 2 and 0.4


@pytest.mark.parametrize(
    "divergence, coefficient, twice, half",
    [
        ("reverse_kl", 0.5, LN2, -LN2),
        ("forward_kl", 0.5, 1 / 2, -1),  # 1 - 1/u
        ("js_divergence", 0.5, math.log(4 / 3), math.log(2 / 3)),  # log(2u / (1 + u))
        ("alpha_divergence", 0.5, 2 - math.sqrt(2), 2 - 2 * math.sqrt(2)),  # 2 (1 - u^(-1/2))
        ("alpha_divergence", 2.0, 1, -1 / 2),  # u - 1
        ("alpha_divergence", 0.0, 1 / 2, -1),  # forward KL
        ("alpha_divergence", 1.0, LN2, -LN2),  # reverse KL, in the limit
    ],
)
def test_the_scores_of_an_answer_twice_and_half_as_likely(divergence, coefficient, twice, half):
    close(DIVERGENCES[divergence](tensor(LN2, -LN2, 0), coefficient), twice, half, 0)
    options = dict(f_divergence_type=divergence, f_alpha_divergence_coef=coefficient)
    loss = of_log_ratios([LN2], [-LN2], beta=0.5, **options)
    close(loss.losses, math.log1p(math.exp(-(twice - half) / 2)))
    close(loss.margins, LN2)  # rewards stay those of reverse KL, as TRL logs them


def test_several_losses_are_summed_with_their_weights():
    ratios = dict(chosen=[1.5, -3], rejected=[-1, 2])
    ratios |= lengths([3, 5], [1, 9])
    one, two = (of_log_ratios(**ratios, loss_type=name) for name in ("sigmoid", "sft"))
    both = of_log_ratios(**ratios, loss_type=["sigmoid", "sft"])
    assert both.losses.equal(one.losses + two.losses)
    assert both.margins.equal(one.margins)
    weighted = of_log_ratios(**ratios, loss_type=["sigmoid", "sft"], loss_weights=[0.5, 3])
    close(weighted.losses, *(0.5 * one.losses + 3 * two.losses).tolist())
    with pytest.raises(ValueError, match="zip"):
        of_log_ratios(**ratios, loss_type=["sigmoid", "sft"], loss_weights=[1.0])


EXTREMES = [-50.0, -20.0, -1e-9, 0.0, 1e-9, 20.0, 50.0]


def logps(dtype, seed=0):
    """Four log-probabilities each of random pairs and of every pair of extreme log-ratios."""
    torch.manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.tensor(EXTREMES, dtype=dtype)] * 2)
    ratios = torch.cat([torch.randn(50, 2, dtype=dtype) * 8, grid])
    reference = torch.randn(len(ratios), 2, dtype=dtype)
    policy = (ratios + reference).requires_grad_()
    return policy, reference


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_the_closed_form_gradient_equals_autograd(beta, dtype, tolerance):
    policy, reference = logps(dtype)
    arguments = (*policy.unbind(1), *reference.unbind(1))
    by_chosen, by_rejected = sigmoid_loss_gradient(*arguments, beta=beta)
    autograd = torch.autograd.grad(dpo_loss(*arguments, beta=beta).losses.sum(), policy)[0]
    assert autograd.abs().max() > 0.9 * beta, "the case must reach the steep side"
    torch.testing.assert_close(by_chosen, autograd[:, 0], rtol=tolerance, atol=tolerance * 1e-3)
    torch.testing.assert_close(by_rejected, autograd[:, 1], rtol=tolerance, atol=tolerance * 1e-3)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_rewards_carry_no_gradient_and_none_reaches_the_reference(loss_type):
    values = [tensor(-3.0 + i, -2.0 - i).requires_grad_() for i in range(4)]
    options = options_of(loss_type) | lengths([2, 7], [5, 3])
    loss = dpo_loss(*values, beta=0.3, loss_type=loss_type, **options)
    assert not loss.chosen_rewards.requires_grad and not loss.rejected_rewards.requires_grad
    assert not loss.margins.requires_grad and not loss.accuracies.requires_grad
    loss.losses.sum().backward()
    assert values[0].grad.abs().min() > 0
    assert loss_type == "sft" or values[1].grad.abs().min() > 0
    assert all(value.grad is None for value in values[2:])


@pytest.mark.parametrize(
    "options, message",
    [
        *(
            (dict(beta=b), f"beta is {b}: set a number above 0")
            for b in (0, -0.1, math.nan, math.inf)
        ),
        (dict(loss_type="sigmoyd"), "unknown loss sigmoyd with reverse_kl: use sigmoid, hinge"),
        (dict(f_divergence_type="kl"), "unknown loss sigmoid with kl: .* with reverse_kl, forw"),
        (
            dict(loss_type=["sigmoid", "apo_zero"], f_divergence_type="forward_kl"),
            "forward_kl is only for discopop, exo_pair, hinge, ipo, robust, sft, sigmoid, sigm",
        ),
        (dict(loss_type="exo_pair"), "exo_pair needs label_smoothing above 0, such as 1e-3"),
        (dict(loss_type="robust", label_smoothing=0.5), "label_smoothing is 0.5: .*less than 0"),
        (dict(loss_type="robust", label_smoothing=-0.1), "label_smoothing is -0.1: .*at least 0"),
        (dict(label_smoothing=0.1), "no effect on sigmoid: set it to 0, or add robust"),
        (dict(loss_type="hinge", label_smoothing=0.1), "no effect on hinge"),
        (dict(loss_type="ipo", label_smoothing=0.1), "no effect on ipo"),
        (dict(loss_type="ipo"), "ipo .*pass chosen_lengths, rejected_lengths"),
        (dict(loss_type="ipo", chosen_lengths=torch.tensor([1, 2])), "ipo .*pass chosen_lengths"),
        # Lengths of another batch.
        (dict(chosen_lengths=torch.tensor([4])), r"\(B,\) for all.* chosen_lengths \(1,\)"),
    ],
)
def test_a_wrong_option_is_refused_with_the_fix(options, message):
    with pytest.raises(ValueError, match=message):
        of_log_ratios([1.0, 2.0], [0.0, 1.0], **{"beta": 0.1} | options)


@pytest.mark.parametrize("wrong", range(4))
def test_shapes_that_would_broadcast_are_refused_by_name(wrong):
    arguments = [torch.zeros(3)] * 4
    arguments[wrong] = torch.zeros(3, 1)
    names = ["policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected"]
    for function in (dpo_loss, sigmoid_loss_gradient):
        with pytest.raises(ValueError, match=rf"\(B,\) for all.* {names[wrong]}_logps \(3, 1\)"):
            function(*arguments, beta=0.1)


def test_the_losses_and_what_they_read_are_those_of_the_installed_trl():
    """Names what a newer TRL has that is not defined here, and the other way round."""
    parts = re.split(r'loss_type == "(\w+)":', source(*TRAINER))
    theirs = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert sorted(theirs.keys() - LOSSES.keys()) == [], (
        "TRL has losses that loss.py does not define"
    )
    assert sorted(LOSSES.keys() - theirs.keys()) == [], "loss.py has losses that TRL has no more"
    assert len(LOSSES) == 15
    smoothing = {name for name, code in theirs.items() if "label_smoothing" in code}
    assert smoothing == READS_LABEL_SMOOTHING
    listed = re.search(r"f_divergence_loss_types = ({.*?})", source(*TRAINER))[1]
    assert ast.literal_eval(listed) == TAKES_DIVERGENCES
    assert get_args(trl_fields()["f_divergence_type"].type) == tuple(DIVERGENCES)


def test_options_have_the_defaults_of_the_installed_trl():
    defaulted = {name: d for name, d in vars(Terms).items() if name in trl_fields()}
    assert len(defaulted) == 4
    for name, default in defaulted.items():
        assert trl_fields()[name].default == default, name

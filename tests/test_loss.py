"""The losses against numbers worked by hand, the closed-form gradient against autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_wrap.loss import (
    LOSSES,
    READS_LABEL_SMOOTHING,
    dpo_loss,
    sequence_logps,
    sigmoid_loss_gradient,
    token_logps,
)

LN2 = math.log(2)
LN3 = math.log(3)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def of_log_ratios(chosen, rejected, *, beta=0.5, **options):
    """The loss of pairs whose log-ratios are these, with the reference away from zero."""
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


def test_only_tokens_under_the_mask_count():
    close(sequence_logps(LOGITS, IDS, torch.tensor([[0, 0, 0, 1]])), math.log(3 / 4))
    close(sequence_logps(LOGITS, IDS, torch.tensor([[0, 0, 1, 0]])), math.log(1 / 2))
    close(token_logps(LOGITS, IDS, torch.tensor([[0, 0, 1, 0]]))[0], 0, math.log(1 / 2), 0)
    close(sequence_logps(LOGITS, IDS, torch.tensor([[0, 0, 0, 0]])), 0)


def test_a_first_token_under_the_mask_is_not_scored_since_nothing_precedes_it():
    close(sequence_logps(LOGITS, IDS, torch.tensor([[1, 1, 1, 1]])), math.log(3 / 16))
    close(sequence_logps(LOGITS[:, :1], IDS[:, :1], torch.tensor([[1]])), 0)


def test_rows_are_summed_apart_and_not_averaged():
    ids = torch.tensor([[1, 2, 0, 1], [0, 0, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0]])
    # Second row: token 0 after position 0 is 1/4, after position 1 it is 2/4.
    close(sequence_logps(LOGITS.expand(2, -1, -1), ids, mask), math.log(3 / 16), math.log(1 / 8))


def test_ids_outside_the_answer_are_not_read():
    mask = torch.tensor([[0, 0, 1, 1]])
    labels = IDS.masked_fill(mask == 0, -100)
    close(sequence_logps(LOGITS, labels, mask), math.log(3 / 8))


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
        ((2, 4), (2, 4), (2, 4), r"logits \(2, 4\) do not fit input_ids \(2, 4\)"),
        ((2, 3, 9), (2, 4), (2, 4), r"logits \(2, 3, 9\) do not fit .*\(2, 4\): .*unshifted"),
        ((2, 4, 9), (2, 4), (2, 3), r"completion_mask \(2, 3\) does not fit input_ids \(2, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(logits, ids, mask, message):
    with pytest.raises(ValueError, match=message):
        sequence_logps(torch.zeros(logits), torch.zeros(ids, dtype=torch.long), torch.ones(mask))


def test_a_policy_equal_to_its_reference_has_the_losses_of_a_coin_toss():
    start = dict(chosen=[0, 0], rejected=[0, 0], beta=0.1)
    close(of_log_ratios(**start).losses, LN2, LN2)
    close(of_log_ratios(**start, loss_type="hinge").losses, 1, 1)
    close(of_log_ratios(**start, loss_type="robust", label_smoothing=0.2).losses, LN2, LN2)
    lengths = dict(chosen_lengths=torch.tensor([3, 5]), rejected_lengths=torch.tensor([1, 9]))
    close(of_log_ratios(**start, loss_type="ipo", **lengths).losses, 25, 25)
    assert of_log_ratios(**start).margins.eq(0).all()
    assert of_log_ratios(**start).accuracies.eq(0).all(), "a tie is no win"


def test_sigmoid_of_a_pair_ordered_rightly_and_of_one_ordered_wrongly():
    # beta * delta is ln 3 and -ln 3: the model's probability of the label is 3/4 and 1/4.
    loss = of_log_ratios([LN3, -LN3], [-LN3, LN3], beta=0.5)
    close(loss.losses, math.log(4 / 3), math.log(4))
    close(loss.chosen_rewards, LN3 / 2, -LN3 / 2)
    close(loss.rejected_rewards, -LN3 / 2, LN3 / 2)
    close(loss.margins, LN3, -LN3)
    close(loss.accuracies, 1, 0)


def test_sigmoid_stays_finite_where_the_probability_underflows():
    loss = of_log_ratios([-2000, 2000], [2000, -2000], beta=0.5)
    close(loss.losses, 2000, 0)


def test_beta_scales_the_rewards_once():
    loss = of_log_ratios([4], [-2], beta=0.25)
    close(loss.chosen_rewards, 1)
    close(loss.rejected_rewards, -0.5)
    close(loss.losses, math.log1p(math.exp(-1.5)))


def test_hinge_falls_to_zero_at_a_difference_of_one_over_beta():
    # 1 - beta * delta: 1 - 3/4, 1 - 5/4 (floored), 1 - 4/4, 1 + 2/4.
    loss = of_log_ratios([2, 3, 4, -1], [-1, -2, 0, 1], beta=0.25, loss_type="hinge")
    close(loss.losses, 0.25, 0, 0, 1.5)


def test_ipo_divides_each_log_ratio_by_its_own_length():
    loss = of_log_ratios(
        [6, 6],
        [-2, 2],
        beta=0.5,
        loss_type="ipo",
        chosen_lengths=torch.tensor([3, 4]),
        rejected_lengths=torch.tensor([4, 1]),
    )
    # 6/3 + 2/4 - 1 and 6/4 - 2/1 - 1, squared.
    close(loss.losses, 2.25, 2.25)
    close(loss.margins, 4, 2)  # rewards are not per token: beta * (6 + 2), beta * (6 - 2)


def test_ipo_takes_an_answer_without_tokens_as_one_of_one_token():
    loss = of_log_ratios(
        [0, 2],
        [2, 0],
        beta=0.5,
        loss_type="ipo",
        chosen_lengths=torch.tensor([0, 1]),
        rejected_lengths=torch.tensor([1, 0]),
    )
    close(loss.losses, 9, 1)  # 0/1 - 2/1 - 1 and 2/1 - 0/1 - 1, squared


def test_robust_subtracts_the_share_of_flipped_labels_and_rescales():
    # beta * delta = ln 3. (3/4 ln(4/3) - 1/4 ln 4) / (1/2) = ln 4 - 3/2 ln 3.
    right = of_log_ratios([2 * LN3], [0], loss_type="robust", label_smoothing=0.25)
    close(right.losses, 2 * LN2 - 1.5 * LN3)
    assert right.losses.item() < 0, "unbiased, hence not bounded by zero"
    # beta * delta = -ln 3: (3/4 ln 4 - 1/4 ln(4/3)) / (1/2) = ln 4 + 1/2 ln 3.
    wrong = of_log_ratios([0], [2 * LN3], loss_type="robust", label_smoothing=0.25)
    close(wrong.losses, 2 * LN2 + 0.5 * LN3)


def test_robust_is_unbiased_over_flipped_labels():
    """A quarter of the labels flipped: the mean of the robust loss is the sigmoid loss of truth."""
    chosen, rejected = [1.5, -3, 0.2], [-1, 2, 0.1]
    options = dict(loss_type="robust", label_smoothing=0.25)
    kept = of_log_ratios(chosen, rejected, **options).losses
    flipped = of_log_ratios(rejected, chosen, **options).losses
    true = of_log_ratios(chosen, rejected).losses
    torch.testing.assert_close(0.75 * kept + 0.25 * flipped, true)


def test_robust_without_flips_is_sigmoid():
    ratios = ([1.5, -3, 0.2], [-1, 2, 0.1])
    assert of_log_ratios(*ratios, loss_type="robust").losses.equal(of_log_ratios(*ratios).losses)


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


def test_the_closed_form_gradient_by_hand():
    # beta = 1/2. beta * delta is ln 3, 0, -ln 3: the wrong order has probability 1/4, 1/2, 3/4.
    by_chosen, by_rejected = sigmoid_loss_gradient(
        tensor(LN3, 0, -LN3), tensor(-LN3, 0, LN3), tensor(0, 0, 0), tensor(0, 0, 0), beta=0.5
    )
    close(by_chosen, -1 / 8, -1 / 4, -3 / 8)
    close(by_rejected, 1 / 8, 1 / 4, 3 / 8)


def test_the_closed_form_gradient_chains_through_a_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(11, 8), torch.nn.Tanh(), torch.nn.Linear(8, 11))
    model.double()
    ids = torch.randint(11, (6, 9))
    mask = (torch.arange(9) >= torch.tensor([[2], [3], [4]]).repeat(2, 1)).long()
    mask[4, 7:] = 0
    reference = sequence_logps(torch.randn(6, 9, 11).double(), ids, mask)

    def policy():
        return sequence_logps(model(ids), ids, mask)

    loss = dpo_loss(*policy().chunk(2), *reference.chunk(2), beta=0.7).losses.mean()
    autograd = torch.autograd.grad(loss, list(model.parameters()))
    answers = policy()
    weights = torch.cat(sigmoid_loss_gradient(*answers.chunk(2), *reference.chunk(2), beta=0.7))
    chained = torch.autograd.grad(answers, list(model.parameters()), grad_outputs=weights / 3)
    for ours, theirs in zip(chained, autograd, strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_every_gradient_agrees_with_finite_differences(loss_type):
    options = dict(label_smoothing=0.2) if loss_type in READS_LABEL_SMOOTHING else {}
    lengths = dict(chosen_lengths=torch.tensor([2, 7]), rejected_lengths=torch.tensor([5, 3]))
    reference = (tensor(-1.0, -2.0), tensor(-1.5, -0.5))

    def losses(chosen, rejected):
        return dpo_loss(
            chosen, rejected, *reference, beta=0.3, loss_type=loss_type, **options, **lengths
        ).losses

    policy = tuple(t.requires_grad_() for t in (tensor(-3.0, -0.2), tensor(-1.0, -4.0)))
    assert torch.autograd.gradcheck(losses, policy)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_rewards_carry_no_gradient_and_none_reaches_the_reference(loss_type):
    values = [tensor(-3.0, -2.0).requires_grad_() for _ in range(4)]
    lengths = dict(chosen_lengths=torch.tensor([2, 7]), rejected_lengths=torch.tensor([5, 3]))
    loss = dpo_loss(*values, beta=0.3, loss_type=loss_type, **lengths)
    assert not loss.chosen_rewards.requires_grad and not loss.rejected_rewards.requires_grad
    assert not loss.margins.requires_grad and not loss.accuracies.requires_grad
    loss.losses.sum().backward()
    assert all(value.grad.abs().min() > 0 for value in values[:2])
    assert all(value.grad is None for value in values[2:])


figures = st.floats(-100, 100, allow_nan=False, width=32)
pairs = st.lists(st.tuples(*[figures] * 4, st.integers(1, 40), st.integers(1, 40)), min_size=1)
quick = settings(max_examples=50, deadline=None, derandomize=True)
each_loss = st.sampled_from(sorted(LOSSES))


def losses_of(rows, loss_type, shift=0.0, swap=False):
    """The loss of (policy chosen, rejected, reference chosen, rejected, two lengths) rows."""
    columns = [tensor(*column) for column in zip(*rows, strict=True)]
    logps = [column + shift for column in columns[:4]]
    lengths = columns[4:]
    if swap:
        logps, lengths = [logps[i] for i in (1, 0, 3, 2)], lengths[::-1]
    return dpo_loss(
        *logps,
        beta=0.3,
        loss_type=loss_type,
        chosen_lengths=lengths[0],
        rejected_lengths=lengths[1],
        label_smoothing=0.1 if loss_type in READS_LABEL_SMOOTHING else 0.0,
    )


@quick
@given(rows=pairs, loss_type=each_loss)
def test_swapping_the_answers_negates_the_margins(rows, loss_type):
    loss, swapped = losses_of(rows, loss_type), losses_of(rows, loss_type, swap=True)
    assert swapped.margins.equal(-loss.margins)
    assert swapped.chosen_rewards.equal(loss.rejected_rewards)
    assert (loss.accuracies + swapped.accuracies).le(1).all()


@quick
@given(rows=pairs, loss_type=each_loss, shift=st.floats(-100, 100))
def test_shifting_policy_and_reference_alike_changes_nothing(rows, loss_type, shift):
    loss, shifted = losses_of(rows, loss_type), losses_of(rows, loss_type, shift=shift)
    torch.testing.assert_close(shifted.losses, loss.losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shifted.margins, loss.margins, rtol=1e-9, atol=1e-9)


@quick
@given(rows=pairs, loss_type=each_loss, seed=st.integers(0, 1000))
def test_examples_do_not_know_of_each_other(rows, loss_type, seed):
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    loss, permuted = losses_of(rows, loss_type), losses_of([rows[i] for i in order], loss_type)
    # Vectorised and scalar code may round apart in the last place.
    torch.testing.assert_close(permuted.losses, loss.losses[order], rtol=1e-14, atol=1e-14)
    assert permuted.margins.equal(loss.margins[order])
    alone = losses_of(rows[:1], loss_type)
    torch.testing.assert_close(alone.losses, loss.losses[:1], rtol=1e-14, atol=1e-14)


@quick
@given(rows=pairs)
def test_the_sigmoid_loss_falls_strictly_below_ln_2_exactly_for_a_positive_margin(rows):
    loss = losses_of(rows, "sigmoid")
    far = loss.margins.abs() > 1e-9
    assert (loss.losses < LN2)[far].equal((loss.margins > 0)[far])
    assert loss.losses.ge(0).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(beta=0), r"beta is 0: give a number above 0"),
        (dict(beta=-0.1), r"beta is -0\.1: give a number above 0"),
        (dict(beta=math.nan), r"beta is nan: give a number above 0"),
        (dict(beta=math.inf), r"beta is inf: give a number above 0"),
        (dict(loss_type="sigmoyd"), r"unknown loss_type 'sigmoyd': .* sigmoid, hinge, ipo, robust"),
        (dict(loss_type="robust", label_smoothing=0.5), r"label_smoothing is 0\.5: .*less than 0"),
        (dict(loss_type="robust", label_smoothing=-0.1), r"label_smoothing is -0\.1: .*at least 0"),
        (dict(label_smoothing=0.1), r"no effect on sigmoid: leave it at 0, or use .*robust"),
        (dict(loss_type="hinge", label_smoothing=0.1), r"no effect on hinge"),
        (dict(loss_type="ipo", label_smoothing=0.1), r"no effect on ipo"),
        (dict(loss_type="ipo"), r"ipo .*pass chosen_lengths and rejected_lengths"),
        (dict(loss_type="ipo", chosen_lengths=torch.tensor([1, 2])), r"ipo .*pass chosen_lengths"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_mend(options, message):
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


def test_log_probabilities_by_token_are_refused():
    with pytest.raises(ValueError, match=r"policy_chosen_logps \(2, 5\).*sum over tokens first"):
        dpo_loss(*[torch.zeros(2, 5)] * 4, beta=0.1)


def test_lengths_of_another_batch_are_refused():
    with pytest.raises(ValueError, match=r"\(B,\) for all.* chosen_lengths \(1,\)"):
        of_log_ratios([1, 2], [0, 1], chosen_lengths=torch.tensor([4]))

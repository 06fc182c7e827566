"""dpo_wrap.prefix_sharing.head: on a CPU the head equals TRL's, which defines it."""

import inspect

import pytest
import torch
from sharing_models import tiny
from torch.nn.functional import linear
from trl.trainer import utils as trl_utils
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE, _ChunkedLogProbFunction

from dpo_wrap.prefix_sharing import head
from dpo_wrap.prefix_sharing.head import FUNCTION, AnswerHead, answer_head

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")
GIVEN = (1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, OUTPUTS)


def states(seed, count=37, width=16, words=101, bias=True):
    torch.manual_seed(seed)
    hidden = torch.randn(count, width, requires_grad=True)
    weight = torch.randn(words, width)
    targets = linear(hidden, weight).argmax(1)
    targets[::2] = torch.randint(0, words, (len(targets[::2]),))
    return hidden, weight, torch.randn(words) if bias else None, targets


def slope(found, hidden):
    weights = torch.linspace(-1, 1, len(hidden))
    (gradient,) = torch.autograd.grad((found[0] * weights).sum(), hidden)
    return gradient


@pytest.mark.parametrize("rows", [1, 3, 128])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_every_output_and_the_gradient_are_trls(seed, bias, rows, monkeypatch):
    monkeypatch.setattr(head, "TILE", 1)
    monkeypatch.setattr(head, "ROWS", rows)
    hidden, weight, bias, targets = states(seed, bias=bias)
    theirs = _ChunkedLogProbFunction.apply(hidden, weight, bias, targets, *GIVEN)
    ours = AnswerHead.apply(hidden, weight, bias, targets)
    assert ours[3].any() and not ours[3].all()
    for one, other in zip(ours, (theirs[0], theirs[1], theirs[3], theirs[4]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope(ours, hidden), slope(theirs, hidden), rtol=1e-5, atol=1e-5)


def test_the_gradient_is_that_of_numbers_in_double():
    hidden, weight, bias, targets = (
        x.detach().double() if x.is_floating_point() else x for x in states(5, count=6)
    )
    hidden.requires_grad_()
    torch.autograd.gradcheck(
        lambda hidden: AnswerHead.apply(hidden, weight, bias, targets)[0], hidden
    )


def test_of_equal_logits_the_first_is_the_most_likely_as_in_trl():
    hidden, weight, targets = torch.zeros(2, 4), torch.randn(5, 4), torch.tensor([0, 3])
    assert AnswerHead.apply(hidden, weight, None, targets)[3].tolist() == [True, False]
    theirs = _ChunkedLogProbFunction.apply(hidden, weight, None, targets, *GIVEN)
    assert theirs[4].tolist() == [True, False]


def test_large_logits_do_not_overflow():
    hidden, weight, _, targets = states(6, bias=False)
    found = AnswerHead.apply(hidden * 1e3, weight, None, targets)
    theirs = _ChunkedLogProbFunction.apply(hidden * 1e3, weight, None, targets, *GIVEN)
    torch.testing.assert_close(found[0], theirs[0], rtol=1e-5, atol=1e-2)
    assert found[1].isfinite().all()


def test_without_a_state_there_is_nothing():
    hidden, weight, bias, targets = states(7)
    found = AnswerHead.apply(hidden[:0], weight, bias, targets[:0])
    assert [tuple(one.shape) for one in found] == [(0,)] * 4
    (gradient,) = torch.autograd.grad(found[0].sum(), hidden)
    assert not gradient.any()


def applied(monkeypatch, hidden, weight, bias, targets, *given):
    """Which of the two TRL's name leads to within the context."""
    used = []
    monkeypatch.setattr(AnswerHead, "apply", lambda *a: used.append("ours") or (None,) * 4)
    with answer_head():
        trl_utils._ChunkedLogProbFunction.apply(hidden, weight, bias, targets, *given)
    return used or ["theirs"]


def test_within_the_context_trl_applies_it_where_it_serves(monkeypatch):
    question = states(8)
    assert applied(monkeypatch, *question, *GIVEN) == ["ours"]
    assert getattr(trl_utils, FUNCTION) is _ChunkedLogProbFunction


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 0.7), (2, 30.0), (3, 0.5), (4, ("log_probs", "log_sum_sq_probs"))],
    ids=["a temperature", "a softcap", "a scale", "WPO's weights"],
)
def test_what_it_does_not_do_is_left_to_trl(monkeypatch, place, value):
    given = [*GIVEN]
    given[place] = value
    assert applied(monkeypatch, *states(9), *given) == ["theirs"]


def test_a_bias_that_is_trained_by_itself_is_left_to_trl(monkeypatch):
    hidden, weight, bias, targets = states(12)
    question = (hidden, weight, bias.requires_grad_(), targets)
    assert applied(monkeypatch, *question, *GIVEN) == ["theirs"]


def test_a_head_that_is_trained_or_in_half_precision_is_left_to_trl(monkeypatch):
    hidden, weight, bias, targets = states(10)
    trained = weight.clone().requires_grad_()
    assert applied(monkeypatch, hidden, trained, bias, targets, *GIVEN) == ["theirs"]
    half = (hidden.bfloat16(), weight.bfloat16(), bias.bfloat16(), targets)
    assert applied(monkeypatch, *half, *GIVEN) == ["theirs"]
    with torch.autocast("cpu", torch.bfloat16):
        assert applied(monkeypatch, hidden, weight, bias, targets, *GIVEN) == ["theirs"]


def test_trls_fused_head_applies_a_function_of_this_name_with_these_arguments(monkeypatch):
    """Fails by name where TRL changes it; at run time its own function is then used."""
    names = list(inspect.signature(_ChunkedLogProbFunction.forward).parameters)
    assert names == [
        *("ctx", "hidden", "weight", "bias", "targets"),
        *("temperature", "chunk_size", "final_logit_softcapping", "logit_scale", "outputs"),
    ]
    seen = []
    monkeypatch.setattr(
        trl_utils,
        FUNCTION,
        type("Spy", (), {"apply": lambda *given: seen.append(given) or [None] * 5}),
    )
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(AttributeError):  # it has no log-probabilities to go on with
        tiny("gpt2")(input_ids=ids, labels=ids, fused_lm_head=True)
    assert len(seen[0]) == len(names) - 1


def test_a_function_that_trl_calls_otherwise_is_called_as_it_asks(monkeypatch):
    class Newer:
        @staticmethod
        def apply(*given, **named):
            return given, named

    monkeypatch.setattr(trl_utils, FUNCTION, Newer)
    with answer_head():
        found = trl_utils._ChunkedLogProbFunction.apply(1, 2, three=3)
    assert found == ((1, 2), {"three": 3})
    monkeypatch.delattr(trl_utils, FUNCTION)
    with answer_head():
        assert not hasattr(trl_utils, FUNCTION)

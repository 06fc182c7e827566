"""prefix_sharing.forward: figures of the shared forward pass equal those of TRL, to rounding."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sharing_models import SHAPES, asked, assert_same_step, padded, pairs, step, tiny
from trl.trainer import utils as trl_utils

from dpo_wrap.prefix_sharing import attention, forward
from dpo_wrap.prefix_sharing.attention import UnsupportedModelError, registered
from dpo_wrap.prefix_sharing.forward import Layouts, share


@pytest.fixture(params=["by_side", "by_row"])
def lane(request, monkeypatch):
    """Each way of attention; the second is what devices other than a CPU take."""
    monkeypatch.setattr(attention, "by_side", getattr(attention, request.param))


def both(model, batch, ask=step):
    """`ask` without and with shared prompts."""
    plain = ask(model, batch)
    sharing = share(model)
    shared = ask(model, batch)
    assert sharing.calls > 0
    sharing.undo()
    return plain, shared


@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_and_gradient_is_that_of_the_padded_batch(shape, lane):
    assert_same_step(*both(tiny(shape), padded(pairs(1))))


@pytest.mark.parametrize("options", [{}, {"max_length": 12, "truncation_mode": "keep_end"}])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", ["gpt2", "mistral with a window", "gemma 2"])
def test_random_batches_agree(shape, seed, options, lane):
    batch = padded(pairs(seed, count=1 + seed % 4, prompt=(1, 30)), **options)
    assert_same_step(*both(tiny(shape, seed), batch))


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_each_kind_of_attention_that_takes_a_mask_serves(kind, lane):
    model = tiny("qwen2 with a window in two layers", attn_implementation=kind)
    assert model.config._attn_implementation == kind
    assert_same_step(*both(model, padded(pairs(2))))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("shape", ["llama", "mistral with a window"])
def test_it_holds_under_gradient_checkpointing(shape, reentrant, lane):
    plain = step(tiny(shape), padded(pairs(4)))
    model = tiny(shape)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert model.is_gradient_checkpointing
    sharing = share(model)
    assert_same_step(plain, step(model, padded(pairs(4))))
    assert sharing.calls == 1


def test_it_holds_for_an_adapter_and_its_base():
    model = tiny("llama")
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(init_lora_weights=False))
    sharing = share(adapted.get_base_model())
    batch = padded(pairs(5))
    shared = step(adapted, batch)
    with adapted.disable_adapter(), torch.no_grad():
        base = adapted(**asked(batch))
    assert sharing.calls == 2
    sharing.undo()
    assert_same_step(step(adapted, batch), shared)
    torch.testing.assert_close(base.log_probs, model(**asked(batch)).log_probs)


def test_the_weights_of_wpo_are_there_too():
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")
    plain, shared = both(tiny("gpt2", outputs=outputs), padded(pairs(6)))
    torch.testing.assert_close(plain[0].log_sum_sq_probs, shared[0].log_sum_sq_probs)


def test_half_precision_is_no_further_from_fp32_than_without_sharing(lane):
    """In nats a token, mean over answers: bf16 rounds at every layer, shared or not."""
    batch, model = padded(pairs(7, count=16)), tiny("llama")
    exact = model(**asked(batch)).log_probs
    scored = asked(batch)["labels"][:, 1:] != -100

    def half(model, batch):
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            return model(**asked(batch)).log_probs

    plain, shared = both(model, batch, half)

    def error(found):
        return (found - exact)[scored].abs().mean().item()

    assert 1e-4 < error(plain) < 0.05
    assert error(shared) < 1.2 * error(plain)


def test_a_batch_is_laid_out_once_for_the_policy_and_its_reference(monkeypatch):
    model, other, layouts = tiny("gpt2"), tiny("gpt2", seed=1), Layouts()
    sharing, laid_out, layout_of = share(model, layouts), [], forward.layout_of
    share(other, layouts)
    monkeypatch.setattr(
        forward, "layout_of", lambda *batch: laid_out.append(batch) or layout_of(*batch)
    )
    question = asked(padded(pairs(8)))
    first, second = model(**question).log_probs, model(**question).log_probs
    assert torch.equal(first, second)
    assert not torch.equal(first, other(**question).log_probs)
    assert (len(laid_out), sharing.calls) == (1, 2)
    # A batch that was written into is another batch.
    question["labels"][0, -1] = -100
    model(**question)
    assert len(laid_out) == 2


def test_tokens_are_counted():
    model, batch, layouts = tiny("gpt2"), padded(pairs(9)), Layouts()
    sharing = share(model, layouts)
    model(**asked(batch))
    assert sharing.padded == batch["input_ids"].numel()
    real = batch["attention_mask"].sum().item()
    shared = sum(span.shared for span in layouts.newest.spans)
    assert sharing.tokens == real - shared < real


def test_a_batch_without_answers_has_a_gradient_of_zero():
    model = tiny("gpt2")
    share(model)
    question = asked(padded(pairs(10)))
    question["labels"] = torch.full_like(question["labels"], -100)
    output = model(**question)
    output.log_probs.sum().backward()
    assert not output.log_probs.any()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_call_that_is_none_of_trls_goes_through_as_it_is():
    plain, model = tiny("gpt2"), tiny("gpt2")
    sharing = share(model)
    question = asked(padded(pairs(11)))
    positions = torch.arange(question["input_ids"].shape[1])[None]
    for other in (
        {"input_ids": question["input_ids"], "attention_mask": question["attention_mask"]},
        question | {"position_ids": positions},
        {name: value[:1] if isinstance(value, torch.Tensor) else value
         for name, value in question.items()},
    ):  # fmt: skip
        one, two = model(**other), plain(**other)
        name = "logits" if hasattr(one, "logits") else "log_probs"
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert sharing.calls == 0
    prompt = question["input_ids"][:1, :4]
    answers = (m.generate(prompt, max_new_tokens=5, do_sample=False) for m in (model, plain))
    assert torch.equal(*answers)


def test_undone_nothing_of_it_is_left(tmp_path):
    model = tiny("gpt2")
    before, kind = model.forward, model.config._attn_implementation
    sharing = share(model)
    assert model.config._attn_implementation == registered(kind) != kind
    # What is saved meanwhile does not name it.
    model.save_pretrained(tmp_path)
    assert "shared_prefix" not in (tmp_path / "config.json").read_text()
    sharing.undo()
    assert model.forward is before
    assert model.config._attn_implementation == kind
    assert not model.base_model._forward_hooks


def test_a_copy_of_the_model_runs_its_own_weights():
    model, batch = tiny("gpt2"), padded(pairs(12))
    share(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    expected = tiny("gpt2")
    expected.load_state_dict(other.state_dict())
    found = other(**asked(batch)).log_probs
    torch.testing.assert_close(found, expected(**asked(batch)).log_probs)
    assert (found - model(**asked(batch)).log_probs).abs().max() > 0.1


def test_it_serves_in_inference_mode_too():
    model, plain = tiny("gpt2"), tiny("gpt2")
    sharing = share(model)
    with torch.inference_mode():
        question = {
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in asked(padded(pairs(13))).items()
        }
        found = [model(**question).log_probs for _ in range(2)]
        expected = plain(**question).log_probs
    assert sharing.calls == 2
    torch.testing.assert_close(found, [expected] * 2)


def test_a_failure_in_the_middle_leaves_nothing_behind():
    model = tiny("gpt2")
    sharing, theirs = share(model), trl_utils._ChunkedLogProbFunction
    hook = model.transformer.h[1].register_forward_pre_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**asked(padded(pairs(14))))
    hook.remove()
    assert trl_utils._ChunkedLogProbFunction is theirs
    sharing.undo()
    batch = padded(pairs(14))
    assert_same_step(*both(model, batch))


def test_a_model_shares_once():
    model = tiny("gpt2")
    share(model)
    with pytest.raises(UnsupportedModelError, match="it shares prompts already"):
        share(model)

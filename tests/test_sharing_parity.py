"""Prefix sharing changes no output and no gradient: layout, forward, head, TRL's losses."""

import copy
import inspect
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sharing_models import (
    EOS,
    SHAPES,
    arguments,
    assert_same_gradients,
    assert_same_step,
    gradients,
    padded,
    pairs,
    step,
    tiny,
    without_and_with_sharing,
)
from torch.nn.functional import linear
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils as trl_utils
from trl.trainer.utils import (
    _CHUNKED_LOGPROB_CHUNK_SIZE,
    FusedCausalLMOutput,
    _ChunkedLogProbFunction,
    add_fused_lm_head,
)

from dpo_wrap.loss import LOSSES, READS_LABEL_SMOOTHING
from dpo_wrap.prefix_sharing import attention, head, share_prefixes
from dpo_wrap.prefix_sharing.forward import ARGUMENTS, PrefixSharing, share_forward
from dpo_wrap.prefix_sharing.head import FrozenHead, frozen_cpu_head
from dpo_wrap.prefix_sharing.layout import IGNORE_INDEX, build_layout

# Layout


def layout_of(batch):
    called_with = arguments(batch)
    return build_layout(*(called_with[n] for n in ("input_ids", "attention_mask", "labels")))


@pytest.mark.parametrize("seed", range(20))
def test_the_row_holds_each_distinct_token_once_at_its_position(seed):
    """Two tokens of a pair are the same if they and all before them are equal."""
    options = [{}, {"max_length": 15}, {"max_length": 15, "truncation_mode": "keep_end"}]
    batch = padded(pairs(seed, count=1 + seed % 6), **options[seed % 3])
    layout, ids, labels = layout_of(batch), batch["input_ids"], arguments(batch)["labels"]
    real = batch["attention_mask"].bool()
    lengths = real.sum(1).tolist()
    half = len(lengths) // 2
    distinct = {
        (row % half, *ids[row, : end + 1].tolist())
        for row, length in enumerate(lengths)
        for end in range(length)
    }
    assert layout.input_ids.numel() == len(distinct)
    assert torch.equal(layout.input_ids[0][layout.gather_index][real], ids[real])
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    assert torch.equal(layout.position_ids[0][layout.gather_index][real], positions[real])
    found = layout.gather_index.flatten()[layout.scatter_index]
    assert torch.equal(found, torch.arange(len(distinct)))
    in_row_order = [lengths[row] for pair in range(half) for row in (pair, half + pair)]
    assert [sequence.length for sequence in layout.sequences] == in_row_order
    assert torch.equal(layout.label_mask, labels[:, 1:] != IGNORE_INDEX)
    assert torch.equal(layout.labels[0], labels[:, 1:][layout.label_mask])
    assert torch.equal(layout.label_index, layout.gather_index[:, :-1][layout.label_mask])


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "sequences", "row", "label_index"),
    [
        ([5], [6, 7], [6, 8, 9], [(3, 0), (4, 2)], [5, 6, 7, 8, 9], [0, 1, 0, 1, 3]),
        ([5, 6], [7], [7, 8], [(3, 0), (4, 3)], [5, 6, 7, 8], [1, 1, 2]),
        ([5, 6], [7, EOS], [7], [(4, 0), (3, 3)], [5, 6, 7, EOS], [1, 2, 1]),
    ],
    ids=["answers that start alike", "chosen starts rejected", "rejected starts chosen"],
)
def test_layouts_worked_by_hand(prompt, chosen, rejected, sequences, row, label_index):
    layout = layout_of(
        padded([{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}])
    )
    assert list(layout.sequences) == sequences
    assert layout.input_ids.tolist() == [row]
    assert layout.label_index.tolist() == label_index


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: {name: value.flip(1) for name, value in batch.items()},
        lambda batch: {name: value[1:] for name, value in batch.items()},
        lambda batch: (
            batch | {"attention_mask": batch["attention_mask"].index_fill(1, torch.tensor([0]), 0)}
        ),
    ],
    ids=["padded on the left", "an odd number of rows", "a gap in the mask"],
)
def test_a_batch_that_is_not_of_pairs_padded_on_the_right_has_no_layout(change):
    batch = padded(pairs(3, count=2))
    assert layout_of(batch) is not None
    assert layout_of(change(batch)) is None


# Forward pass


@pytest.fixture(params=["attend_by_sequence", "attend_padded"])
def attend(request, monkeypatch):
    """Both ways of attention; the second is the one on devices other than a CPU."""
    monkeypatch.setattr(attention, "attend_by_sequence", getattr(attention, request.param))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_output_and_gradient_is_that_of_the_padded_batch(shape, attend):
    assert_same_step(*without_and_with_sharing(tiny(shape), padded(pairs(1))))


@pytest.mark.parametrize("options", [{}, {"max_length": 12, "truncation_mode": "keep_end"}])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", ["gpt2", "mistral with a window", "gemma 2"])
def test_random_batches_agree(shape, seed, options, attend):
    batch = padded(pairs(seed, count=1 + seed % 4, prompt=(1, 30)), **options)
    assert_same_step(*without_and_with_sharing(tiny(shape, seed), batch))


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_each_kind_of_attention_that_takes_a_mask_is_supported(kind, attend):
    model = tiny("qwen2 with a window in two layers", attn_implementation=kind)
    assert model.config._attn_implementation == kind
    assert_same_step(*without_and_with_sharing(model, padded(pairs(2))))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("shape", ["llama", "mistral with a window"])
def test_gradient_checkpointing_changes_nothing(shape, reentrant, attend):
    model, sharing, batch = tiny(shape), PrefixSharing(), padded(pairs(4))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert model.is_gradient_checkpointing
    share_forward(model, sharing)
    assert_same_step(step(tiny(shape), batch), step(model, batch))
    assert sharing.padded_tokens == batch["input_ids"].numel()


def test_policy_and_reference_use_one_layout_and_their_tokens_are_counted():
    batch, sharing = padded(pairs(8)), PrefixSharing()
    policy, reference = tiny("gpt2"), tiny("gpt2", seed=1)
    called_with = arguments(batch)
    found = []
    for model in (policy, reference):
        share_forward(model, sharing)
        model(**called_with)
        found.append(sharing.layout)
    assert found[0] is found[1]
    prefixes = sum(sequence.prefix for sequence in found[0].sequences)
    distinct = batch["attention_mask"].sum().item() - prefixes
    assert sharing.tokens == 2 * distinct == 2 * sharing.last_batch_tokens()
    assert sharing.padded_tokens == 2 * batch["input_ids"].numel()
    # A batch that is changed in place is another batch.
    called_with["labels"].fill_(-100)
    policy(**called_with)
    assert sharing.layout is not found[0]


def test_a_batch_without_labels_has_a_gradient_of_zero():
    model = tiny("gpt2")
    share_forward(model, PrefixSharing())
    called_with = arguments(padded(pairs(10)))
    called_with["labels"] = torch.full_like(called_with["labels"], -100)
    output = model(**called_with)
    output.log_probs.sum().backward()
    assert not output.log_probs.any()
    assert not any(gradient.any() for gradient in gradients(model).values())


def test_a_call_that_is_not_trls_is_not_changed():
    plain, model, sharing = tiny("gpt2"), tiny("gpt2"), PrefixSharing()
    share_forward(model, sharing)
    called_with = arguments(padded(pairs(11)))
    positions = torch.arange(called_with["input_ids"].shape[1])[None]
    first_row = {name: called_with[name][:1] for name in ("input_ids", "attention_mask", "labels")}
    for other, name in (
        (first_row, "logits"),
        (called_with | {"position_ids": positions}, "log_probs"),
        (called_with | first_row, "log_probs"),
    ):
        assert torch.equal(getattr(model(**other), name), getattr(plain(**other), name))
    assert sharing.tokens == 0
    prompt = called_with["input_ids"][:1, :4]
    answers = (m.generate(prompt, max_new_tokens=5, do_sample=False) for m in (model, plain))
    assert torch.equal(*answers)


def test_restore_leaves_nothing_behind_even_after_a_failure(tmp_path):
    model, sharing = tiny("gpt2"), PrefixSharing()
    forward, kind = model.forward, model.config._attn_implementation
    share_forward(model, sharing)
    assert model.config._attn_implementation != kind
    model.save_pretrained(tmp_path)
    assert "shared_prefix" not in (tmp_path / "config.json").read_text()
    failing = model.transformer.h[1].register_forward_pre_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**arguments(padded(pairs(14))))
    failing.remove()
    sharing.restore.close()
    assert model.forward is forward
    assert model.config._attn_implementation == kind
    assert not model.base_model._forward_hooks
    assert trl_utils._ChunkedLogProbFunction is _ChunkedLogProbFunction
    assert_same_step(*without_and_with_sharing(model, padded(pairs(14))))


def test_a_copy_of_the_model_runs_its_own_weights():
    model, called_with = tiny("gpt2"), arguments(padded(pairs(12)))
    share_forward(model, PrefixSharing())
    other, expected = copy.deepcopy(model), tiny("gpt2", seed=1)
    other.load_state_dict(expected.state_dict())
    found = other(**called_with).log_probs
    torch.testing.assert_close(found, expected(**called_with).log_probs)
    assert (found - model(**called_with).log_probs).abs().max() > 0.1


# Head

TRL_ARGUMENTS = {
    "temperature": 1.0,
    "chunk_size": _CHUNKED_LOGPROB_CHUNK_SIZE,
    "final_logit_softcapping": None,
    "logit_scale": 1.0,
    "outputs": ("log_probs", "entropy", "mean_logits", "is_top1"),
}


def head_inputs(seed, tokens=37, bias=True):
    """hidden, weight, bias and targets, half of which are the most likely tokens."""
    torch.manual_seed(seed)
    hidden = torch.randn(tokens, 16, requires_grad=True)
    weight = torch.randn(101, 16)
    targets = linear(hidden, weight).argmax(1)
    targets[::2] = torch.randint(0, 101, (len(targets[::2]),))
    return hidden, weight, torch.randn(101) if bias else None, targets


def assert_head_is_trls(hidden, weight, bias, targets, atol=1e-5):
    theirs = _ChunkedLogProbFunction.apply(hidden, weight, bias, targets, *TRL_ARGUMENTS.values())
    ours = FrozenHead.apply(hidden, weight, bias, targets)
    for one, other in zip(ours, (theirs[0], theirs[1], theirs[3], theirs[4]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=atol)
    if hidden.requires_grad:
        weights = torch.linspace(-1, 1, len(hidden))
        one, other = (
            torch.autograd.grad((found[0] * weights).sum(), hidden)[0] for found in (ours, theirs)
        )
        torch.testing.assert_close(one, other, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("tile", [1, 3, 128])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_every_output_and_the_gradient_of_the_head_are_trls(seed, bias, tile, monkeypatch):
    monkeypatch.setattr(head, "TILE_LOGITS", 1)
    monkeypatch.setattr(head, "MIN_TILE_TOKENS", tile)
    assert_head_is_trls(*head_inputs(seed, bias=bias))


def test_the_head_is_trls_for_ties_for_large_logits_and_for_no_tokens():
    hidden, weight, _, targets = head_inputs(6)
    assert_head_is_trls(torch.zeros(2, 16), weight, None, torch.tensor([0, 3]))
    large = (hidden * 1e3).detach()
    assert_head_is_trls(large, weight, None, targets, atol=1e-2)
    assert FrozenHead.apply(large, weight, None, targets)[1].isfinite().all()
    empty = FrozenHead.apply(hidden[:0], weight, None, targets[:0])
    assert [tuple(output.shape) for output in empty] == [(0,)] * 4
    assert not torch.autograd.grad(empty[0].sum(), hidden)[0].any()


@pytest.mark.parametrize(
    ("options", "change", "ours"),
    [
        ({}, {}, True),
        ({"temperature": 0.7}, {}, False),
        ({"final_logit_softcapping": 30.0}, {}, False),
        ({"logit_scale": 0.5}, {}, False),
        ({"outputs": ("log_probs", "log_sum_sq_probs")}, {}, False),
        ({}, {"weight": lambda weight: weight.requires_grad_()}, False),
        ({}, {"bias": lambda bias: bias.requires_grad_()}, False),
        ({}, {name: torch.Tensor.bfloat16 for name in ("hidden", "weight", "bias")}, False),
    ],
    ids=["ours", "temperature", "softcapping", "logit_scale", "outputs"]
    + ["trained weight", "trained bias", "bf16"],
)
def test_trls_own_head_is_used_where_ours_gives_something_else(monkeypatch, options, change, ours):
    names = ("hidden", "weight", "bias", "targets")
    inputs = dict(zip(names, head_inputs(8), strict=True))
    inputs |= {name: changed(inputs[name].detach()) for name, changed in change.items()}
    calls = []
    monkeypatch.setattr(FrozenHead, "apply", lambda *args: calls.append(args) or (None,) * 4)
    given = [*inputs.values(), *(TRL_ARGUMENTS | options).values()]
    with frozen_cpu_head():
        trl_utils._ChunkedLogProbFunction.apply(*given)
        count = len(calls)
        with torch.autocast("cpu", torch.bfloat16):
            trl_utils._ChunkedLogProbFunction.apply(*given)
    assert bool(count) is ours and len(calls) == count
    assert trl_utils._ChunkedLogProbFunction is _ChunkedLogProbFunction


def test_trls_head_has_the_arguments_that_are_read_here(monkeypatch):
    """Fails where TRL changes them; a run then uses TRL's own function."""
    names = list(inspect.signature(_ChunkedLogProbFunction.forward).parameters)
    assert names == ["ctx", "hidden", "weight", "bias", "targets", *TRL_ARGUMENTS]
    assert len(names) == 1 + head.ARGUMENT_COUNT
    newer = type("Newer", (), {"apply": lambda *args, **kwargs: (args, kwargs)})
    monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", newer)
    with frozen_cpu_head():
        found = trl_utils._ChunkedLogProbFunction.apply(1, 2, three=3)
    assert found == ((1, 2), {"three": 3})


# TRL's trainer

BATCH = padded(pairs(1, count=4))


@pytest.fixture(scope="module")
def build(tiny_model_dir, tmp_path_factory):
    """(tuning, shape, **options) -> a DPOTrainer whose policy differs from its reference."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    rows = Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})
    settings = {
        "output_dir": str(tmp_path_factory.mktemp("parity")),
        "beta": 0.5,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "activation_checkpointing": False,
    }

    def model_of(shape, seed):
        model = tiny(shape, seed, vocab_size=300)
        del model.forward  # the trainer adds a fused head itself
        return model

    def trainer_of(tuning, shape="gpt2", **options):
        if options.get("loss_type") in [*READS_LABEL_SMOOTHING]:
            options["label_smoothing"] = 0.2
        model = model_of(shape, 0)
        lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        trainer = DPOTrainer(
            model=get_peft_model(model, lora) if tuning == "adapter copy" else model,
            ref_model=model_of(shape, 1) if tuning == "full" else None,
            args=DPOConfig(**settings | options),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora if tuning == "lora" else None,
        )
        if tuning == "adapter copy":
            with torch.no_grad():
                for name, parameter in trainer.model.named_parameters():
                    if ".default." in name:
                        parameter.add_(0.05 * torch.randn_like(parameter))
        trainer.model.train()
        return trainer

    return trainer_of


def results(trainer, batch):
    """The loss, TRL's metrics, and the gradient of every trained parameter."""
    mode = "train" if trainer.model.training else "eval"
    trainer._metrics[mode].clear()
    trainer._total_train_tokens = 0
    trainer.model.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(trainer.model.training):
        loss = trainer.compute_loss(trainer.model, dict(batch))
    if trainer.model.training:
        loss.backward()
    logged = {name: values[-1] for name, values in trainer._metrics[mode].items()}
    return loss.item(), logged, gradients(trainer.model)


def compare(trainer, batch=BATCH):
    plain = results(trainer, batch)
    sharing = share_prefixes(trainer, SimpleNamespace(prefix_sharing="auto", trl={}), None)
    assert sharing.off_reason is None
    shared = results(trainer, batch)
    # Both the policy and the reference shared.
    assert sharing.padded_tokens == 2 * batch["input_ids"].numel() > 2 * sharing.tokens
    sharing.restore.close()
    assert shared[0] == pytest.approx(plain[0], rel=1e-5, abs=1e-5)
    assert len(plain[1]) == 11 and plain[1]["rewards/margins"] != 0
    assert shared[1] == pytest.approx(plain[1], rel=1e-5, abs=1e-5)
    assert bool(plain[2]) is trainer.model.training
    assert_same_gradients(plain[2], shared[2])


@pytest.mark.parametrize(
    "options",
    [
        *({"loss_type": loss_type} for loss_type in LOSSES),
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.8, 1.0]},
        {"use_weighting": True},
        {"ld_alpha": 0.5},
        {"f_divergence_type": "js_divergence"},
    ],
    ids=str,
)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_every_loss_is_trls(build, tuning, options):
    compare(build(tuning, **options))


@pytest.mark.parametrize("shape", ["gpt2", "llama", "gemma 3"])
def test_a_frozen_copy_of_an_adapter_gives_trls_loss(build, shape):
    """The other references are those of every family in test_families.py."""
    compare(build("adapter copy", shape=shape))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_evaluation_and_precomputed_reference_are_trls(build, tuning):
    trainer = build(tuning)
    trainer.model.eval()
    compare(trainer)
    reference = trainer.ref_model or trainer.model
    plain = trainer.compute_ref_log_probs(reference, BATCH)
    sharing = share_prefixes(trainer, SimpleNamespace(prefix_sharing="auto", trl={}), None)
    shared = trainer.compute_ref_log_probs(reference, BATCH)
    assert sharing.tokens > 0
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-5)


def test_trl_calls_the_model_with_the_arguments_that_are_read_here(build, monkeypatch):
    """Fails where TRL changes the call or its output; runs then use TRL's own forward."""
    assert list(inspect.signature(add_fused_lm_head).parameters) == [
        *("model", "temperature", "cast_lm_head_to_fp32", "outputs"),
    ]
    assert {*FusedCausalLMOutput.__dataclass_fields__} == {
        *("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask"),
        *("loss", "aux_loss"),
    }
    trainer, names = build("full"), set()
    plain = trainer.model.forward
    monkeypatch.setattr(
        trainer.model, "forward", lambda **given: names.update(given) or plain(**given)
    )
    results(trainer, BATCH)
    assert names == ARGUMENTS

"""TRL's DPO losses, rewards and gradients equal those of `dpo_wrap.loss` on a tiny random model.

TRL's figures come from a `DPOTrainer` with its own collator, `compute_loss` and log. Ours come from
the same batch and the plain logits of the model; our reference is loaded without a trainer.
"""

import json
import random
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from training import runner
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from dpo_wrap.loss import (
    DIVERGENCES,
    LOSSES,
    READS_LABEL_SMOOTHING,
    TAKES_DIVERGENCES,
    covers,
    dpo_loss,
    sequence_logps,
)

BETA = 0.5
FLIP_RATE = 0.2
MAX_LENGTH = 40
STEEP = ("sppo_hard", "discopop")
EOS = 0  # also the padding token, so an id does not tell padding from the end of an answer
METRICS = {
    "chosen_rewards": "rewards/chosen",
    "rejected_rewards": "rewards/rejected",
    "margins": "rewards/margins",
    "accuracies": "rewards/accuracies",
}


@pytest.fixture(scope="module")
def build(tiny_model_dir, tmp_path_factory):
    """A function (tuning, loss_type, **DPOConfig options) -> trainer, each built once."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    dataset = Dataset.from_dict({"prompt": ["ab"], "chosen": ["cd"], "rejected": ["e"]})
    out = tmp_path_factory.mktemp("parity")
    built = {}

    def trainer_of(tuning, loss_type, **options):
        key = (tuning, str(loss_type), *sorted(map(str, options.items())))
        if key not in built:
            args = dict(
                output_dir=str(out),
                max_length=MAX_LENGTH,
                bf16=False,
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
                gradient_checkpointing=False,
            )
            lora = LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
            trainer = DPOTrainer(
                model=str(tiny_model_dir),
                args=DPOConfig(**args | options_of(loss_type) | options),
                train_dataset=dataset,
                processing_class=tokenizer,
                peft_config=lora if tuning == "lora" else None,
            )
            move_off_the_reference(trainer.model)
            trainer.model.train()
            built[key] = trainer
        return built[key]

    return trainer_of


@pytest.fixture(scope="module")
def reference(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()


def move_off_the_reference(model):
    """Change every trained weight, including LoRA's zero B matrices, so that no margin is 0."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in trained(model):
            size = 0.3 if "lora_" in name else 0.1
            parameter += size * torch.randn(parameter.shape, generator=generator)


def trained(model):
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def random_examples(seed, size, prompt=(2, 15), answer=(1, 15)):
    """Rows of TRL's tokenized dataset with random ids; every answer ends with EOS."""
    rng = random.Random(seed)

    def ids(span):
        return [rng.randint(1, 256) for _ in range(rng.randint(*span))]

    return [
        dict(
            prompt_ids=ids(prompt), chosen_ids=[*ids(answer), EOS], rejected_ids=[*ids(answer), EOS]
        )
        for _ in range(size)
    ]


def padded_sides(*expected):
    """A function (batch) -> whether chosen and rejected rows are padded as expected."""
    return lambda batch: (
        tuple(bool((half == 0).any()) for half in batch["attention_mask"].chunk(2)) == expected
    )


# (examples, changes of TRL's collator, what must be true of the batch)
CASES = {
    "four pairs": (random_examples(1, 4), {}, padded_sides(True, True)),
    "eight pairs": (random_examples(2, 8), {}, padded_sides(True, True)),
    "padded to a multiple": (
        random_examples(3, 3),
        {"pad_to_multiple_of": 16},
        lambda batch: (batch["attention_mask"][:, -1] == 0).all(),
    ),
    "one pair, chosen padded": (
        [dict(prompt_ids=[5, 6], chosen_ids=[7, EOS], rejected_ids=[8, 9, 9, EOS])],
        {},
        padded_sides(True, False),
    ),
    "one pair, rejected padded": (
        [dict(prompt_ids=[5], chosen_ids=[8, 9, EOS, 9, 9, EOS], rejected_ids=[EOS])],
        {},
        padded_sides(False, True),
    ),
    "answers cut": (
        random_examples(5, 6, prompt=(15, 30), answer=(2, 30)),
        {},
        lambda batch: batch["input_ids"].shape[1] == MAX_LENGTH,
    ),
    "prompts cut, some completely": (
        random_examples(6, 6, prompt=(2, 6), answer=(1, 20)),
        {"max_length": 16, "truncation_mode": "keep_end"},
        lambda batch: batch["completion_mask"][:, 0].any() and padded_sides(True, True)(batch),
    ),
}


def collate(trainer, case):
    examples, changes, holds = CASES[case]
    batch = replace(trainer.data_collator, **changes)(examples)
    assert holds(batch), "the batch is not what the case is named for"
    return batch


def trl_figures(trainer, batch):
    """TRL's loss, its logged figures and the gradient of every trained parameter."""
    trainer._metrics["train"].clear()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    logged = trainer._metrics["train"]
    gradients = {name: p.grad.clone() for name, p in trained(trainer.model)}
    return loss.item(), {ours: logged[theirs][-1] for ours, theirs in METRICS.items()}, gradients


def lengths_in_trl(batch, loss_type):
    """TRL counts a first token without a prompt, which is never scored, except in `sft`."""
    first = 1 if "sft" in loss_type else 0
    return batch["completion_mask"][:, first:].sum(dim=-1).chunk(2)


def logps_of_logits(model, batch):
    """Log-probabilities by our plain forward: chosen, rejected."""
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return sequence_logps(logits, batch["input_ids"], batch["completion_mask"]).chunk(2)


def logps_in_trl(model, batch):
    """Log-probabilities by the trainer's patched model: chosen, rejected."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    return model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(dim=1).chunk(2)


def our_figures(trainer, reference, batch, **options):
    """The figures of `trl_figures` by `dpo_wrap.loss`.

    Two forwards differ by up to 4e-6 in a reward in float32, which steep losses amplify beyond the
    tolerance. These get TRL's log-probabilities; the other losses compare the forwards.
    """
    trainer.model.zero_grad()
    if options["loss_type"] in STEEP or "f_divergence_type" in options:
        with torch.no_grad():
            before = trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, batch)
        policy = logps_in_trl(trainer.model, batch)
    else:
        with torch.no_grad():
            before = logps_of_logits(reference, batch)
        policy = logps_of_logits(trainer.model, batch)
    chosen, rejected = lengths_in_trl(batch, options["loss_type"])
    lengths = dict(chosen_lengths=chosen, rejected_lengths=rejected)
    result = dpo_loss(*policy, *before, **lengths, **options)
    assert result.margins.abs().min() > 1e-4, "rounding would decide the accuracy of a near tie"
    loss = result.losses.mean()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in trained(trainer.model)}
    return loss.item(), {name: getattr(result, name).mean().item() for name in METRICS}, gradients


def assert_equal_figures(theirs, ours):
    """Equal within 1e-5, and each gradient within 3e-5 of its norm, since many are small."""
    (their_loss, their_metrics, their_gradients), (loss, metrics, gradients) = theirs, ours
    assert loss == pytest.approx(their_loss, abs=1e-5, rel=0)
    for name, value in metrics.items():
        assert value == pytest.approx(their_metrics[name], abs=1e-5, rel=0), name
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in gradients.items():
        difference = gradient - their_gradients[name]
        assert difference.abs().max() <= 1e-5, name
        assert gradient.norm() > 1e-3, f"{name} has no gradient to compare"
        assert difference.norm() <= 3e-5 * gradient.norm(), name


def options_of(loss_type):
    types = {loss_type} if isinstance(loss_type, str) else {*loss_type}
    smoothing = {"label_smoothing": FLIP_RATE} if types & READS_LABEL_SMOOTHING else {}
    return {"beta": BETA, "loss_type": loss_type} | smoothing


def assert_parity(trainer, reference, case="four pairs", **options):
    batch = collate(trainer, case)
    ours = our_figures(trainer, reference, batch, **options)
    assert_equal_figures(trl_figures(trainer, batch), ours)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_trl_and_our_loss_give_the_same_figures(build, reference, tuning, loss_type, case):
    assert_parity(build(tuning, loss_type), reference, case, **options_of(loss_type))


@pytest.mark.parametrize("beta", [0.2, 0.9])
@pytest.mark.parametrize("loss_type", LOSSES)
def test_they_agree_at_other_betas(build, reference, loss_type, beta, monkeypatch):
    trainer = build("full", loss_type)
    monkeypatch.setattr(trainer, "beta", beta)
    assert_parity(trainer, reference, **options_of(loss_type) | {"beta": beta})


@pytest.mark.parametrize("case", ["four pairs", "answers cut"])
@pytest.mark.parametrize("weights", [None, [0.8, 0.2, 1.0]])
@pytest.mark.parametrize("loss_type", [["sigmoid", "sft"], ["sigmoid", "bco_pair", "sft"]], ids=str)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_weighted_combinations_agree(build, reference, tuning, loss_type, weights, case):
    options = {"loss_weights": weights and weights[-len(loss_type) :]}
    trainer = build(tuning, loss_type, **options)
    assert_parity(trainer, reference, case, **options_of(loss_type), **options)


@pytest.mark.parametrize(
    "divergence, coefficient",
    [(name, 0.5) for name in DIVERGENCES] + [("alpha_divergence", 1.0), ("alpha_divergence", 1.8)],
)
@pytest.mark.parametrize("loss_type", sorted(TAKES_DIVERGENCES))
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_divergences_agree(
    build, reference, tuning, loss_type, divergence, coefficient, monkeypatch
):
    trainer = build(tuning, loss_type)
    options = {"f_divergence_type": divergence, "f_alpha_divergence_coef": coefficient}
    for name, value in options.items():
        monkeypatch.setattr(trainer, name, value)
    assert_parity(trainer, reference, **options_of(loss_type), **options)


def test_they_agree_under_gradient_checkpointing(build, reference):
    trainer = build("lora", "sigmoid", gradient_checkpointing=True)
    trainer.model.activation_checkpointing_enable()  # as `train` does before the first step
    assert trainer.model.is_activation_checkpointing
    batch = collate(trainer, "four pairs")
    theirs = trl_figures(trainer, batch)
    ours = our_figures(trainer, reference, batch, **options_of("sigmoid"))
    assert_equal_figures(theirs, ours)
    plain = trl_figures(build("lora", "sigmoid"), batch)
    assert_equal_figures(plain, ours)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_reference_is_the_model_before_training(build, reference, tuning):
    """A model that TRL has patched still returns plain logits, which the other tests rely on."""
    trainer = build(tuning, "sigmoid")
    batch = collate(trainer, "four pairs")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = reference(**inputs).logits
        theirs = trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, batch)
        moved = trainer.model(**inputs).logits
    torch.testing.assert_close(logps_of_logits(reference, batch), theirs, rtol=1e-6, atol=1e-5)
    assert moved.shape == expected.shape
    assert (moved - expected).abs().max() > 0.1


@pytest.mark.parametrize("loss_type", LOSSES)
def test_trl_reads_label_smoothing_for_the_same_losses(build, loss_type, monkeypatch):
    trainer = build("lora", loss_type)
    batch = collate(trainer, "four pairs")
    losses = []
    for smoothing in (0.1, 0.2, 0.4):
        monkeypatch.setattr(trainer, "label_smoothing", smoothing)
        losses.append(trl_figures(trainer, batch)[0])
    if loss_type in READS_LABEL_SMOOTHING:
        assert min(abs(losses[0] - losses[1]), abs(losses[1] - losses[2])) > 1e-3
    else:
        assert losses[0] == losses[1] == losses[2]


def test_a_sigmoid_config_with_label_smoothing_trains_as_one_without(build, reference):
    trainer = build("lora", "sigmoid", label_smoothing=FLIP_RATE)
    assert trainer.label_smoothing == FLIP_RATE
    assert_parity(trainer, reference, **options_of("sigmoid"))
    with pytest.raises(ValueError, match="label_smoothing has no effect on sigmoid"):
        assert_parity(trainer, reference, **options_of("sigmoid"), label_smoothing=FLIP_RATE)


def test_run_json_records_a_loss_that_is_not_defined_here(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.delitem(LOSSES, "apo_zero")
    status, out = runner(tiny_model_dir, tmp_path)(loss_type=["sigmoid", "apo_zero"], max_steps=2)
    assert status == 0
    assert json.loads((out / "run.json").read_text())["loss_covered"] is False


@pytest.mark.parametrize(
    "losses, divergence, ld_alpha, use_weighting, covered",
    [
        (list(LOSSES), "reverse_kl", None, False, True),
        (["sigmoid"], "alpha_divergence", 1.0, False, True),  # an alpha of 1 changes no weight
        (["sigmoid", "unknown"], "reverse_kl", None, False, False),
        (["sigmoid"], "unknown", None, False, False),
        (["sigmoid"], "reverse_kl", 0.0, False, False),
        (["sigmoid"], "reverse_kl", None, True, False),
    ],
)
def test_covers_the_losses_and_options_that_are_defined_here(
    losses, divergence, ld_alpha, use_weighting, covered
):
    assert covers(losses, divergence, ld_alpha, use_weighting) is covered

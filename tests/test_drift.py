"""drift: the KL at the end of a run is that of torch, token by token."""

import copy
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM

from dpo_wrap.diagnostics.kl import ANSWERS, measure_drift

ROWS = Dataset.from_list(
    [
        {"prompt_ids": [5] * (n % 4), "chosen_ids": [7, n + 1, 9, 3], "rejected_ids": [8]}
        for n in range(ANSWERS)
    ]
)


def trainer(policy, reference=None, **more):
    args = SimpleNamespace(
        max_length=6,
        truncation_mode="keep_start",
        device=torch.device("cpu"),
        bf16=False,
        fp16=False,
    )
    flags = {"is_deepspeed_enabled": False, "is_fsdp_enabled": False}
    return SimpleNamespace(
        model=policy,
        ref_model=reference,
        args=args,
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        train_dataset=ROWS,
        **flags | more,
    )


def needless():
    raise AssertionError("the reference is there")


@pytest.fixture
def model(tiny_model_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir)


def moved(model):
    """A copy that is a little elsewhere."""
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=draw)
    return other


def by_torch(policy, reference):
    total, count = 0.0, 0
    for row in ROWS:
        prompt = row["prompt_ids"]
        ids = torch.tensor([(prompt + row["chosen_ids"])[:6]])
        places = slice(max(0, len(prompt) - 1), -1)
        with torch.no_grad():
            one, other = (
                m(ids).logits[0, places].double().log_softmax(-1) for m in (policy, reference)
            )
        total += functional.kl_div(other, one, reduction="sum", log_target=True).item()
        count += len(one)
    return total / count


def test_the_drift_is_the_mean_kl_over_the_tokens_of_chosen_answers(model):
    policy = moved(model).train()
    found = measure_drift(trainer(policy, model), ROWS, needless)
    assert found.per_token == pytest.approx(by_torch(policy.eval(), model.eval()), rel=1e-4)
    assert (found.split, found.answers) == ("test", ANSWERS)


def test_a_policy_that_is_its_reference_has_not_drifted(model):
    found = measure_drift(trainer(model, copy.deepcopy(model)), ROWS, needless)
    assert found.per_token == 0


def test_under_lora_the_reference_is_the_model_with_its_adapter_off(model):
    plain = copy.deepcopy(model).eval()
    policy = get_peft_model(model, LoraConfig(fan_in_fan_out=True, init_lora_weights=False))
    policy.train()
    found = measure_drift(trainer(policy), None, needless)
    assert policy.training and found.split == "train"
    assert found.per_token > 1e-3
    assert found.per_token == pytest.approx(by_torch(policy.eval(), plain), rel=1e-4)


def test_few_held_out_answers_give_way_to_those_of_training(model):
    few = ROWS.select(range(ANSWERS // 2 - 1))
    assert measure_drift(trainer(moved(model), model), few, needless).split == "train"


def test_a_reference_that_training_did_not_keep_is_loaded_again(model):
    """Full weights that train against log-probabilities computed beforehand have none."""
    policy, loaded = moved(model), []

    def load():
        loaded.append(copy.deepcopy(model).train())
        return loaded[0]

    found = measure_drift(trainer(policy), ROWS, load)
    assert len(loaded) == 1 and not loaded[0].training
    assert found.per_token == pytest.approx(by_torch(policy.eval(), model.eval()), rel=1e-4)


def no_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, "the reference or an answer's logits do not fit the memory"),
        ({"is_fsdp_enabled": True}, "the model is sharded"),
    ],
)
def test_where_it_cannot_be_measured_the_reason_is_given(model, more, why):
    found = measure_drift(trainer(model, **more), ROWS, no_memory)
    assert (found.per_token, found.missing) == (None, why)

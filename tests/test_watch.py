"""diagnostics.watch: warnings during training are printed once and kept with the run."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from training import runner
from transformers import TrainerState

from dpo_wrap.diagnostics.verdict import FALLEN
from dpo_wrap.diagnostics.watch import HealthWatch, flat_causes, warnings_of


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


def kept(out):
    return json.loads((out / "run.json").read_text())["warnings"]


def test_a_flat_margin_lists_its_likely_causes_once_and_resuming_repeats_nothing(run, capsys):
    status, out = run(max_steps=20, save_steps=20, logging_steps=5, learning_rate=1e-9)
    assert status == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("warning: "))
    assert lines[head].startswith("warning: step 20: the margin is flat, ")
    assert lines[head].endswith(" on average since the start; likely causes:")
    assert lines[head + 1] == ("  learning_rate 1e-09 is low; 1e-4 to 5e-4 for an adapter is usual")
    assert lines[head + 2] == "  only 80 pairs were seen in 20 steps; train longer"
    assert printed.err.count("warning: ") == 1
    assert "flat (step 20)" in printed.out
    first = kept(out)
    assert [(w["step"], w["what"]) for w in first] == [(20, "flat")]
    assert first[0]["lines"][1] == lines[head + 1].strip()

    status, out = run(max_steps=22, save_steps=20, logging_steps=5, learning_rate=1e-9)
    assert status == 0
    printed = capsys.readouterr()
    assert "checkpoint-20" in printed.out and "warning: " not in printed.err
    assert kept(out) == first


def test_a_short_run_that_hardly_moved_lists_causes_at_its_end(run, capsys):
    status, out = run(learning_rate=1e-9)
    assert status == 0
    assert "warning: step 6: the margin ended at 0.0000; likely causes" in capsys.readouterr().err
    assert [w["what"] for w in kept(out)] == ["flat"]


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({"learning_rate": 3e-2}, "The policy learned: "),
        ({"learning_rate": 1e-9, "loss_type": "sft"}, "The policy hardly moved: the loss went"),
    ],
)
def test_neither_a_run_that_learns_nor_sft_alone_is_warned_of(run, capsys, options, outcome):
    status, out = run(max_steps=24, logging_steps=4, **options)
    assert status == 0
    assert kept(out) == []
    assert "warning: " not in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["verdict"].startswith(outcome)


def pair(prompt, chosen, rejected, source):
    ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
    return ids | {"source": source}


DIFFERENT = pair([1], [2, 3, 4, 5], [7, 8], "a:2")
SIMILAR = pair([1], [2, 3, 4, 5, 6], [2, 3, 4, 5, 7], "a:1")
LOG = {"grad_norm": 1.5, "rewards/margins": 0.004, "rewards/accuracies": 0.9}


def causes(lora=False, dtype=torch.float32, rate=2e-4, moved=True, **change):
    """The causes of a flat run in which nothing but `change` is wrong."""
    found = {"step": 200, "warmup": 0, "beta": 0.1, "limit": None, "pairs": [DIFFERENT], "log": LOG}
    found |= change
    model = nn.Sequential(nn.Linear(2, 2)).to(dtype)
    start = copy.deepcopy(model)
    if lora:
        start, model = None, get_peft_model(model, LoraConfig(target_modules=["0"]))
    if moved:
        for name, weight in model.named_parameters():
            if "lora_A" not in name:
                nn.init.ones_(weight)
    args = SimpleNamespace(
        learning_rate=rate,
        train_batch_size=8,
        gradient_accumulation_steps=1,
        world_size=1,
        max_length=found["limit"],
        truncation_mode="keep_start",
        get_warmup_steps=lambda steps: found["warmup"],
    )
    trainer = SimpleNamespace(
        args=args,
        state=SimpleNamespace(global_step=found["step"], max_steps=2000),
        model=model,
        ref_model=start,
        beta=found["beta"],
        train_dataset=Dataset.from_list(found["pairs"]),
        is_deepspeed_enabled=False,
        is_fsdp_enabled=False,
    )
    return list(flat_causes(trainer, [found["log"]]))


OTHERWISE = "if none of these applies, raise learning_rate or train longer"


@pytest.mark.parametrize("lora", [True, False])
def test_a_run_in_which_nothing_is_wrong_has_no_cause(lora):
    assert causes(lora) == [OTHERWISE]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"log": LOG | {"grad_norm": 0.0}}, "the gradient norm is 0; check what is trained"),
        ({"log": LOG | {"grad_norm": float("nan")}}, "the gradient norm is nan"),
        ({"lora": True, "rate": 1e-6}, "learning_rate 1e-06 is low; 1e-4 to 5e-4 for an adapter"),
        ({"rate": 1e-8}, "learning_rate 1e-08 is low; 5e-7 to 5e-6 for full weights is usual"),
        ({"rate": 0.3}, "learning_rate 0.3 is high"),
        ({"dtype": torch.bfloat16, "rate": 1e-6}, "half precision, which rounds steps of 1e-06"),
        ({"warmup": 150}, "warmup takes 150 of 2000 steps"),
        ({"log": LOG | {"learning_rate": 1e-6}}, "the learning rate is at 1e-06 of 0.0002"),
        ({"moved": False}, "no trained weight has changed"),
        ({"moved": False, "lora": True}, "no trained weight has changed"),
        ({"beta": 0.001}, "beta 0.001 makes this of 4.00 nats between answers; 0.1 is usual"),
        ({"pairs": [SIMILAR, DIFFERENT]}, "50% of the pairs have almost identical answers"),
        ({"limit": 4}, "max_length cuts 100% of the pairs"),
        ({"log": LOG | {"rewards/accuracies": 0.51}}, "the reward accuracy of 0.51 is chance"),
        ({"step": 20}, "only 160 pairs were seen in 20 steps"),
    ],
)
def test_each_cause_is_named_with_its_figure(change, cause):
    found, otherwise = causes(**change)
    assert cause in found
    assert otherwise == OTHERWISE


def test_the_likeliest_cause_comes_first():
    found = causes(lora=True, rate=1e-6, step=20, log=LOG | {"rewards/accuracies": 0.5})
    assert [line.split()[0] for line in found] == ["learning_rate", "the", "only", "if"]


def watch(logs, losses=("sigmoid",), weights=(1.0,), state=None):
    """The warnings after these logs, each (step, chosen log-ratio in nats per answer)."""
    args = SimpleNamespace(
        max_length=None, truncation_mode="keep_start", get_warmup_steps=lambda steps: 0
    )
    trainer = SimpleNamespace(
        args=args,
        beta=0.5,
        loss_types=list(losses),
        loss_weights=list(weights),
        train_dataset=Dataset.from_list([pair([1], [2, 3, 4, 5], [2, 3, 4, 6], "a:1"), DIFFERENT]),
    )
    state = state or TrainerState(max_steps=1000)
    callback = HealthWatch(trainer)
    for step, chosen in logs:
        entry = {"step": step, "loss": 0.5, "rewards/chosen": 0.5 * chosen, "rewards/margins": 1.0}
        state.global_step = step
        state.log_history.append(entry)
        callback.on_log(args, state, None, logs=entry)
    return warnings_of(state)


FALL = [(step, -4 * FALLEN * 1.1) for step in range(5, 60, 5)]


def test_chosen_answers_that_fall_offer_sft_and_name_the_most_similar_pairs(capsys):
    (warning,) = watch(FALL)
    assert (warning["step"], warning["what"]) == (20, "falling")
    head, fix, pairs = warning["lines"]
    assert head.startswith("the chosen answers lost 0.55 nats a token (-2.2 an answer)")
    assert fix.startswith("set loss_type: [sigmoid, sft] and loss_weights: [1.0, 1.0]")
    assert "0.0% of the pairs have a similarity of 0.8 or more" in pairs
    assert pairs.endswith("the most similar: a:1 (0.75), a:2 (0.00)")
    assert capsys.readouterr().err.count("warning: step 20: ") == 1


def test_with_sft_in_the_loss_its_weight_is_named():
    (warning,) = watch(FALL, ("sigmoid", "sft"), (1.0, 0.2))
    assert warning["lines"][1].startswith("raise the weight of sft in loss_weights (0.2)")


@pytest.mark.parametrize(
    "logs",
    [
        [(step, -4 * FALLEN * 0.9) for step in range(5, 60, 5)],  # too little
        FALL[:3],  # too early
        [(step, 0.0 if step % 10 else -15.0) for step in range(1, 60)],  # one batch in ten
    ],
)
def test_a_small_or_short_fall_is_not_warned_of(logs):
    assert watch(logs) == []


def test_warnings_are_saved_with_the_checkpoint(tmp_path):
    state = TrainerState(max_steps=1000)
    watch(FALL[:5], state=state)
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    loaded = TrainerState.load_from_json(str(tmp_path / "trainer_state.json"))
    assert warnings_of(loaded) == warnings_of(state) != []
    assert watch(FALL[5:], state=loaded) == warnings_of(state)

"""diagnostics.watch: warnings during training are printed once and kept with the run."""

import json
from types import SimpleNamespace

import pytest
from datasets import Dataset, DatasetDict
from training import runner
from transformers import Trainer, TrainerState

from dpo_wrap.diagnostics.verdict import FALLEN
from dpo_wrap.diagnostics.watch import HealthWatch, warnings_of


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
    assert lines[head + 1] == (
        "  learning_rate 1e-09 is low; an adapter usually needs 1e-4 to 5e-4"
    )
    assert lines[head + 2] == "  only 80 pairs were seen in 20 steps; train longer"
    assert printed.err.count("warning: ") == 1
    assert "warnings during training: flat (step 20)" in printed.out
    first = kept(out)
    assert [(w["step"], w["what"]) for w in first] == [(20, "flat")]
    assert first[0]["lines"][1] == lines[head + 1].strip()

    status, out = run(max_steps=22, save_steps=20, logging_steps=5, learning_rate=1e-9)
    assert status == 0
    printed = capsys.readouterr()
    assert "checkpoint-20" in printed.out and "warning: " not in printed.err
    assert kept(out) == first


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


FLAT = {"max_steps": 20, "logging_steps": 5, "learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("options", "causes"),
    [
        ({}, []),
        ({"learning_rate": 1e-6}, ["learning_rate 1e-06 is low; an adapter usually needs 1e-4"]),
        (
            {"learning_rate": 1e-9, "lora": False},
            ["learning_rate 1e-09 is low; full weights usually need 5e-7 to 5e-6"],
        ),
        (
            {"learning_rate": 1e-6, "lora": False, "model_init_kwargs": {"dtype": "bfloat16"}},
            ["the trained weights are in half precision, which rounds steps of 1e-06 away"],
        ),
        ({"warmup_steps": 15}, ["the learning rate is at 2e-05 of 0.0001: warmup takes 15 of 20"]),
        (
            {"learning_rate": 0.3, "beta": 1e-6},
            ["learning_rate 0.3 is high; an adapter", "beta is 1e-06, which turns "],
        ),
        ({"max_length": 18}, ["max_length cuts 100% of the pairs"]),
    ],
)
def test_each_cause_of_a_flat_margin_is_named_with_its_figure(run, options, causes):
    status, out = run(**(FLAT | options))
    assert status == 0
    (warning,) = kept(out)
    when = "the margin ended at " if "warmup_steps" in options else "the margin is flat, "
    assert warning["lines"][0].startswith(when)
    *found, few, otherwise = warning["lines"][1:]
    for line, cause in zip(found, causes, strict=True):
        assert line.startswith(cause)
    assert few == "only 80 pairs were seen in 20 steps; train longer"
    assert otherwise == "if none of these applies, raise learning_rate or train longer"


@pytest.mark.parametrize("full", [{}, {"lora": False, "precompute_ref_log_probs": False}])
def test_unchanged_weights_and_a_zero_gradient_are_named(run, monkeypatch, full):
    monkeypatch.setattr(Trainer, "_get_grad_norm", lambda self, model, grad_norm=None: 0.0)
    _, out = run(**(FLAT | full | {"learning_rate": 1e-50}))
    lines = kept(out)[0]["lines"]
    assert lines[1] == "the gradient norm is 0; check which weights are trained, and avoid fp16"
    assert lines[3] == "no trained weight has changed; check which weights are trained"


@pytest.mark.parametrize(
    ("chosen", "rejected", "cause"),
    [
        (" It was a good day!", " It was a good day?", "100% of the pairs have almost identical"),
        (" lovely", " awful", "the reward accuracy of 0.45 is chance or worse"),
    ],
)
def test_pairs_that_teach_little_are_named(run, tmp_path, chosen, rejected, cause):
    pair = {"chosen": chosen, "rejected": rejected}
    swapped = {"chosen": rejected, "rejected": chosen}
    rows = [{"prompt": f"{n // 2}:"} | (swapped if n % 2 else pair) for n in range(24)]
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "rows"))
    _, out = run(**(FLAT | {"dataset_path": str(tmp_path / "rows"), "learning_rate": 1e-3}))
    assert any(line.startswith(cause) for line in kept(out)[0]["lines"]), kept(out)


PAIRS = [
    {"prompt_ids": [1], "chosen_ids": [2, 3, 4, 5], "rejected_ids": [2, 3, 4, 6], "source": "a:1"},
    {"prompt_ids": [1], "chosen_ids": [2, 3, 4, 5], "rejected_ids": [7, 8], "source": "a:2"},
]


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
        train_dataset=Dataset.from_list(PAIRS),
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
    assert head.startswith("the chosen answers lost 0.55 nats per token (-2.2 per answer)")
    assert fix.startswith("set loss_type: [sigmoid, sft] and loss_weights: [1.0, 1.0]")
    assert "0.0% of the pairs have a similarity of 0.8 or more" in pairs
    assert pairs.endswith("the most similar: a:1 (0.75), a:2 (0.00)")
    assert capsys.readouterr().err.count("warning: step 20: ") == 1
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

"""watch: what is said on the way, once, and kept with the run."""

import json
from types import SimpleNamespace

import pytest
from datasets import Dataset
from training import runner
from transformers import TrainerState

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
    said = capsys.readouterr()
    lines = said.err.splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("warning: "))
    assert lines[head].startswith("warning: step 20: the margin is ")
    assert lines[head].endswith("which is flat; likely causes, the likeliest first:")
    assert lines[head + 1] == "  learning_rate 1e-09 is low for an adapter; 1e-4 to 5e-4 moves one"
    assert lines[head + 2] == "  only 80 pairs were seen in 20 steps; train longer"
    assert lines[head + 3].startswith("  not suspicious: gradient norm 0.0")
    assert "beta 0.1, 0 % of pairs almost alike, 0 % cut" in lines[head + 3]
    assert said.err.count("warning: ") == 1
    assert "warnings during training: flat (step 20)" in said.out
    first = kept(out)
    assert [(w["step"], w["what"]) for w in first] == [(20, "flat")]
    assert first[0]["lines"][1] == lines[head + 1].strip()

    status, out = run(max_steps=22, save_steps=20, logging_steps=5, learning_rate=1e-9)
    assert status == 0
    said = capsys.readouterr()
    assert "resuming from" in said.out and "warning: " not in said.err
    assert kept(out) == first


def test_a_short_run_that_hardly_moved_lists_causes_at_its_end(run, capsys):
    status, out = run(learning_rate=1e-9)
    assert status == 0
    assert "warning: step 6: the margin ended at 0.0000; likely causes" in capsys.readouterr().err
    assert [w["what"] for w in kept(out)] == ["flat"]


def test_sft_alone_is_not_asked_for_a_margin(run, capsys):
    status, out = run(max_steps=24, logging_steps=4, learning_rate=1e-9, loss_type="sft")
    assert status == 0
    assert kept(out) == []
    run_json = json.loads((out / "run.json").read_text())
    assert run_json["verdict"].startswith("hardly moved: the loss went from ")
    assert "sft alone prefers nothing, so no margin is to be expected" in run_json["verdict"]
    assert "warning: " not in capsys.readouterr().err


def test_a_run_that_learns_is_not_warned_of(run, capsys):
    status, out = run(max_steps=24, logging_steps=4, learning_rate=3e-2)
    assert status == 0
    assert kept(out) == []
    assert "warning: " not in capsys.readouterr().err


PAIRS = [
    {"prompt_ids": [1], "chosen_ids": [2, 3, 4, 5], "rejected_ids": [2, 3, 4, 6], "source": "a:1"},
    {"prompt_ids": [1], "chosen_ids": [2, 3, 4, 5], "rejected_ids": [7, 8], "source": "a:2"},
]


def watch(logs, losses=("sigmoid",), weights=(1.0,), state=None):
    """What a watch says of these logs, each (step, chosen log-ratio in nats an answer)."""
    args = SimpleNamespace(
        max_length=None, truncation_mode="keep_start", get_warmup_steps=lambda steps: 0
    )
    trainer = SimpleNamespace(
        args=args,
        beta=0.5,
        loss_types=list(losses),
        loss_weights=list(weights),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=None,
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


def test_chosen_answers_that_fall_name_the_most_alike_pairs_and_offer_sft(capsys):
    (said,) = watch(FALL)
    assert (said["step"], said["what"]) == (20, "falling")
    assert said["lines"][0].startswith("the chosen answers lost 0.55 nats a token (-2.2 an answer)")
    assert "0.0 % of the pairs have a similarity of 0.8 or more" in said["lines"][1]
    assert said["lines"][1].endswith("the most alike: a:1 (0.75), a:2 (0.00)")
    assert "loss_type: [sigmoid, sft] and loss_weights: [1.0, 1.0]" in said["lines"][2]
    assert capsys.readouterr().err.count("warning: step 20: ") == 1


def test_where_sft_holds_them_already_its_weight_is_named():
    (said,) = watch(FALL, ("sigmoid", "sft"), (1.0, 0.2))
    assert said["lines"][2] == "the weight of sft in loss_weights is 0.2; raise it"


@pytest.mark.parametrize(
    "logs",
    [
        [(step, -4 * FALLEN * 0.9) for step in range(5, 60, 5)],  # not as far
        FALL[:3],  # too soon
        [(step, 0.0 if step % 10 else -15.0) for step in range(1, 60)],  # one batch in ten
    ],
)
def test_what_falls_little_or_for_a_moment_is_not_warned_of(logs):
    assert watch(logs) == []


def test_what_was_said_goes_with_the_checkpoint(tmp_path):
    state = TrainerState(max_steps=1000)
    watch(FALL[:5], state=state)
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    back = TrainerState.load_from_json(str(tmp_path / "trainer_state.json"))
    assert warnings_of(back) == warnings_of(state) != []
    assert watch(FALL[5:], state=back) == warnings_of(state)

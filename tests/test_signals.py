"""Signals: the run directory stays complete, and a resumed run repeats no step."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training import adapter_weights, metrics, runner, same, without_times
from trl import DPOTrainer

from dpo_wrap.cli import Stop
from dpo_wrap.training import session

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(tiny_model_dir, tmp_path):
    return runner(tiny_model_dir, tmp_path)


@pytest.fixture
def stopped(run, tmp_path, monkeypatch, capsys):
    """Stop a run in a callback, and check that it resumes to the uninterrupted run's weights."""

    def check(event, step, **keys):
        class Interrupted(session.Progress):
            pass

        def interrupt(self, args, state, control, **kwargs):
            if state.global_step == step:
                signal.raise_signal(signal.SIGTERM)

        setattr(Interrupted, event, interrupt)
        keys = {"max_steps": 12, "logging_steps": 1, "lora_dropout": 0.1} | keys
        _, whole = run(output_dir=str(tmp_path / "whole"), **keys)
        with monkeypatch.context() as patch:
            patch.setattr(session, "Progress", Interrupted)
            assert run(**keys)[0] == 1
        message = capsys.readouterr().err.splitlines()[-1]
        status, out = run(**keys)
        assert status == 0
        assert same(adapter_weights(whole), adapter_weights(out))
        assert [*map(without_times, metrics(out))] == [*map(without_times, metrics(whole))]
        return message

    return check


@pytest.mark.parametrize(
    "event, step, after, keys",
    [
        # The evaluation is completed, and its metrics are in the checkpoint.
        ("on_prediction_step", 4, 4, {"eval_strategy": "steps", "eval_steps": 4}),
        ("on_prediction_step", 6, 6, {"eval_strategy": "epoch"}),
        # The checkpoint being written is the last one.
        ("on_save", 4, 4, {"save_steps": 4}),
        # In the middle of an epoch, its evaluation and checkpoint are not made.
        ("on_step_begin", 2, 3, {"eval_strategy": "epoch", "save_strategy": "epoch"}),
        # At the end of an epoch, they are.
        (
            "on_step_begin",
            5,
            6,
            {"eval_strategy": "epoch", "logging_strategy": "epoch", "logging_steps": None},
        ),
        # The evaluation shows no better metric, so nothing is saved and one more step is taken.
        (
            "on_step_begin",
            3,
            5,
            {
                "eval_strategy": "steps",
                "eval_steps": 2,
                "save_strategy": "best",
                "metric_for_best_model": "eval_rewards/accuracies",
            },
        ),
    ],
)
def test_a_run_stops_after_a_complete_step(stopped, event, step, after, keys):
    message = stopped(event, step, **keys)
    assert message.startswith(f"stopped by SIGTERM after step {after} of 12; ")


def test_a_signal_while_the_reference_is_computed_ends_the_command(run, monkeypatch, capsys):
    def interrupt(*args):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", interrupt)
    status, out = run(precompute_ref_log_probs=True)
    assert status == 1
    message = "stopped; complete checkpoints are kept; run the same command again to resume"
    assert capsys.readouterr().err.splitlines()[-1] == message
    assert not out.exists()


def test_a_second_signal_goes_to_the_previous_handler(monkeypatch):
    seen = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    before = signal.signal(signal.SIGTERM, lambda *signal: seen.append(signal))
    try:
        with Stop() as stop:
            stop.defer = True
            signal.raise_signal(signal.SIGTERM)
            assert stop.caught == signal.SIGTERM and not seen
            signal.raise_signal(signal.SIGTERM)
            assert len(seen) == 1
        # A launcher forwards the signal that the terminal has already sent.
        monkeypatch.setenv("LOCAL_RANK", "0")
        with Stop() as stop:
            stop.defer = True
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert len(seen) == 1
        signal.raise_signal(signal.SIGTERM)
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_exit_status_is_1_after_an_interrupt_inside_exec(tmp_path):
    """A signal during imports passes through exec, after which CPython exits with 130."""
    (tmp_path / "stopped.py").write_text(
        "from dpo_wrap.cli import exit_with\n"
        "try:\n    exec('raise KeyboardInterrupt')\n"
        "except KeyboardInterrupt:\n    print('stopped')\n"
        "exit_with(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stopped"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "stopped\n")

"""signals: whenever a signal arrives, the run can be resumed and nothing is done twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training import adapter_weights, metrics, same, without_times
from trl import DPOTrainer

from dpo_wrap.signals import Stop
from dpo_wrap.training import session

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "event, step, after, keys",
    [
        # The evaluation is finished, and its figures are in the checkpoint.
        ("on_prediction_step", 4, 4, {"eval_strategy": "steps", "eval_steps": 4}),
        ("on_prediction_step", 6, 6, {"eval_strategy": "epoch"}),
        # The checkpoint that is being written is enough.
        ("on_save", 4, 4, {"save_steps": 4}),
        # Within an epoch, nothing of its end is done.
        ("on_step_begin", 2, 3, {"eval_strategy": "epoch", "save_strategy": "epoch"}),
        # At its end, all of it is.
        (
            "on_step_begin",
            5,
            6,
            {"eval_strategy": "epoch", "logging_strategy": "epoch", "logging_steps": None},
        ),
        # The evaluation decides whether to save, and decides not to: one more step is taken.
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
def test_a_run_stops_after_its_step_and_is_resumed_to_the_same_run(
    run, tmp_path, monkeypatch, capsys, event, step, after, keys
):
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
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"stopped by SIGTERM after step {after} of 12; ")
    status, out = run(**keys)
    assert status == 0
    assert same(adapter_weights(whole), adapter_weights(out))
    assert [*map(without_times, metrics(out))] == [*map(without_times, metrics(whole))]


def test_a_signal_while_the_reference_is_precomputed_ends_the_command(run, monkeypatch, capsys):
    def interrupt(*args):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", interrupt)
    status, out = run(precompute_ref_log_probs=True)
    assert status == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("stopped; ")
    assert not any(out.iterdir())


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
        # A launcher sends the terminal's signal again, and ends slow processes itself.
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


def test_an_interrupt_that_passed_through_exec_still_ends_with_the_promised_status(tmp_path):
    """This happens while modules are imported; CPython would exit with 130."""
    (tmp_path / "stopped.py").write_text(
        "from dpo_wrap.signals import exit_with\n"
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

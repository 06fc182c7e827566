"""callbacks: the bar on a terminal, the lines elsewhere."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from dpo_wrap.training.callbacks import MetricsLog, Progress

LOGS = {"loss": 0.5, "rewards/accuracies": 0.75, "rewards/margins": 0.25, "grad_norm": 1.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, monkeypatch) -> str:
    """What two steps and one log between them leave on stderr."""
    monkeypatch.setattr(sys, "stderr", stream)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=2, global_step=0)
    args, control, progress = SimpleNamespace(disable_tqdm=False), None, Progress()
    progress.on_train_begin(args, state, control)
    state.global_step = 1
    progress.on_step_end(args, state, control)
    progress.on_log(args, state, control, logs=LOGS)
    progress.on_log(args, state, control, logs={f"eval_{k}": v for k, v in LOGS.items()})
    state.global_step = 2
    progress.on_step_end(args, state, control)
    progress.on_train_end(args, state, control)
    return stream.getvalue()


def test_a_terminal_sees_a_bar_with_loss_accuracy_and_margin(monkeypatch):
    text = shown(Terminal(), monkeypatch)
    assert "training" in text and "2/2" in text
    assert "loss 0.5000  accuracy 0.7500  margin 0.2500" in text
    assert "step 1, held out: loss 0.5000" in text
    assert "grad_norm" not in text


@pytest.mark.parametrize("held_out", ["", "  (held out)"])
def test_elsewhere_each_log_is_a_line(monkeypatch, held_out):
    text = shown(io.StringIO(), monkeypatch)
    line = f"step 1/2  loss 0.5000  accuracy 0.7500  margin 0.2500{held_out}"
    assert line in text.splitlines()


def test_logs_that_carry_the_runtime_are_kept_and_the_runs_summary_is_not(tmp_path):
    """include_num_input_tokens_seen adds train_runtime to every log."""
    log = MetricsLog(tmp_path / "metrics.jsonl")
    state = SimpleNamespace(is_world_process_zero=True, global_step=1)
    log.on_log(None, state, None, {"loss": 0.5, "train_runtime": 1.0})
    log.on_log(None, state, None, {"train_loss": 0.5, "train_runtime": 1.0})
    log.flush()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5, "train_runtime": 1.0}]

"""callbacks: the bar on a terminal, the lines elsewhere, the lines of metrics.jsonl."""

import io
import json
import sys
from types import SimpleNamespace

from dpo_wrap.training.callbacks import MetricsLog, Progress

LOGS = {"loss": 0.5, "rewards/accuracies": 0.75, "rewards/margins": 0.25, "grad_norm": 1.0}
SHOWN = "loss 0.5000  accuracy 0.7500  margin 0.2500"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(stream, monkeypatch):
    """What two steps, with a log and an evaluation after the first, print to stderr."""
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


def test_a_terminal_shows_a_bar_with_loss_accuracy_and_margin(monkeypatch):
    text = printed(Terminal(), monkeypatch)
    assert "training: 100%" in text and "2/2" in text and f"{SHOWN}]" in text
    assert f"step 1/2  {SHOWN}  (held out)\n" in text
    assert f"step 1/2  {SHOWN}\n" not in text and "grad_norm" not in text


def test_elsewhere_each_log_is_a_line(monkeypatch):
    text = printed(io.StringIO(), monkeypatch)
    assert text == f"step 1/2  {SHOWN}\nstep 1/2  {SHOWN}  (held out)\n"


def test_metrics_have_logs_with_a_runtime_but_not_the_summary_of_the_run(tmp_path):
    """include_num_input_tokens_seen adds train_runtime to every log."""
    log = MetricsLog(tmp_path / "metrics.jsonl")
    state = SimpleNamespace(is_world_process_zero=True, global_step=1)
    log.on_log(None, state, None, {"loss": 0.5, "train_runtime": 1.0})
    log.on_log(None, state, None, {"train_loss": 0.5, "train_runtime": 1.0})
    log.flush()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5, "train_runtime": 1.0}]

"""Callbacks of a run: progress, metrics.jsonl, early stopping, and stopping at a signal."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from dpo_wrap.cli import Stop
from dpo_wrap.files import write_atomically

SHOWN = {"loss": "loss", "accuracy": "rewards/accuracies", "margin": "rewards/margins"}


class Progress(TrainerCallback):
    """A bar with loss, reward accuracy and margin on a terminal; elsewhere a line per log."""

    def on_train_begin(self, args, state, control, **kwargs):
        shown = state.is_world_process_zero and sys.stderr.isatty() and not args.disable_tqdm
        done = state.global_step
        self.bar = tqdm(total=state.max_steps, initial=done, desc="training", disable=not shown)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        prefix = "eval_" if "eval_loss" in (logs or {}) else ""
        if not state.is_world_process_zero or f"{prefix}loss" not in (logs or {}):
            return
        text = "  ".join(f"{name} {logs[prefix + key]:.4f}" for name, key in SHOWN.items())
        if prefix or self.bar.disable:
            held_out = "  (held out)" if prefix else ""
            line = f"step {state.global_step}/{state.max_steps}  {text}{held_out}"
            self.bar.write(line, file=sys.stderr)
        else:
            self.bar.set_postfix_str(text)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class MetricsLog(TrainerCallback):
    """Writes metrics.jsonl: one object per logged step, under TRL's names, evaluation included."""

    def __init__(self, path: Path):
        self.path = path
        self.pending: dict[str, Any] = {}
        self.next_is_partial = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Rewrite the file as it was at the checkpoint; empty at step 0."""
        if state.is_world_process_zero:
            lines = _lines_until(state.log_history, state.global_step)
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines))
            # What was averaged between the last log and the checkpoint is not saved in it.
            trained = [line["step"] for line in lines if "loss" in line]
            self.next_is_partial = state.global_step > (trained[-1] if trained else 0)

    def on_step_end(self, args, state, control, **kwargs):
        # A run shorter than logging_steps would have no figures.
        last, logs = state.global_step >= state.max_steps, state.log_history
        if last and args.logging_strategy != "no" and not any("loss" in log for log in logs):
            control.should_log = True
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "train_loss" in logs:
            return
        if self.pending and self.pending["step"] != state.global_step:
            self.flush()
        self.pending = self.pending or {"step": state.global_step}
        self.pending |= logs
        if self.next_is_partial and "loss" in logs:
            # Also in the trainer's state, from which a later resume rewrites the file.
            self.pending["partial"] = state.log_history[-1]["partial"] = True
            self.next_is_partial = False

    def flush(self, *args, **kwargs) -> None:
        """Write the pending step, to which evaluation may have added after the training log."""
        if self.pending:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.pending) + "\n")
            self.pending = {}

    on_step_begin = on_save = on_train_end = flush


class EarlyStopping(EarlyStoppingCallback):
    """EarlyStoppingCallback that keeps its count on resume."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        # Restoring all callbacks with transformers would also restore TrainerControl's stop.
        stored = state.stateful_callbacks.get(type(self).__name__, {})
        for name, value in stored.get("attributes", {}).items():
            setattr(self, name, value)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
        return control


class StopAfterStep(TrainerCallback):
    """After a signal, saves a checkpoint and stops once the step and its evaluation are done.

    The save of an epoch's last step is postponed until what the epoch's end logs and evaluates is
    done: a run that is resumed from a checkpoint before that would not do it.
    """

    def __init__(self, stop: Stop):
        self.stop = stop
        self.postponed = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.stop.defer = True

    def on_step_end(self, args, state, control, **kwargs):
        last = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        # With save_strategy: best the evaluation decides on the save, so stop one step later.
        undecided = args.save_strategy == SaveStrategy.BEST and (control.should_evaluate or last)
        if not undecided and self._any_caught(args):
            self._save_and_stop(args, control)
        self.postponed = control.should_save and last
        control.should_save = control.should_save and not last
        return control

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.postponed:
            control.should_save, self.postponed = True, False
        elif self.stop.agreed:
            # transformers calls this also when a run stops within an epoch.
            control.should_log = control.should_evaluate = control.should_save = False
        return control

    def on_evaluate(self, args, state, control, **kwargs):
        if args.save_strategy != SaveStrategy.BEST and self._any_caught(args):
            self._save_and_stop(args, control)
        return control

    def on_save(self, args, state, control, **kwargs):
        if not args.save_only_model and self._any_caught(args):
            control.should_training_stop = True
        return control

    def _any_caught(self, args: TrainingArguments) -> bool:
        """Whether any process has caught a signal; all processes get the same answer."""
        caught = self.stop.caught or 0
        if args.world_size > 1:
            numbers = torch.tensor(caught, device=args.device)
            torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
            caught = numbers.item()
        self.stop.agreed = signal.Signals(caught) if caught else None
        return bool(caught)

    def _save_and_stop(self, args: TrainingArguments, control: TrainerControl) -> None:
        control.should_save = control.should_training_stop = True
        # Weights alone could not be resumed from.
        args.save_only_model = False


def _lines_until(history: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl up to a step, from the trainer's log history."""
    merged: dict[int, dict[str, Any]] = {}
    for entry in history:
        if entry["step"] <= step and "train_loss" not in entry:
            merged.setdefault(entry["step"], {"step": entry["step"]}).update(entry)
    return [merged[number] for number in sorted(merged)]

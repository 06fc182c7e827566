"""What happens beside the steps: a progress bar, metrics.jsonl, a stop."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer_utils import SaveStrategy

from dpo_wrap.files import write_atomically
from dpo_wrap.signals import Stop

SHOWN = {"loss": "loss", "accuracy": "rewards/accuracies", "margin": "rewards/margins"}


class Progress(TrainerCallback):
    """A bar with loss, reward accuracy and margin; where no terminal watches, a line per log."""

    def __init__(self):
        self.bar = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero and sys.stderr.isatty() and not args.disable_tqdm:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training")

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        prefix = "eval_" if "eval_loss" in logs else ""
        if f"{prefix}loss" not in logs:
            return
        text = "  ".join(f"{name} {logs[prefix + key]:.4f}" for name, key in SHOWN.items())
        if self.bar is None:
            held_out = "  (held out)" if prefix else ""
            print(f"step {state.global_step}/{state.max_steps}  {text}{held_out}", file=sys.stderr)
        elif not prefix:
            self.bar.set_postfix_str(text)
        else:
            self.bar.write(f"step {state.global_step}, held out: {text}", file=sys.stderr)

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()


class MetricsLog(TrainerCallback):
    """metrics.jsonl: one object per logged step, TRL's own names, evaluation merged in."""

    def __init__(self, path: Path):
        self.path = path
        self.pending: dict[str, Any] = {}
        self.cut = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Bring the file to where the run is: empty, or as it was at the checkpoint."""
        if state.is_world_process_zero:
            lines = _lines_until(state.log_history, state.global_step)
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines))
            # The window between the last log and the checkpoint is lost; the next one is its rest.
            trained = [line["step"] for line in lines if "loss" in line]
            self.cut = state.global_step > (trained[-1] if trained else 0)

    def on_step_end(self, args, state, control, **kwargs):
        # A run shorter than logging_steps would end without a figure.
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
        if self.cut and "loss" in logs:
            # Also in the trainer's state, from which a later resume writes the file anew.
            self.pending["partial"] = state.log_history[-1]["partial"] = True
            self.cut = False

    def on_step_begin(self, args, state, control, **kwargs):
        self.flush()

    def on_save(self, args, state, control, **kwargs):
        self.flush()

    def on_train_end(self, args, state, control, **kwargs):
        self.flush()

    def flush(self) -> None:
        """Write the step that is complete; evaluation logs after training within one step."""
        if self.pending:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.pending) + "\n")
            self.pending = {}


class EarlyStopping(EarlyStoppingCallback):
    """transformers' own, which after a resume goes on counting where the checkpoint stood."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        # Restored by transformers this would bring TrainerControl's wish to stop back with it.
        stored = state.stateful_callbacks.get(type(self).__name__, {})
        for name, value in stored.get("attributes", {}).items():
            setattr(self, name, value)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
        return control


class StopAfterStep(TrainerCallback):
    """Once a signal has come, save a checkpoint and stop: after a step, its evaluation, its save.

    A save of an epoch's last step waits for what the end of the epoch logs and evaluates. Going on
    from before that would never do it.
    """

    def __init__(self, stop: Stop):
        self.stop = stop
        self.postponed = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.stop.defer = True

    def on_step_end(self, args, state, control, **kwargs):
        last = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        # With `best` an evaluation decides on the save: stop after the next step.
        judged = args.save_strategy == SaveStrategy.BEST and (control.should_evaluate or last)
        if not judged and self._agreed(args):
            self._save_and_stop(args, control)
        self.postponed = control.should_save and last
        control.should_save = control.should_save and not last
        return control

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.postponed:
            control.should_save, self.postponed = True, False
        elif self.stop.agreed:
            # Not the end of the epoch, which transformers takes it for.
            control.should_log = control.should_evaluate = control.should_save = False
        return control

    def on_evaluate(self, args, state, control, **kwargs):
        if args.save_strategy != SaveStrategy.BEST and self._agreed(args):
            self._save_and_stop(args, control)
        return control

    def on_save(self, args, state, control, **kwargs):
        if not args.save_only_model and self._agreed(args):
            control.should_training_stop = True
        return control

    def _agreed(self, args: TrainingArguments) -> bool:
        """Whether any process of the run has caught a signal, so that all stop at one step."""
        caught = self.stop.caught or 0
        if args.world_size > 1:
            numbers = torch.tensor(caught, device=args.device)
            torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
            caught = numbers.item()
        self.stop.agreed = signal.Signals(caught) if caught else None
        return bool(caught)

    def _save_and_stop(self, args: TrainingArguments, control: TrainerControl) -> None:
        control.should_save = control.should_training_stop = True
        # Of this one checkpoint more is wanted than its weights.
        args.save_only_model = False


def _lines_until(history: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """The merged log lines up to a step, from the trainer's state."""
    merged: dict[int, dict[str, Any]] = {}
    for entry in history:
        if entry["step"] <= step and "train_loss" not in entry:
            merged.setdefault(entry["step"], {"step": entry["step"]}).update(entry)
    return [merged[number] for number in sorted(merged)]

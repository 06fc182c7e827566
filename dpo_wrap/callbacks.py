"""What happens beside the steps: a progress bar, metrics.jsonl, checkpoint marks, a stop."""

import json
import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from dpo_wrap.checkpoints import write_mark
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
            lines = _lines_until(self.path, state.log_history, state.global_step)
            self.path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
            # The window between the last log and the checkpoint is lost; the next one is its rest.
            trained = [line["step"] for line in lines if "loss" in line]
            self.cut = state.global_step > (trained[-1] if trained else 0)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        if self.pending and self.pending["step"] != state.global_step:
            self.flush()
        self.pending = self.pending or {"step": state.global_step}
        self.pending |= logs
        if self.cut and "loss" in logs:
            self.pending["partial"] = True
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


class CheckpointMarks(TrainerCallback):
    """Mark each checkpoint as complete, with the run that it belongs to."""

    def __init__(self, identity: dict[str, Any]):
        self.identity = identity

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            write_mark(folder, self.identity, resumable=not args.save_only_model)


class StopAfterStep(TrainerCallback):
    """Once a signal has come, save a checkpoint after the step and stop."""

    def __init__(self, stop: Stop):
        self.stop = stop

    def on_train_begin(self, args, state, control, **kwargs):
        self.stop.waits = True

    def on_step_end(self, args, state, control, **kwargs):
        if self.stop.caught:
            control.should_save = True
            control.should_training_stop = True
            # Of this one checkpoint more is wanted than its weights.
            args.save_only_model = False
        return control


def _lines_until(path: Path, history: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """The merged log lines up to a step, from the trainer's state; earlier marks are kept."""
    partial = set()
    if step and path.is_file():
        for line in path.read_text("utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the line that a kill cut short; the trainer's state has it whole
            if "partial" in entry:
                partial.add(entry["step"])
    merged: dict[int, dict[str, Any]] = {}
    for entry in history:
        if entry["step"] <= step and "train_runtime" not in entry:
            merged.setdefault(entry["step"], {"step": entry["step"]}).update(entry)
    for number in partial & merged.keys():
        merged[number]["partial"] = True
    return [merged[number] for number in sorted(merged)]

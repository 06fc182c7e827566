"""One training session: prepare, start or resume, train, save and report."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpo_wrap import run_dir
from dpo_wrap.arguments import REFUSALS, refusal
from dpo_wrap.cli import Stop
from dpo_wrap.config import Settings
from dpo_wrap.data.splits import move_into_run
from dpo_wrap.diagnostics import memory
from dpo_wrap.diagnostics.checks import check_scoring, reference_record, step_zero
from dpo_wrap.diagnostics.watch import HealthWatch
from dpo_wrap.errors import StoppedError
from dpo_wrap.files import clear_own
from dpo_wrap.hub import check_moving
from dpo_wrap.ownership import check_own, is_run, locked
from dpo_wrap.run_dir import Start
from dpo_wrap.system_errors import system_errors_reported
from dpo_wrap.terminal import show
from dpo_wrap.training.callbacks import EarlyStopping, MetricsLog, Progress, StopAfterStep
from dpo_wrap.training.finish import finish, summary
from dpo_wrap.training.prepare import Prepared, prepare
from dpo_wrap.training.reference_logps import ReferenceStore
from dpo_wrap.training.trainer import build_trainer, describe
from dpo_wrap.trl_hooks import PreparedTrainer

RESUMES = "the same command resumes from the newest checkpoint"


def run_session(settings: Settings, resume: str, stop: Stop, brief: bool = False) -> int:
    """Train what the config describes; returns the exit status. Raises DpoWrapError.

    With `brief` only progress is printed, for runs that are a step of another command.
    """
    out = Path(settings.output_dir).expanduser()
    with (
        system_errors_reported(out, RESUMES),
        locked(out, "train"),
        _temp_dir(out) as temp_dir,
    ):
        check_own(out, settings.where("output_dir"))
        replaces = resume == "never" and is_run(out)
        if replaces:
            check_moving(settings)
        # A run that is renamed takes its converted data with it.
        run_directory = temp_dir if replaces else out
        prepared = prepare(settings, run_directory, temp_dir)
        identity = prepared.identity
        start = Start() if resume == "never" else run_dir.where_to_start(out, resume, identity)
        if start.finished is not None:
            log(f"{out}: already finished with this config and these data; nothing to do")
            log(*([] if brief else summary(start.finished, settings)))
            return 0
        store = ReferenceStore(run_directory, temp_dir, run_dir.resume_digest(identity))
        with memory.explain_out_of_memory(prepared):
            trainer, notes = make_trainer(prepared, stop, store)
        log(*start.notes)
        log(*([] if brief else [*describe(trainer, prepared), *prepared.notes, *notes]))
        if start.checkpoint is None:
            step_0 = measure_step_zero(trainer, prepared)
            measured = {"step_0": step_0, "reference": reference_record(trainer)}
        else:
            found = start.checkpoint.identity
            measured = {name: found.get(name) for name in ("step_0", "reference")}
        trainer.identity = identity | measured
        # No process may still be reading from an old run when it is renamed.
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            if replaces:
                log(f"the old run was renamed to {run_dir.rename_old(out)}")
            out.mkdir(parents=True, exist_ok=True)
            run_dir.begin(out, identity["config"])
            move_into_run(out, temp_dir)
        trainer.accelerator.wait_for_everyone()
        with memory.explain_out_of_memory(prepared, trainer):
            _run(trainer, start, settings, stop)
        step, steps = trainer.state.global_step, trainer.state.max_steps
        if stop.agreed and step < steps:
            raise StoppedError(
                f"stopped by {stop.agreed.name} after step {step} of {steps}; saved "
                f"{out / f'checkpoint-{step}'}, from which the same command resumes"
            )
        run = finish(out, trainer, prepared)
    log(*([] if brief else summary(run, settings)))
    return 0


def make_trainer(
    prepared: Prepared, stop: Stop | None = None, reference_store: ReferenceStore | None = None
) -> tuple[PreparedTrainer, list[str]]:
    """The trainer with its callbacks, and notes; without `stop` it is for a dry run."""
    notes: list[str] = []
    callbacks = [Progress()]
    if (patience := prepared.settings.early_stopping_patience) is not None:
        callbacks.append(EarlyStopping(patience))
    if stop is not None:
        metrics = MetricsLog(Path(prepared.arguments.dpo.output_dir) / run_dir.METRICS)
        callbacks += [StopAfterStep(stop), metrics]
    trainer = build_trainer(prepared, callbacks, notes, reference_store)
    if stop is not None:
        trainer.add_callback(HealthWatch(trainer))
    return trainer, notes


def measure_step_zero(trainer: PreparedTrainer, prepared: Prepared) -> dict[str, Any] | None:
    """Loss and margin before the first step, also logged; None if the model is sharded.

    Raises ModelError for a model that TRL does not score as its own code does.
    """
    settings = prepared.settings
    with memory.explain_out_of_memory(prepared, trainer):
        check_scoring(trainer, f"{settings.where('model_path')} {settings.model_path!r}")
        zero = step_zero(trainer)
    if zero is None:
        return None
    expected = " = ln 2" if math.isclose(zero.loss, math.log(2), abs_tol=1e-4) else ""
    log(f"step 0: loss {zero.loss:.4f}{expected}, margin {zero.margin:.4f}")
    if zero.fault:
        log(f"warning: {zero.fault}")
    return dataclasses.asdict(zero)


def log(*lines: str) -> None:
    """Print the lines from the main process."""
    if os.environ.get("RANK", "0") == "0":
        show(*lines)


def _run(trainer: PreparedTrainer, start: Start, settings: Settings, stop: Stop) -> None:
    checkpoint = None
    if start.checkpoint is not None:
        checkpoint = str(start.checkpoint.path)
        trainer.resume_token_count(start.checkpoint.num_tokens)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except REFUSALS as error:
        # `defer` is set when training begins: an optimizer or a schedule that cannot be built
        # fails before.
        if stop.defer:
            raise
        raise refusal("transformers", error, settings) from None


@contextlib.contextmanager
def _temp_dir(out: Path) -> Iterator[Path]:
    """A directory next to the run directory for what is made before the run is accepted."""
    folder = out.with_name(f"{out.name}.part-data")
    main, existed = os.environ.get("RANK", "0") == "0", out.exists()
    if main:
        clear_own(folder)
    try:
        yield folder
    finally:
        if main:
            clear_own(folder)
            if not existed and out.is_dir() and not any(out.iterdir()):
                out.rmdir()  # the trainer made it for a run that was then refused

"""One training session: prepared, begun or gone on with, trained, saved and judged."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpo_wrap.arguments import REFUSALS, refusal
from dpo_wrap.config import Settings
from dpo_wrap.data.splits import move_into_run
from dpo_wrap.diagnostics import memory
from dpo_wrap.diagnostics.checks import step_zero
from dpo_wrap.diagnostics.watch import HealthWatch
from dpo_wrap.errors import StoppedError
from dpo_wrap.files import clear_own
from dpo_wrap.hub import check_moving
from dpo_wrap.signals import Stop
from dpo_wrap.system_errors import system_errors_reported
from dpo_wrap.training import run_dir
from dpo_wrap.training.callbacks import EarlyStopping, MetricsLog, Progress, StopAfterStep
from dpo_wrap.training.finish import finish, summary
from dpo_wrap.training.prepare import Prepared, prepare
from dpo_wrap.training.reference_logps import KeptReference
from dpo_wrap.training.run_dir import Start
from dpo_wrap.training.trainer import PreparedTrainer, build_trainer, described

GOES_ON = "the same command goes on from the newest checkpoint"


def train(settings: Settings, resume: str, stop: Stop, brief: bool = False) -> int:
    """Train what the config asks for; returns the exit status. Raises DpoWrapError.

    With `brief` only progress is said, as suits a run that serves another end.
    """
    out = Path(settings.output_dir).expanduser()
    with system_errors_reported(out, GOES_ON), _aside(out) as aside:
        fresh = resume == "never" and run_dir.is_run(out)
        if fresh:
            check_moving(settings)
        # A run that is moved aside takes its converted data along.
        prepared = prepare(settings, aside if fresh else out, aside)
        identity = identity_of(prepared)
        start = Start() if resume == "never" else run_dir.where_to_start(out, resume, identity)
        if start.finished is not None:
            say(f"{out}: finished before, with this config and these data; nothing to do")
            say(*([] if brief else summary(start.finished, settings)))
            return 0
        standing = aside if fresh else out
        kept = KeptReference(standing, aside, run_dir.lasting_digest(identity))
        trainer, notes = trainer_of(prepared, stop, kept=kept)
        say(*start.notes)
        say(*([] if brief else [*described(trainer, prepared), *prepared.notes, *notes]))
        if start.checkpoint is None:
            identity |= {"step_0": measured_step_zero(trainer, prepared)}
        else:
            identity |= {"step_0": start.checkpoint.identity["step_0"]}
        trainer.identity = identity
        # What a process still reads of an older run must not move below it.
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            _begin(out, aside, identity, fresh)
        trainer.accelerator.wait_for_everyone()
        with memory.explain_out_of_memory(prepared, trainer):
            _run(trainer, start, settings, stop)
        step, steps = trainer.state.global_step, trainer.state.max_steps
        if stop.agreed and step < steps:
            folder = out / f"checkpoint-{step}"
            raise StoppedError(
                f"stopped by {stop.agreed.name} after step {step} of {steps}; {folder} holds "
                "it, and the same command goes on from there"
            )
        run = finish(out, trainer, prepared, identity)
    say(*([] if brief else summary(run, settings)))
    return 0


def identity_of(prepared: Prepared) -> dict[str, Any]:
    """What makes the run that was prepared this one, for its marks and its match."""
    config = run_dir.resolved(prepared.settings, prepared.arguments)
    talks = prepared.splits.conversational
    template = prepared.tokenizer.chat_template if talks else None
    processes = prepared.arguments.dpo.world_size
    return run_dir.identity(config, prepared.splits.fingerprint, template, processes)


def trainer_of(
    prepared: Prepared, stop: Stop | None, **reference: Any
) -> tuple[PreparedTrainer, list[str]]:
    """The trainer and what it notes; without a `stop` it is one that will not train.

    `reference` as for build_trainer.
    """
    notes: list[str] = []
    callbacks = [Progress()]
    if (patience := prepared.settings.early_stopping_patience) is not None:
        callbacks.append(EarlyStopping(patience))
    if stop is not None:
        metrics = MetricsLog(Path(prepared.arguments.dpo.output_dir) / run_dir.METRICS)
        callbacks += [StopAfterStep(stop), metrics]
    with memory.explain_out_of_memory(prepared):
        trainer = build_trainer(prepared, callbacks, notes, **reference)
    if stop is not None:
        trainer.add_callback(HealthWatch(trainer))
    return trainer, notes


def measured_step_zero(trainer: PreparedTrainer, prepared: Prepared) -> dict[str, Any] | None:
    """Loss and margin before the first step, said; None where the model is sharded."""
    with memory.explain_out_of_memory(prepared, trainer):
        zero = step_zero(trainer)
    if zero is None:
        return None
    at = " = ln 2" if math.isclose(zero.loss, math.log(2), abs_tol=1e-4) else ""
    say(f"step 0: loss {zero.loss:.4f}{at}, margin {zero.margin:.4f}")
    if zero.fault:
        say(f"warning: {zero.fault}")
    return dataclasses.asdict(zero)


def _begin(out: Path, aside: Path, identity: dict[str, Any], fresh: bool) -> None:
    if fresh:
        say(f"the older run was moved to {run_dir.move_aside(out)}")
    out.mkdir(parents=True, exist_ok=True)
    move_into_run(out, aside)
    run_dir.begin(out, identity["config"])


def _run(trainer: PreparedTrainer, start: Start, settings: Settings, stop: Stop) -> None:
    checkpoint = None
    if start.checkpoint is not None:
        checkpoint = str(start.checkpoint.path)
        trainer._total_train_tokens = start.checkpoint.num_tokens
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except REFUSALS as error:
        # Before the first step: an optimizer or a schedule that cannot be built.
        if stop.defer:
            raise
        raise refusal("transformers", error, settings) from None


@contextlib.contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A place beside the run directory for converted data, until the run is accepted."""
    folder = out.with_name(f"{out.name}.part-data")
    main = os.environ.get("RANK", "0") == "0"
    if main:
        clear_own(folder)
    try:
        yield folder
    finally:
        if main:
            clear_own(folder)


def say(*lines: str) -> None:
    """Print the lines once, whatever the number of processes."""
    if os.environ.get("RANK", "0") == "0":
        for line in lines:
            print(line, flush=True)

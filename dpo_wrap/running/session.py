"""One training session: prepared, begun or gone on with, trained, saved, judged; or rehearsed."""

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dpo_wrap.errors import StoppedError
from dpo_wrap.faults import faults_named
from dpo_wrap.health import memory
from dpo_wrap.health.alike import answer_tokens
from dpo_wrap.health.drift import measure_drift
from dpo_wrap.health.verdict import figures, prefers, step_zero, verdict
from dpo_wrap.health.watch import HealthWatch, warn_of_a_flat_end, warnings_of
from dpo_wrap.loading.arguments import REFUSALS, refusal
from dpo_wrap.loading.data import adopt
from dpo_wrap.loading.fit import kept_ids, table
from dpo_wrap.loading.hub import check_moving
from dpo_wrap.loading.prepare import Prepared, prepare
from dpo_wrap.loss import covers
from dpo_wrap.page.report import REPORT, write_page
from dpo_wrap.running import preflight, run_dir
from dpo_wrap.running.callbacks import EarlyStopping, MetricsLog, Progress, StopAfterStep
from dpo_wrap.running.run_dir import Start
from dpo_wrap.running.trainer import PreparedTrainer, build_trainer, described, total_steps
from dpo_wrap.settings.config import Settings
from dpo_wrap.signals import Stop

GOES_ON = "the same command goes on from the newest checkpoint"
EXAMPLES = 3
"""Pairs that a dry run shows."""


def train(settings: Settings, resume: str, stop: Stop) -> int:
    """Train what the config asks for; returns the exit status. Raises DpoWrapError."""
    out = Path(settings.output_dir).expanduser()
    with faults_named(out, GOES_ON), _aside(out) as aside:
        fresh = resume == "never" and run_dir.is_run(out)
        if fresh:
            check_moving(settings)
        # A run that is moved aside takes its converted data along.
        prepared = prepare(settings, aside if fresh else out, aside)
        identity = _identity(prepared)
        start = Start() if resume == "never" else run_dir.where_to_start(out, resume, identity)
        if start.finished is not None:
            _say(f"{out}: finished before, with this config and these data; nothing to do")
            _say(*_summary(start.finished, settings))
            return 0
        trainer, notes = _trainer(prepared, stop)
        _say(*described(trainer, prepared), *start.notes, *prepared.notes, *notes)
        if start.checkpoint is None:
            identity |= {"step_0": _step_zero(trainer, prepared)}
        else:
            identity |= {"step_0": start.checkpoint.identity["step_0"]}
        trainer.identity = identity
        # What a process still reads of an older run must not move below it.
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            _begin(out, aside, identity, fresh)
        trainer.accelerator.wait_for_everyone()
        with memory.explained(prepared, trainer):
            _run(trainer, start, settings, stop)
        step, steps = trainer.state.global_step, trainer.state.max_steps
        if stop.agreed and step < steps:
            folder = out / f"checkpoint-{step}"
            raise StoppedError(
                f"stopped by {stop.agreed.name} after step {step} of {steps}; {folder} holds "
                "it, and the same command goes on from there"
            )
        run = _finish(out, trainer, prepared, identity)
    _say(*_summary(run, settings))
    return 0


def dry_run(settings: Settings, resume: str) -> int:
    """Everything but the weights' updates, shown; nothing is written. Raises DpoWrapError."""
    out = Path(settings.output_dir).expanduser()
    with tempfile.TemporaryDirectory() as spare, faults_named(out, GOES_ON):
        rehearsal = dataclasses.replace(
            settings,
            output_dir=str(Path(spare, "run")),
            trl=MappingProxyType({**settings.trl, "push_to_hub": False}),
        )
        prepared = prepare(rehearsal, out, Path(spare, "aside"))
        start = Start()
        if resume != "never":
            start = run_dir.where_to_start(out, resume, _identity(prepared))
        elif run_dir.is_run(out):
            check_moving(settings)
        trainer, notes = _trainer(prepared, None)
        _say(*described(trainer, prepared), *start.notes, *prepared.notes, *notes)
        for split, found in prepared.fits.items():
            _say(f"{split}:", *table(found))
        _say(*_examples(prepared))
        steps = total_steps(trainer)
        done = start.checkpoint.step if start.checkpoint else 0
        _say(f"steps: {steps}" + (f", of which {done} are done" if done else ""))
        zero = _step_zero(trainer, prepared)
        if zero is not None:
            # Only a sharded model has none; it cannot be run before training begins.
            with memory.explained(prepared, trainer):
                batch = preflight.longest_batch(trainer, prepared)
            fit = preflight.familiarity(trainer, prepared)
            _say(*preflight.spoken(batch, fit, prepared.arguments.dpo.device))
        if start.finished is not None:
            _say(f"{out} holds this very run, finished; training would do nothing")
        _say("dry run: nothing was written")
    return 0 if zero is None or zero["fault"] is None else 1


def _identity(prepared: Prepared) -> dict[str, Any]:
    config = run_dir.resolved(prepared.settings, prepared.arguments)
    talks = prepared.splits.conversational
    template = prepared.tokenizer.chat_template if talks else None
    processes = prepared.arguments.dpo.world_size
    return run_dir.identity(config, prepared.splits.fingerprint, template, processes)


def _trainer(prepared: Prepared, stop: Stop | None) -> tuple[PreparedTrainer, list[str]]:
    notes: list[str] = []
    callbacks = [Progress()]
    if (patience := prepared.settings.early_stopping_patience) is not None:
        callbacks.append(EarlyStopping(patience))
    if stop is not None:
        metrics = MetricsLog(Path(prepared.arguments.dpo.output_dir) / run_dir.METRICS)
        callbacks += [StopAfterStep(stop), metrics]
    with memory.explained(prepared):
        trainer = build_trainer(prepared, callbacks, notes)
    if stop is not None:
        trainer.add_callback(HealthWatch(trainer))
    return trainer, notes


def _step_zero(trainer: PreparedTrainer, prepared: Prepared) -> dict[str, Any] | None:
    with memory.explained(prepared, trainer):
        zero = step_zero(trainer)
    if zero is None:
        return None
    at = " = ln 2" if math.isclose(zero.loss, math.log(2), abs_tol=1e-4) else ""
    _say(f"step 0: loss {zero.loss:.4f}{at}, margin {zero.margin:.4f}")
    if zero.fault:
        _say(f"warning: {zero.fault}")
    return dataclasses.asdict(zero)


def _begin(out: Path, aside: Path, identity: dict[str, Any], fresh: bool) -> None:
    if fresh:
        _say(f"the older run was moved to {run_dir.move_aside(out)}")
    out.mkdir(parents=True, exist_ok=True)
    adopt(out, aside)
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
        if stop.waits:
            raise
        raise refusal("transformers", error, settings) from None


def _finish(
    out: Path, trainer: PreparedTrainer, prepared: Prepared, identity: dict[str, Any]
) -> dict[str, Any]:
    """Save the weights, the card and at last run.json; returns what it says."""
    trainer.save_model(str(out))
    trainer.create_model_card(model_name=out.name)
    dpo, history = prepared.arguments.dpo, trainer.state.log_history
    found = figures(history, dpo.beta, answer_tokens(trainer))
    drift = measure_drift(trainer, prepared.test)
    if found and trainer.args.load_best_model_at_end and trainer.state.best_global_step:
        found["saved_step"] = trainer.state.best_global_step
    warn_of_a_flat_end(trainer, found)
    runtime = [entry["train_runtime"] for entry in history if "train_runtime" in entry]
    run = {
        "verdict": verdict(found, identity["step_0"], drift, prefers(trainer)),
        "figures": found | {"kl_per_token_on_chosen": drift.per_token} if found else found,
        "warnings": warnings_of(trainer.state),
        "step_0": identity["step_0"],
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "seconds": runtime[-1] if runtime else None,
        # A loss that a newer TRL knows trains like any other, though no test here has held it.
        "loss_covered": covers(
            dpo.loss_type, dpo.f_divergence_type, dpo.ld_alpha, dpo.use_weighting
        ),
        "config": identity["config"],
        "weights": identity["weights"],
        "data": identity["data"]
        | {"train": len(prepared.train), "test": len(prepared.test) if prepared.test else 0}
        | {"fit": {split: dataclasses.asdict(fit) for split, fit in prepared.fits.items()}},
        "notes": shareable(prepared.notes),
        "versions": run_dir.versions(),
    }
    if trainer.is_world_process_zero():
        # A pickle of the arguments, tokens among them, that nothing here reads.
        (out / "training_args.bin").unlink(missing_ok=True)
        write_page(out, run)
        run_dir.finish(out, run)
    return run


def shareable(notes: list[str]) -> list[str]:
    """The notes without those whose place is a --set that holds a token of the user's."""
    return [note for note in notes if not (note.startswith("--set ") and "token" in note)]


def _summary(run: dict[str, Any], settings: Settings) -> list[str]:
    out, found = settings.output_dir, run["figures"]
    what = "the full weights" if settings.lora is None else "the adapter"
    lines = [f"trained {run['steps']} steps on {run['data']['train']:,} pairs"]
    if found:
        lines.append(
            f"loss {found['first_loss']:.4f} -> {found['loss']:.4f}, "
            f"reward accuracy {found['reward_accuracy']:.2f}, margin {found['reward_margin']:.4f}"
        )
    if run.get("warnings"):
        said = (f"{warning['what']} (step {warning['step']})" for warning in run["warnings"])
        lines.append(f"warnings on the way: {', '.join(said)}")
    return [
        *lines,
        run["verdict"],
        f"{what} and tokenizer: {out}; figures: {out}/{run_dir.METRICS}, {out}/{run_dir.RUN}",
        f"page: {out}/{REPORT}",
        f"next: python -m dpo_wrap.eval {_repeats(settings)}",
    ]


def _repeats(settings: Settings) -> str:
    """The config that names this run by itself: the user's, unless --set changed it."""
    changed = any(place.startswith("--set ") for place in settings.places.values())
    return f"{settings.output_dir}/{run_dir.CONFIG}" if changed else settings.source


def _examples(prepared: Prepared) -> list[str]:
    """A few pairs as they are trained on; what stands in [[ ]] is what the loss is taken over."""
    lines, tokenizer, dpo = [], prepared.tokenizer, prepared.arguments.dpo
    for number in range(min(EXAMPLES, len(prepared.train))):
        row = prepared.train[number]
        source = f" ({row['source']})" if "source" in row else ""
        lines.append(f"example {number + 1}{source}")
        for side in ("chosen", "rejected"):
            prompt, answer = kept_ids(row, side, dpo.max_length, dpo.truncation_mode)
            lines.append(
                f"  {side:<8}  {len(prompt)} + {len(answer)} tokens: "
                f"{tokenizer.decode(prompt)}[[{tokenizer.decode(answer)}]]"
            )
    return lines


@contextlib.contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A place beside the run directory for converted data, until the run is accepted."""
    folder = out.with_name(f"{out.name}.part-data")
    main = os.environ.get("RANK", "0") == "0"
    if main:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        if main:
            shutil.rmtree(folder, ignore_errors=True)


def _say(*lines: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        for line in lines:
            print(line, flush=True)

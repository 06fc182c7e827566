"""The end of a run: weights saved, figures taken, the verdict found, run.json written last."""

import functools
from pathlib import Path
from typing import Any

from dpo_wrap.config import Settings
from dpo_wrap.diagnostics.checks import measure_kl
from dpo_wrap.diagnostics.pairs import answer_tokens
from dpo_wrap.diagnostics.verdict import figures, verdict
from dpo_wrap.diagnostics.watch import has_preference_loss, warn_if_flat_at_end, warnings_of
from dpo_wrap.loss import covers
from dpo_wrap.model.load import load_base
from dpo_wrap.report.page import REPORT, write_page
from dpo_wrap.training import run_dir
from dpo_wrap.training.prepare import Prepared, distributed
from dpo_wrap.training.reference_logps import forget
from dpo_wrap.training.trainer import PreparedTrainer


def finish(
    out: Path, trainer: PreparedTrainer, prepared: Prepared, identity: dict[str, Any]
) -> dict[str, Any]:
    """Save the weights, the card and at last run.json; returns what it says."""
    trainer.save_model(str(out))
    trainer.create_model_card(model_name=out.name)
    dpo, history = prepared.arguments.dpo, trainer.state.log_history
    found = figures(history, dpo.beta, answer_tokens(trainer))
    load = functools.partial(load_base, prepared.settings, distributed())
    kl = measure_kl(trainer, prepared.test, load)
    if found and trainer.args.load_best_model_at_end and trainer.state.best_global_step:
        found["saved_step"] = trainer.state.best_global_step
    warn_if_flat_at_end(trainer, found)
    runtime = [entry["train_runtime"] for entry in history if "train_runtime" in entry]
    run = {
        "verdict": verdict(found, identity["step_0"], kl, has_preference_loss(trainer)),
        "figures": found | {"kl_per_token_on_chosen": kl.per_token},
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
        | {"fit": {split: fit.as_record() for split, fit in prepared.fits.items()}},
        "prefix_sharing": trainer.shared.figures(),
        "notes": [*prepared.notes, trainer.shared.line()],
        "versions": run_dir.versions(),
    }
    if trainer.is_world_process_zero():
        # A pickle of the arguments, tokens among them, that nothing here reads.
        (out / "training_args.bin").unlink(missing_ok=True)
        write_page(out, run)
        forget(out)
        run_dir.finish(out, run)
    return run


def summary(run: dict[str, Any], settings: Settings) -> list[str]:
    """What is said of a finished run, from its run.json."""
    out, found = settings.output_dir, run["figures"]
    what = "the full weights" if settings.lora is None else "the adapter"
    lines = [f"trained {run['steps']} steps on {run['data']['train']:,} pairs"]
    if "first_loss" in found:
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
    changed = any(place.startswith("--set ") for place in settings.locations.values())
    return f"{settings.output_dir}/{run_dir.CONFIG}" if changed else settings.source

"""The end of a run: save the weights, collect the figures, and write run.json last."""

import functools
from pathlib import Path
from typing import Any

from dpo_wrap import run_dir
from dpo_wrap.config import Settings
from dpo_wrap.diagnostics.checks import measure_kl
from dpo_wrap.diagnostics.pairs import answer_tokens
from dpo_wrap.diagnostics.verdict import figures, verdict
from dpo_wrap.diagnostics.watch import has_preference_loss, warn_if_flat_at_end, warnings_of
from dpo_wrap.loss import covers
from dpo_wrap.model.load import load_base
from dpo_wrap.report.card import model_card
from dpo_wrap.report.page import write_page
from dpo_wrap.training.prepare import Prepared, distributed
from dpo_wrap.training.reference_logps import delete_stored
from dpo_wrap.trl_hooks import PreparedTrainer


def finish(out: Path, trainer: PreparedTrainer, prepared: Prepared) -> dict[str, Any]:
    """Save weights, model card, page and run.json; returns the content of run.json."""
    dpo, identity = prepared.arguments.dpo, trainer.identity
    state, history = trainer.state, trainer.state.log_history
    found = figures(history, dpo.beta, answer_tokens(trainer))
    run = {
        "figures": found,
        "steps": state.global_step,
        "config": identity["config"],
        "data": identity["data"]
        | {"train": len(prepared.train), "test": len(prepared.test) if prepared.test else 0}
        | {"fit": {split: fit.as_record() for split, fit in prepared.fits.items()}},
        "versions": run_dir.versions(),
    }
    trainer.card = model_card(out.name, run)
    trainer.save_model(str(out))
    load = functools.partial(load_base, prepared.settings, distributed())
    kl = measure_kl(trainer, prepared.test, load)
    if found and trainer.args.load_best_model_at_end and state.best_model_checkpoint:
        found["saved_step"] = state.best_global_step
    warn_if_flat_at_end(trainer, found)
    runtime = [entry["train_runtime"] for entry in history if "train_runtime" in entry]
    run |= {
        "verdict": verdict(found, identity["step_0"], kl, has_preference_loss(trainer)),
        "figures": found | {"kl_per_token_on_chosen": kl.per_token},
        "warnings": warnings_of(state),
        "step_0": identity["step_0"],
        "reference": identity["reference"],
        "epochs": state.epoch,
        "seconds": runtime[-1] if runtime else None,
        # Whether loss.py defines this loss; a loss that only TRL implements can be trained, too.
        "loss_covered": covers(
            dpo.loss_type, dpo.f_divergence_type, dpo.ld_alpha, dpo.use_weighting
        ),
        "weights": identity["weights"],
        "prefix_sharing": trainer.shared.figures(),
        "notes": [*prepared.notes, trainer.shared.line()],
    }
    trainer.card = model_card(out.name, run)
    trainer.create_model_card()
    if trainer.is_world_process_zero():
        # Unused, and it contains access tokens (pickled TrainingArguments).
        (out / "training_args.bin").unlink(missing_ok=True)
        write_page(out, run)
        delete_stored(out)
        run_dir.finish(out, run)
    return run


def summary(run: dict[str, Any], settings: Settings) -> list[str]:
    """Lines about a finished run, from its run.json."""
    out, found = settings.output_dir, run["figures"]
    what = "the full weights" if settings.lora is None else "the adapter"
    lines = [f"trained {run['steps']} steps on {run['data']['train']:,} pairs"]
    if "first_loss" in found:
        lines.append(
            f"loss {found['first_loss']:.4f} -> {found['loss']:.4f}, "
            f"reward accuracy {found['reward_accuracy']:.2f}, margin {found['reward_margin']:.4f}"
        )
    if run.get("warnings"):
        given = (f"{warning['what']} (step {warning['step']})" for warning in run["warnings"])
        lines.append(f"warnings during training: {', '.join(given)}")
    # With --set, only the resolved config describes this run.
    changed = any(place.startswith("--set ") for place in settings.locations.values())
    config = f"{out}/{run_dir.CONFIG}" if changed else settings.source
    return [
        *lines,
        run["verdict"],
        f"{what} and tokenizer: {out}; figures: {out}/{run_dir.METRICS}, {out}/{run_dir.RUN}",
        f"page: {out}/{run_dir.REPORT}",
        f"next: python -m dpo_wrap.eval {config}",
    ]

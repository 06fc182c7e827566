"""A dry run: everything but the weights' updates, shown, and nothing written."""

import dataclasses
import tempfile
from pathlib import Path
from types import MappingProxyType

from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import kept_ids, table
from dpo_wrap.diagnostics import memory
from dpo_wrap.hub import check_moving
from dpo_wrap.system_errors import system_errors_reported
from dpo_wrap.training import preflight, run_dir
from dpo_wrap.training.prepare import Prepared, prepare
from dpo_wrap.training.run_dir import Start
from dpo_wrap.training.session import GOES_ON, identity_of, measured_step_zero, say, trainer_of
from dpo_wrap.training.trainer import described, total_steps

EXAMPLES = 3
"""Pairs that are shown."""


def dry_run(settings: Settings, resume: str) -> int:
    """Everything but the weights' updates, shown; nothing is written. Raises DpoWrapError."""
    out = Path(settings.output_dir).expanduser()
    with tempfile.TemporaryDirectory() as spare, system_errors_reported(out, GOES_ON):
        rehearsal = dataclasses.replace(
            settings,
            output_dir=str(Path(spare, "run")),
            trl=MappingProxyType({**settings.trl, "push_to_hub": False}),
        )
        prepared = prepare(rehearsal, out, Path(spare, "aside"))
        start = Start()
        if resume != "never":
            start = run_dir.where_to_start(out, resume, identity_of(prepared))
        elif run_dir.is_run(out):
            check_moving(settings)
        trainer, notes = trainer_of(prepared, None, needed=preflight.rows_run(prepared))
        say(*described(trainer, prepared), *start.notes, *prepared.notes, *notes)
        for split, found in prepared.fits.items():
            say(f"{split}:", *table(found))
        say(*_examples(prepared))
        steps = total_steps(trainer)
        done = start.checkpoint.step if start.checkpoint else 0
        say(f"steps: {steps}" + (f", of which {done} are done" if done else ""))
        zero = measured_step_zero(trainer, prepared)
        if zero is not None:
            # Only a sharded model has none; it cannot be run before training begins.
            with memory.explain_out_of_memory(prepared, trainer):
                batch = preflight.longest_batch(trainer, prepared)
                fit = preflight.familiarity(trainer, prepared)
            dpo = prepared.arguments.dpo
            say(*preflight.spoken(batch, fit, dpo.device, dpo.loss_type))
        if start.finished is not None:
            say(f"{out} holds this very run, finished; training would do nothing")
        say("dry run: nothing was written")
    return 0 if zero is None or zero["fault"] is None else 1


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

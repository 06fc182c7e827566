"""A dry run: everything but weight updates, reported, with nothing written.

It runs the longest batch, which takes the most memory, and compares how likely the reference finds
the chosen answers with how likely it finds its own samples.
"""

import contextlib
import dataclasses
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from trl import DPOConfig

from dpo_wrap import run_dir
from dpo_wrap.arguments import REFUSALS, refusal
from dpo_wrap.config import Settings
from dpo_wrap.data.length_stats import kept_ids, kept_mask, pair_lengths
from dpo_wrap.diagnostics import memory
from dpo_wrap.evaluation.models import draw_answers
from dpo_wrap.hub import check_moving
from dpo_wrap.logps import answer_batch, answer_logps
from dpo_wrap.model.load import context_length
from dpo_wrap.model.tokenizer import stop_ids
from dpo_wrap.ownership import check_own, is_run, locked
from dpo_wrap.run_dir import Start
from dpo_wrap.system_errors import system_errors_reported
from dpo_wrap.training.prepare import Prepared, prepare
from dpo_wrap.training.session import RESUMES, log, make_trainer, measure_step_zero
from dpo_wrap.training.trainer import describe
from dpo_wrap.trl_hooks import PreparedTrainer

EXAMPLES = 3
"""Pairs that are printed."""
PAIRS, NEW_TOKENS = 16, 64
"""Chosen answers that are compared with as many samples, and tokens of a sample."""
FAR = 1.0
"""Nats per token by which chosen answers may be less likely than samples before SFT is advised:
each of their tokens is then e times less likely to the reference than a token of its own."""
IGNORANT = 0.8
"""Share of a random guess's nats above which the reference hardly knows such text."""


def dry_run(settings: Settings, resume: str) -> int:
    """Report what training would do; returns the exit status. Raises DpoWrapError."""
    out = Path(settings.output_dir).expanduser()
    with (
        tempfile.TemporaryDirectory() as scratch,
        system_errors_reported(out, RESUMES),
        locked(out, "train", shared=True),
    ):
        check_own(out, settings.where("output_dir"))
        elsewhere = dataclasses.replace(
            settings,
            output_dir=str(Path(scratch, "run")),
            trl=MappingProxyType({**settings.trl, "push_to_hub": False}),
        )
        prepared = prepare(elsewhere, out, Path(scratch, "data"))
        start = Start()
        if resume != "never":
            start = run_dir.where_to_start(out, resume, prepared.identity)
        elif is_run(out):
            check_moving(settings)
        with memory.explain_out_of_memory(prepared):
            trainer, notes = make_trainer(_with_few_rows(prepared))
        log(*describe(trainer, prepared), *start.notes, *prepared.notes, *notes)
        log(*_examples(prepared))
        steps = _total_steps(trainer, prepared)
        done = start.checkpoint.step if start.checkpoint else 0
        log(f"steps: {steps}" + (f", of which {done} are done" if done else ""))
        zero = measure_step_zero(trainer, prepared)
        if zero is not None:
            # A sharded model (None) cannot run before training starts.
            with memory.explain_out_of_memory(prepared, trainer):
                log(longest_batch(trainer), reference_fit(trainer, prepared))
                _start_training(trainer, prepared.settings, start)
        if start.finished is not None:
            log(f"{out}: this run is finished; training would do nothing")
        log("dry run: nothing was written")
    return 0 if zero is None or zero["fault"] is None else 1


def _start_training(trainer: PreparedTrainer, settings: Settings, start: Start) -> None:
    """Do what a run does before its first step. Raises ConfigError and RunError as it would."""
    try:
        trainer.create_optimizer()
    except REFUSALS as error:
        raise refusal("transformers", error, settings) from None
    if start.checkpoint is not None:
        trainer.load_checkpoint(str(start.checkpoint.path))


def _with_few_rows(prepared: Prepared) -> Prepared:
    """The run with the rows that a dry run needs, so that the reference is computed on no others.

    These are step 0's, which come first, those of the longest batch, and the longest row.
    """
    size = prepared.arguments.dpo.per_device_train_batch_size
    longest = _longest(prepared.train, prepared.arguments.dpo)
    first = range(min(size, len(prepared.train)))
    rows = sorted({*first, *longest, int(pair_lengths(prepared.train, None).argmax())})
    test = prepared.test and prepared.test.select([0])
    return dataclasses.replace(prepared, train=prepared.train.select(rows), test=test)


def _longest(rows: Dataset, dpo: DPOConfig) -> list[int]:
    """Indices of a batch of the longest rows, as truncated."""
    lengths = pair_lengths(rows, dpo.max_length)
    return np.argsort(-lengths, kind="stable")[: dpo.per_device_train_batch_size].tolist()


def _examples(prepared: Prepared) -> list[str]:
    """The first pairs as they are trained on; the loss is taken over the text in [[ ]]."""
    lines, tokenizer, dpo = [], prepared.tokenizer, prepared.arguments.dpo
    for number in range(min(EXAMPLES, len(prepared.train))):
        row = prepared.train[number]
        source = f" ({row['source']})" if "source" in row else ""
        lines.append(f"example {number + 1}{source}")
        for side in ("chosen", "rejected"):
            cut = (row, side, dpo.max_length, dpo.truncation_mode)
            (prompt, answer), text = kept_ids(*cut), ""
            for scored, run in groupby(zip(answer, kept_mask(*cut), strict=True), itemgetter(1)):
                part = tokenizer.decode([token for token, _ in run])
                text += f"[[{part}]]" if scored else part
            lines.append(
                f"  {side:<8}  {len(prompt)} + {len(answer)} tokens: "
                f"{tokenizer.decode(prompt)}{text}"
            )
    return lines


def _total_steps(trainer: PreparedTrainer, prepared: Prepared) -> int:
    """The number of optimizer steps over all rows."""
    few, trainer.train_dataset = trainer.train_dataset, prepared.train
    loader = trainer.get_train_dataloader()
    trainer.train_dataset = few
    return trainer.set_initial_training_values(trainer.args, loader)[-1]


def longest_batch(trainer: PreparedTrainer) -> str:
    """Run loss and gradient of the longest pairs; returns their size, time and memory as a line."""
    dpo, model = trainer.args, trainer.model
    rows = [trainer.train_dataset[row] for row in _longest(trainer.train_dataset, dpo)]
    batch = send_to_device(trainer.data_collator(rows), dpo.device)
    if dpo.activation_checkpointing:
        model.activation_checkpointing_enable(dpo.activation_checkpointing_kwargs)
    model.train()
    with _peak_memory(dpo.device) as used:
        started = time.perf_counter()
        with trainer.accelerator.autocast():
            trainer.compute_loss(model, batch).backward()
        seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    before, peak = used
    count, width = batch["input_ids"].shape
    distinct = trainer.shared.last_batch_tokens()
    shared = f", run as {distinct:,} tokens" if distinct else ""
    where = "on the GPU" if dpo.device.type == "cuda" else "in this process"
    line = (
        f"longest batch: {count} rows of {width:,} tokens{shared}; forward and backward took "
        f"{seconds:.2g} s and {memory.format_bytes(peak - before)}, at peak "
        f"{memory.format_bytes(peak)} {where}"
    )
    if dpo.optim.startswith("adamw_torch"):
        # Two moments of each trained parameter, allocated in the first step.
        moments = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
        line += f"; AdamW adds {memory.format_bytes(moments)}"
    return line


def reference_fit(trainer: PreparedTrainer, prepared: Prepared) -> str:
    """A line that compares the chosen answers with the reference's own samples."""
    config = trainer.model.config
    rows = _sampled_rows(prepared, context_length(config) or trainer.args.max_length)
    if not rows:
        return "reference: no prompt leaves room for a sample, so its fit was not measured"
    chosen, own = nats_per_token(trainer, prepared, rows)
    guess = math.log(config.get_text_config().vocab_size)
    return describe_fit(chosen, own, guess, len(rows), prepared.arguments.dpo.loss_type)


def nats_per_token(
    trainer: PreparedTrainer, prepared: Prepared, rows: list[tuple[list[int], ...]]
) -> tuple[float, float]:
    """Negative log-likelihood of the chosen answers and of samples at temperature 1, per token.

    `rows` are (prompt ids, chosen ids, mask). The model is evaluated as it starts, as its own
    reference. Both are NaN if that of an answer is.
    """
    dpo, tokenizer, model = prepared.arguments.dpo, prepared.tokenizer, trainer.model
    model.eval()
    size, stops, pad_id = (
        dpo.per_device_train_batch_size,
        stop_ids(tokenizer),
        tokenizer.pad_token_id,
    )
    nats, tokens = Counter(), Counter()
    torch.manual_seed(dpo.seed)
    for start in range(0, len(rows), size):
        prompts, answers, masks = map(list, zip(*rows[start : start + size], strict=True))
        for name in ("chosen", "own"):
            if name == "own":
                answers = draw_answers(model, prompts, dpo, stops, NEW_TOKENS, pad_id)
                masks = [[True] * len(answer) for answer in answers]
            batch = answer_batch(prompts, answers, pad_id, masks)
            logps = answer_logps(model, batch, dpo)
            if not logps.isfinite().all():
                return math.nan, math.nan
            nats[name] -= logps.sum().item()
            tokens[name] += sum(map(sum, masks))
    return tuple(nats[name] / max(1, tokens[name]) for name in ("chosen", "own"))


def describe_fit(chosen: float, own: float, guess: float, pairs: int, losses: list[str]) -> str:
    """The comparison as a line; all in nats per token, `guess` for a random token."""
    if math.isnan(chosen):
        return (
            "reference: the log-probability of some chosen answers is NaN or inf; training would "
            "stop there and name the row; check the weights"
        )
    line = (
        f"reference: chosen answers cost it {chosen:.2f} nats per token, its own samples {own:.2f} "
        f"({pairs} prompts)"
    )
    ignorant = chosen > IGNORANT * guess
    if ignorant:
        line += f"; a random guess costs {guess:.2f}, so it hardly knows such text"
    if (ignorant or chosen - own > FAR) and losses != ["sft"]:
        line += "; run SFT on the chosen answers first (configs/recipes/sft-then-dpo)"
    return line


def _sampled_rows(prepared: Prepared, context: int | None) -> list[tuple[list[int], ...]]:
    """(prompt ids, chosen ids, mask) of a few pairs whose prompts leave room for a sample."""
    dpo, train = prepared.arguments.dpo, prepared.train
    room = context - NEW_TOKENS if context else math.inf
    fitting = [n for n, ids in enumerate(train["prompt_ids"]) if 0 < len(ids) <= room]
    drawn = random.Random(dpo.seed).sample(fitting, min(PAIRS, len(fitting)))
    cuts = [(train[n], "chosen", dpo.max_length, dpo.truncation_mode) for n in drawn]
    return [(*kept_ids(*cut), kept_mask(*cut)) for cut in cuts if all(kept_ids(*cut))]


@contextlib.contextmanager
def _peak_memory(device: torch.device) -> Iterator[list[int]]:
    """Yield a list that gets the bytes in use on entry and, on exit, the peak since."""
    used: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        used.append(torch.cuda.memory_allocated(device))
        yield used
        torch.cuda.synchronize(device)
        used.append(torch.cuda.max_memory_allocated(device))
        return
    with contextlib.suppress(OSError):
        # Linux resets the process's peak; elsewhere it is that of the whole process.
        Path("/proc/self/clear_refs").write_text("5")
    used.append(memory.resident_bytes("VmRSS:"))
    yield used
    used.append(memory.resident_bytes("VmHWM:"))

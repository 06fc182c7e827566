"""What a dry run measures once the weights are there: the longest batch, and the reference's fit.

Neither changes a weight. Both run on the model as it starts, which is its own reference.
"""

import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from trl import DPOTrainer

from dpo_wrap.data.length_stats import kept_ids, pair_lengths
from dpo_wrap.diagnostics.memory import format_bytes, resident_bytes
from dpo_wrap.evaluation.sampling import draw_answers
from dpo_wrap.logps import answer_batch, answer_logps
from dpo_wrap.model.load import context_length
from dpo_wrap.model.tokenizer import stop_ids
from dpo_wrap.training.prepare import Prepared
from dpo_wrap.training.trainer import PreparedTrainer

PAIRS, NEW_TOKENS = 16, 64
"""How many chosen answers are compared with as many samples, and the tokens of a sample."""
FAR = 1.0
"""Nats per token by which chosen answers may be less likely than samples before it is said: each
of their tokens is then e times as surprising to the reference as a token of its own."""
IGNORANT = 0.8
"""The share of a guess's nats above which the reference knows next to nothing of the answers."""


@dataclass(frozen=True)
class LongestBatch:
    """Forward and backward of the batch that takes most memory."""

    rows: int
    """Answers, two a pair."""
    tokens: int
    """Positions of a row, padding included."""
    distinct: int
    """Tokens that the policy runs over in their place, where prompts are shared; else 0."""
    peak: int
    """Bytes: allocated on the GPU, or resident in this process where there is none."""
    grown: int
    """Bytes of the peak that were not in use before."""
    optimizer: int | None
    """Bytes that AdamW's two moments will add at the first step; None for another optimizer."""
    seconds: float


@dataclass(frozen=True)
class Familiarity:
    """How likely the reference finds the chosen answers, beside what it writes itself."""

    chosen: float
    """Nats per token of chosen answers, mean over tokens."""
    own: float
    """Nats per token of its own samples to the same prompts, at temperature 1."""
    pairs: int
    guess: float
    """Nats per token of a guess among all tokens: ln of the vocabulary's size."""

    @property
    def far(self) -> bool:
        return self.chosen - self.own > FAR

    @property
    def ignorant(self) -> bool:
        return self.chosen > IGNORANT * self.guess


def rows_run(prepared: Prepared) -> list[int]:
    """The training rows that a dry run runs: step 0's, which are the first, and the longest."""
    first = range(min(prepared.arguments.dpo.per_device_train_batch_size, len(prepared.train)))
    return sorted({*first, *_longest(prepared)})


def longest_batch(trainer: PreparedTrainer, prepared: Prepared) -> LongestBatch:
    """Run the longest pairs of the training split through loss and gradient, and measure."""
    dpo = prepared.arguments.dpo
    rows = [trainer.train_dataset[row] for row in _longest(prepared)]
    batch = trainer.data_collator(rows)
    model = trainer.model
    if dpo.activation_checkpointing:
        model.activation_checkpointing_enable(dpo.activation_checkpointing_kwargs)
    model.train()
    with _peak(dpo.device) as peak:
        started = time.perf_counter()
        with trainer.accelerator.autocast():
            trainer.compute_loss(model, trainer._prepare_inputs(batch)).backward()
        seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    moments = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    count, tokens = batch["input_ids"].shape
    in_use, top = peak
    optimizer = moments if dpo.optim.startswith("adamw_torch") else None
    distinct = trainer.shared.last_batch_tokens()
    return LongestBatch(count, tokens, distinct, top, top - in_use, optimizer, seconds)


def _longest(prepared: Prepared) -> list[int]:
    """The rows of a batch of the longest pairs, as cut."""
    dpo = prepared.arguments.dpo
    lengths = pair_lengths(prepared.train, dpo.max_length)
    return np.argsort(-lengths, kind="stable")[: dpo.per_device_train_batch_size].tolist()


def familiarity(trainer: DPOTrainer, prepared: Prepared) -> Familiarity | None:
    """Compare chosen answers with the reference's own; None where no prompt leaves room for one."""
    dpo, tokenizer = prepared.arguments.dpo, prepared.tokenizer
    context = context_length(prepared.config) or dpo.max_length
    room = context - NEW_TOKENS if context else None
    pad_id, model = tokenizer.pad_token_id, trainer.model
    drawn_rows = _drawn(prepared, room)
    rows = [kept_ids(row, "chosen", dpo.max_length, dpo.truncation_mode) for row in drawn_rows]
    rows = [(prompt, answer) for prompt, answer in rows if prompt and answer]
    if not rows:
        return None
    model.eval()
    size, stops = dpo.per_device_train_batch_size, stop_ids(tokenizer)
    nats, tokens = Counter(), Counter()
    torch.manual_seed(dpo.seed)
    for start in range(0, len(rows), size):
        prompts, answers = map(list, zip(*rows[start : start + size], strict=True))
        for whose in ("chosen", "own"):
            if whose == "own":
                answers = draw_answers(model, prompts, dpo, stops, NEW_TOKENS, pad_id)
            logps = answer_logps(model, answer_batch(prompts, answers, pad_id), dpo)
            if not logps.isfinite().all():
                # Nothing can be drawn from such probabilities either.
                return Familiarity(math.nan, math.nan, len(rows), math.nan)
            nats[whose] -= logps.sum().item()
            tokens[whose] += sum(map(len, answers))
    chosen, own = (nats[whose] / max(1, tokens[whose]) for whose in ("chosen", "own"))
    guess = math.log(prepared.config.get_text_config().vocab_size)
    return Familiarity(chosen, own, len(rows), guess)


def spoken(
    batch: LongestBatch, fit: Familiarity | None, device: torch.device, losses: list[str]
) -> list[str]:
    """Both measurements in lines; of a run on sft alone none advises what it does itself."""
    where = "on the GPU" if device.type == "cuda" else "in this process"
    instead = f", run as {batch.distinct:,} tokens" if batch.distinct else ""
    lines = [
        f"longest batch: {batch.rows} rows of {batch.tokens:,} tokens{instead}; forward and "
        f"backward took {batch.seconds:.2g} s and {format_bytes(batch.grown)}, at peak "
        f"{format_bytes(batch.peak)} {where}"
    ]
    if batch.optimizer is not None:
        lines[0] += f"; AdamW adds {format_bytes(batch.optimizer)}"
    if fit is not None and math.isnan(fit.chosen):
        text = "reference: the log-probability of some chosen answers is no number"
        return [*lines, f"{text}; a run would stop there and name the row: look at the weights"]
    if fit is None:
        return [*lines, "reference: no prompt leaves room for a sample, so its fit is unknown"]
    text = (
        f"reference: chosen answers cost it {fit.chosen:.2f} nats a token, its own samples "
        f"{fit.own:.2f} ({fit.pairs} prompts)"
    )
    if fit.ignorant:
        text += f"; a guess costs {fit.guess:.2f}, so it knows next to nothing of such text"
    if (fit.far or fit.ignorant) and losses != ["sft"]:
        text += "; run SFT on the chosen answers first (configs/recipes/sft-then-dpo)"
    return [*lines, text]


def _drawn(prepared: Prepared, room: int | None) -> list[dict[str, list[int]]]:
    lengths = map(len, prepared.train["prompt_ids"])
    fitting = [n for n, length in enumerate(lengths) if 0 < length <= (room or length)]
    rows = random.Random(prepared.arguments.dpo.seed).sample(fitting, min(PAIRS, len(fitting)))
    return [prepared.train[row] for row in rows]


@contextlib.contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """Yield a list that holds, once the context has ended, memory before and at its peak."""
    peak: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        peak.append(torch.cuda.memory_allocated(device))
        yield peak
        torch.cuda.synchronize(device)
        peak.append(torch.cuda.max_memory_allocated(device))
        return
    with contextlib.suppress(OSError):
        # Linux forgets its high-water mark at this word; elsewhere the process's whole life counts.
        Path("/proc/self/clear_refs").write_text("5")
    peak.append(resident_bytes("VmRSS:"))
    yield peak
    peak.append(resident_bytes("VmHWM:"))

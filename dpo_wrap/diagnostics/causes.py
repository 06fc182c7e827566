"""Why a margin stays flat: what can be measured of it, and which measurements are suspicious."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from trl import DPOTrainer

from dpo_wrap.diagnostics.answer_similarity import ALIKE, Survey, survey

# Where the margins of 213 steps on a random 4-layer GPT-2 begin to be worth the name: an adapter
# made 0.002 of 1e-6, 0.006 of 1e-5, 0.40 of 1e-4. Full weights move all of the model, and TRL's own
# script takes 5e-7 for them.
LOW_RATE = {"adapter": 5e-5, "full": 1e-7}
# The toys of this project still learn at a fifth of these.
HIGH_RATE = {"adapter": 5e-2, "full": 5e-3}
# A weight in half precision keeps 8 to 11 bits, so that Adam's steps of about the learning rate are
# rounded away beside weights of some hundredths.
HALF_RATE = 1e-5
FEW_PAIRS = 500
MANY = 0.25
"""The share of pairs from which a property of theirs may be why."""
TOSS = (0.4, 0.6)
"""Between these an accuracy is that of a coin."""
WRONG_WAY = -0.01
"""A mean margin up to this is no rounding: the rejected answers gain on the chosen ones."""
LOW_BETA = 1e-3
"""At this beta 10 nats between the answers' changes make a margin of 0.01."""
PARTED = 1.0
"""Nats between the changes of both answers, from which they do part whatever beta makes of it."""


@dataclass(frozen=True)
class Measured:
    """What is known of a run at the moment that it is asked about."""

    step: int
    steps: int
    pairs_seen: int
    margin: float
    """Mean reward margin: beta times the nats by which the answers' changes differ."""
    accuracy: float
    beta: float
    peak_rate: float
    rate_now: float
    warmup: int
    """Steps over which the rate rises to its peak."""
    gradient: float
    """Norm, mean over the log."""
    adapter: bool
    moved: float | None
    """Norm of what the adapter's B matrices gained, or of the weights' change over their own."""
    half: bool
    """Whether what is trained is kept in half precision."""
    pairs: Survey


def measure(trainer: DPOTrainer, logs: list[dict[str, Any]]) -> Measured:
    """Take the measurements; `logs` are those to take means over, the newest first."""
    args, state = trainer.args, trainer.state
    rates = [entry["learning_rate"] for entry in logs if "learning_rate" in entry]
    norms = [entry["grad_norm"] for entry in logs if "grad_norm" in entry]
    size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    return Measured(
        step=state.global_step,
        steps=state.max_steps,
        pairs_seen=state.global_step * size,
        margin=_mean([entry["rewards/margins"] for entry in logs]),
        accuracy=_mean([entry["rewards/accuracies"] for entry in logs]),
        beta=trainer.beta,
        peak_rate=args.learning_rate,
        rate_now=rates[0] if rates else args.learning_rate,
        warmup=args.get_warmup_steps(state.max_steps),
        gradient=_mean(norms) if norms else math.nan,
        adapter=isinstance(trainer.model, PeftModel),
        moved=_moved(trainer),
        half=any(p.dtype in (torch.bfloat16, torch.float16) for p in trained),
        pairs=survey(trainer),
    )


def likely(found: Measured) -> tuple[list[str], list[str]]:
    """(what is suspicious, each with its mend, the likeliest first; what is not, in short)."""
    kind = "adapter" if found.adapter else "full"
    nats, pairs = found.margin / found.beta, found.pairs
    what = "the adapter's B matrices" if found.adapter else "the weights"
    table = [
        (
            not 0 < found.gradient < math.inf,
            f"gradient norm {found.gradient:.3g}: nothing that is learned reaches the weights; "
            "look at what is trained, with fp16 take bf16 or fp32",
            f"gradient norm {found.gradient:.3g}",
        ),
        (
            found.half and found.peak_rate < HALF_RATE,
            f"the trained weights are kept in half precision, which rounds steps of "
            f"{found.peak_rate:g} away; load them in float32 (model_init_kwargs: dtype) with bf16",
            "",
        ),
        (
            found.peak_rate < LOW_RATE[kind],
            f"learning_rate {found.peak_rate:g} is low"
            + (
                " for an adapter; 1e-4 to 5e-4 moves one"
                if found.adapter
                else "; 5e-7 to 5e-6 is usual for full weights"
            ),
            f"learning_rate {found.peak_rate:g}",
        ),
        (
            found.warmup > found.step / 2
            or (found.rate_now < found.peak_rate / 10 and found.step < found.steps / 2),
            f"the learning rate is {found.rate_now:.3g} now, of a peak of {found.peak_rate:g}: "
            f"warmup takes {found.warmup} of {found.steps} steps; lower warmup_steps, or train "
            "longer",
            f"warmup {found.warmup} steps",
        ),
        (
            found.moved == 0,
            f"{what} have not changed at all; look at what is trained",
            "" if found.moved is None else f"{what} moved by {found.moved:.2g}",
        ),
        (
            abs(nats) >= PARTED or found.beta < LOW_BETA,
            f"beta {found.beta:g} makes this margin of {nats:.2f} nats between the answers, so "
            "they may part far and the margin stay small; 0.1 is usual",
            f"beta {found.beta:g}",
        ),
        (
            pairs.alike >= MANY,
            f"{pairs.alike * 100:.0f} % of the pairs have two answers of almost the same tokens "
            f"(similarity {ALIKE} or more), which leave little to tell apart; leave them out",
            f"{pairs.alike * 100:.0f} % of pairs almost alike",
        ),
        (
            pairs.cut >= MANY,
            f"{pairs.cut * 100:.0f} % of the pairs are cut by max_length, maybe where they differ; "
            "raise it",
            f"{pairs.cut * 100:.0f} % cut",
        ),
        (
            TOSS[0] <= found.accuracy <= TOSS[1]
            or (found.accuracy < TOSS[0] and found.margin <= WRONG_WAY),
            f"reward accuracy {found.accuracy:.2f} is a coin's or worse: labels may contradict "
            "each other, or stand the wrong way round; read a dozen pairs",
            f"reward accuracy {found.accuracy:.2f}",
        ),
        (
            found.peak_rate > HIGH_RATE[kind],
            f"learning_rate {found.peak_rate:g} is high; the weights may jump to and fro",
            "",
        ),
        (
            found.pairs_seen < FEW_PAIRS,
            f"only {found.pairs_seen} pairs were seen in {found.step} steps; train longer",
            f"{found.pairs_seen:,} pairs seen",
        ),
        (
            pairs.chosen_longer >= 1 - MANY / 2,
            f"in {pairs.chosen_longer * 100:.0f} % of the pairs the chosen answer is the longer; "
            "what is learned may be length",
            f"chosen longer in {pairs.chosen_longer * 100:.0f} %",
        ),
    ]
    suspicious = [line for odd, line, _ in table if odd]
    return suspicious, [short for odd, _, short in table if not odd and short]


def _moved(trainer: DPOTrainer) -> float | None:
    """How far the trained weights are from their start, where that is still at hand."""
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return None
    weights = dict(trainer.model.named_parameters())
    if isinstance(trainer.model, PeftModel):
        grown = []
        for name, weight in weights.items():
            if ".lora_B.default." in name:
                # Beside an adapter that is gone on with stands its copy; a new one starts at 0.
                start = weights.get(name.replace(".default.", ".ref."))
                grown.append(weight.detach() if start is None else weight.detach() - start)
        return _norm(grown) if grown else None
    start = dict(trainer.ref_model.named_parameters()) if trainer.ref_model is not None else {}
    if start.keys() != weights.keys():
        return None
    changes = [weight.detach() - start[name].to(weight) for name, weight in weights.items()]
    return _norm(changes) / _norm(list(start.values()))


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(t.detach().float().pow(2).sum().item() for t in tensors))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

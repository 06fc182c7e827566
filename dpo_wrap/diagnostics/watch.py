"""Warnings during training: a flat margin with its likely causes, chosen answers that fall."""

import functools
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState
from trl import DPOTrainer

from dpo_wrap.data.length_stats import pair_lengths
from dpo_wrap.diagnostics.checks import is_sharded
from dpo_wrap.diagnostics.pairs import SIMILAR, answer_tokens, similar_answers
from dpo_wrap.diagnostics.verdict import FALLEN, MOVED
from dpo_wrap.terminal import printable

FLAT = 0.01
"""Mean margin below which it is flat: a run that learns has 0.02 after 20 steps."""
WINDOW = 20
"""Steps of training before the first warning, and over which the chosen answers are averaged."""
STATE_KEY = "health_warnings"
"""Where the trainer's state keeps warnings, so that a resumed run neither repeats nor loses one."""


class HealthWatch(TrainerCallback):
    """Warns once of a flat margin, and once of chosen answers that lose too much probability."""

    def __init__(self, trainer: DPOTrainer):
        self.trainer = trainer

    @functools.cached_property
    def chosen_tokens(self) -> float:
        return answer_tokens(self.trainer)["chosen"]

    def on_log(self, args, state, control, logs=None, **kwargs):
        trained = state.is_world_process_zero and "loss" in (logs or {})
        if trained and has_preference_loss(self.trainer):
            self._check_margin(args.get_warmup_steps(state.max_steps), state)
            self._check_chosen(state)

    def _check_margin(self, warmup: int, state: TrainerState) -> None:
        """Check the mean margin at the first log late enough after the warmup."""
        due = warmup + max(WINDOW, state.max_steps // 10)
        if len(list(itertools.islice(_logs_after(state, due - 1), 2))) != 1:
            return
        logs = list(_logs_after(state, warmup))
        margin = _mean(logs, "rewards/margins")
        if margin < FLAT:
            since = "the warmup" if warmup else "the start"
            kind = "negative" if margin <= -FLAT else "flat"
            head = f"the margin is {kind}, {margin:z.4f} on average since {since}; likely causes:"
            warn(state, "flat", [head, *flat_causes(self.trainer, logs)])

    def _check_chosen(self, state: TrainerState) -> None:
        if state.global_step < WINDOW or was_warned(state, "falling"):
            return
        logs = list(_logs_after(state, state.global_step - WINDOW))
        change = _mean(logs, "rewards/chosen") / self.trainer.beta
        # An answer has at least one token, so that most runs need not count them.
        if change <= -FALLEN and change / self.chosen_tokens <= -FALLEN:
            warn(state, "falling", self._falling_lines(change))

    def _falling_lines(self, change: float) -> list[str]:
        types, weights = self.trainer.loss_types, self.trainer.loss_weights
        # Pang et al. 2024 (arXiv 2404.19733) give both losses the same weight.
        fix = (
            f"set loss_type: [{', '.join([*types, 'sft'])}] and loss_weights: "
            f"{[*map(float, weights), 1.0]} (formerly rpo_alpha), or remove the most similar pairs"
        )
        if "sft" in types:
            fix = f"raise the weight of sft in loss_weights ({weights[types.index('sft')]:g})"
        # Pal et al. 2024 (arXiv 2402.13228), Razin et al. 2024 (arXiv 2410.08847).
        share, closest = similar_answers(self.trainer)
        return [
            f"the chosen answers lost {-change / self.chosen_tokens:.2f} nats per token "
            f"({change:.1f} per answer) on average over the last {WINDOW} steps; beyond {FALLEN} "
            "the policy may start to prefer answers that are neither chosen nor rejected in the "
            "data",
            f"{fix}; a higher beta or a lower learning_rate slows the fall",
            f"pairs of similar answers fall most: {share:.1%} of the pairs have a similarity of "
            f"{SIMILAR} or more; the most similar: {closest}",
        ]


def has_preference_loss(trainer: DPOTrainer) -> bool:
    """Whether the loss compares answers; sft alone only raises the chosen ones."""
    return any(name != "sft" for name in trainer.loss_types)


def warn_if_flat_at_end(trainer: DPOTrainer, figures: dict[str, Any]) -> None:
    """Warn of a run that hardly moved, unless it was warned of during training."""
    state = trainer.state
    if not figures or abs(figures["reward_margin"]) >= MOVED or was_warned(state, "flat"):
        return
    if state.is_world_process_zero and has_preference_loss(trainer):
        head = f"the margin ended at {figures['reward_margin']:z.4f}; likely causes:"
        warn(state, "flat", [head, *flat_causes(trainer, list(_logs_after(state, 0)))])


def flat_causes(trainer: DPOTrainer, logs: list[dict[str, Any]]) -> Iterator[str]:
    """Likely causes of a flat margin, each with its figure and the fix, the most likely first.

    `logs` are the training logs to average over, the newest first.
    """
    args, model, beta, rate = trainer.args, trainer.model, trainer.beta, trainer.args.learning_rate
    step, steps = trainer.state.global_step, trainer.state.max_steps
    norms = [log for log in logs if "grad_norm" in log]
    if norms and not 0 < (norm := _mean(norms, "grad_norm")) < float("inf"):
        yield f"the gradient norm is {norm:.3g}; check which weights are trained, and avoid fp16"
    dtypes = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    # Half precision keeps 8 to 11 bits, so that steps of about the learning rate are rounded away.
    if rate < 1e-5 and dtypes & {torch.bfloat16, torch.float16}:
        yield (
            f"the trained weights are in half precision, which rounds steps of {rate:g} away; set "
            "model_init_kwargs: {dtype: float32} and bf16: true"
        )
    # With an adapter, 213 steps on a random 4-layer GPT-2 reach a margin of 0.002 at a learning
    # rate of 1e-6, 0.006 at 1e-5, and 0.40 at 1e-4.
    low, high, usual = 1e-7, 5e-3, "full weights usually need 5e-7 to 5e-6"
    if isinstance(model, PeftModel):
        low, high, usual = 5e-5, 5e-2, "an adapter usually needs 1e-4 to 5e-4"
    if not low <= rate <= high:
        yield f"learning_rate {rate:g} is {'low' if rate < low else 'high'}; {usual}"
    warmup = args.get_warmup_steps(steps)
    rate_now = next((log["learning_rate"] for log in logs if "learning_rate" in log), rate)
    if warmup > step / 2 or (rate_now < rate / 10 and step < steps / 2):
        yield (
            f"the learning rate is at {rate_now:.3g} of {rate:g}: warmup takes {warmup} of {steps} "
            "steps; lower warmup_steps, or train longer"
        )
    if _weights_unchanged(trainer):
        yield "no trained weight has changed; check which weights are trained"
    margin, accuracy = _mean(logs, "rewards/margins"), _mean(logs, "rewards/accuracies")
    if beta < 1e-3 or abs(margin / beta) >= 1:
        nats = f"{margin / beta:.2f} nats between the answers"
        yield f"beta is {beta:g}, which turns {nats} into this margin; 0.1 is usual"
    similar, _ = similar_answers(trainer)
    if similar >= 0.25:
        yield f"{similar:.0%} of the pairs have almost identical answers; remove them"
    cut = (pair_lengths(trainer.train_dataset, None) > (args.max_length or float("inf"))).mean()
    if cut >= 0.25:
        yield f"max_length cuts {cut:.0%} of the pairs, perhaps where answers differ; raise it"
    if accuracy <= 0.6 and (accuracy >= 0.4 or margin <= -FLAT):
        yield (
            f"the reward accuracy of {accuracy:.2f} is chance or worse: labels may be swapped or "
            "contradict each other; read a dozen pairs"
        )
    seen = step * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if seen < 500:
        yield f"only {seen} pairs were seen in {step} steps; train longer"
    yield "if none of these applies, raise learning_rate or train longer"


def _weights_unchanged(trainer: DPOTrainer) -> bool:
    """Whether all trained weights are as they started, where the start is still in memory."""
    if is_sharded(trainer):
        return False
    weights, start = dict(trainer.model.named_parameters()), {}
    if isinstance(trainer.model, PeftModel):
        # A new lora_B starts at zero, one of adapter_path at its frozen copy "ref".
        for name in weights:
            if ".lora_B.default." in name:
                copied = name.replace(".default.", ".ref.")
                start[name] = weights.get(copied, torch.zeros(1))
    elif trainer.ref_model is not None:
        start = dict(trainer.ref_model.named_parameters())
    known = bool(start) and start.keys() <= weights.keys()
    return known and all(
        (weights[name] == value.to(weights[name].device)).all() for name, value in start.items()
    )


def warn(state: TrainerState, what: str, lines: list[str]) -> None:
    """Print a warning above the progress bar, and keep it in the trainer's state."""
    warning = {"step": state.global_step, "what": what, "lines": lines}
    state.stateful_callbacks.setdefault(STATE_KEY, []).append(warning)
    head = f"warning: step {state.global_step}: {lines[0]}"
    tqdm.write(printable("\n  ".join([head, *lines[1:]])), file=sys.stderr)


def warnings_of(state: TrainerState) -> list[dict[str, Any]]:
    """All warnings of the run so far: {"step", "what", "lines"}."""
    return state.stateful_callbacks.get(STATE_KEY, [])


def was_warned(state: TrainerState, what: str) -> bool:
    return any(warning["what"] == what for warning in warnings_of(state))


def _logs_after(state: TrainerState, step: int) -> Iterator[dict[str, Any]]:
    """The training logs after `step`, the newest first."""
    newest = (entry for entry in reversed(state.log_history) if "loss" in entry)
    return itertools.takewhile(lambda log: log["step"] > step, newest)


def _mean(logs: list[dict[str, Any]], name: str) -> float:
    return sum(log[name] for log in logs) / len(logs)

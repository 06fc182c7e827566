"""What is said during a run: margins that stay flat, chosen answers that become too unlikely.

Each is said once. The trainer's state keeps it, so that a resumed run neither repeats nor forgets.
"""

import functools
import itertools
import sys
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState
from trl import DPOTrainer

from dpo_wrap.diagnostics.answer_similarity import ALIKE, answer_tokens, survey
from dpo_wrap.diagnostics.causes import likely, measure
from dpo_wrap.diagnostics.verdict import FALLEN, MOVED, prefers

# Not before this many steps after the warmup, or this share of the run if that is more.
STEPS, SHARE = 20, 0.1
FLAT = 0.01
"""A mean margin below this, from the end of the warmup on, is flat: field measurements are 0.0003
to 0.006 after whole runs that taught nothing, and 0.02 after 20 steps of one that did."""
WINDOW = 20
"""Steps that the loss in likelihood is a mean over."""
KEPT = "health_warnings"
"""Where the trainer's state keeps what was said; no callback has this name."""


class HealthWatch(TrainerCallback):
    """Looks at every log for what should be said before the run ends."""

    def __init__(self, trainer: DPOTrainer):
        self.trainer = trainer

    @functools.cached_property
    def chosen_tokens(self) -> float:
        return answer_tokens(self.trainer)["chosen"]

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        if not prefers(self.trainer):
            return
        self._look_at_margin(args, state)
        self._look_at_chosen(state)

    def _look_at_margin(self, args, state: TrainerState) -> None:
        warmup = args.get_warmup_steps(state.max_steps)
        due = warmup + max(STEPS, int(SHARE * state.max_steps))
        before = next(itertools.islice(_newest_first(state), 1, None), {"step": 0})
        if not before["step"] < due <= state.global_step:
            return
        since = _after(state, warmup)
        margin = sum(entry["rewards/margins"] for entry in since) / len(since)
        if margin < FLAT:
            start = "the warmup" if warmup else "the start"
            way = "the wrong way" if margin <= -FLAT else "flat"
            said = f"the margin is {margin:z.4f} in mean since {start}, which is {way}"
            warn(state, "flat", causes_lines(self.trainer, since, said))

    def _look_at_chosen(self, state: TrainerState) -> None:
        window = _after(state, state.global_step - WINDOW)
        beta = self.trainer.beta
        change = sum(entry["rewards/chosen"] for entry in window) / len(window) / beta
        # The first comparison spares counting tokens in most runs: an answer has at least one.
        if state.global_step < WINDOW or change > -FALLEN or given(state, "falling"):
            return
        if change / self.chosen_tokens <= -FALLEN:
            warn(state, "falling", self._falling_lines(change))

    def _falling_lines(self, change: float) -> list[str]:
        pairs = survey(self.trainer)
        names = ", ".join(f"{name} ({alike:.2f})" for name, alike in pairs.closest)
        lines = [
            f"the chosen answers lost {-change / self.chosen_tokens:.2f} nats a token "
            f"({change:.1f} an answer) in mean over the last {WINDOW} steps; more than {FALLEN} is "
            "a lot, as the model may come to prefer answers that nobody chose",
            "this is strongest where both answers are alike (Pal et al. 2024, arXiv 2402.13228; "
            f"Razin et al. 2024, arXiv 2410.08847); {pairs.alike * 100:.1f} % of the pairs have a "
            f"similarity of {ALIKE} or more; the most alike: {names}",
        ]
        types, weights = self.trainer.loss_types, self.trainer.loss_weights
        if "sft" in types:
            now = weights[types.index("sft")]
            lines.append(f"the weight of sft in loss_weights is {now:g}; raise it")
        else:
            # Pang et al. 2024 (arXiv 2404.19733) weigh both terms alike.
            lines.append(
                f"hold the chosen answers up with loss_type: [{', '.join([*types, 'sft'])}] and "
                f"loss_weights: {[*map(float, weights), 1.0]} (once rpo_alpha), or leave the most "
                "alike pairs out; a higher beta or a lower learning_rate slows the fall"
            )
        return lines


def warn_of_a_flat_end(trainer: DPOTrainer, found: dict[str, Any]) -> None:
    """Give the causes for a run that has hardly moved, unless they were given on the way."""
    state = trainer.state
    if not found or abs(found["reward_margin"]) >= MOVED or given(state, "flat"):
        return
    if state.is_world_process_zero and prefers(trainer):
        said = f"the margin ended at {found['reward_margin']:z.4f}"
        warn(state, "flat", causes_lines(trainer, _after(state, 0), said))


def causes_lines(trainer: DPOTrainer, logs: list[dict[str, Any]], said: str) -> list[str]:
    """`said`, then what is suspicious of the run, the likeliest cause first."""
    suspicious, others = likely(measure(trainer, logs))
    if not suspicious:
        suspicious = ["nothing measured is suspicious; raise learning_rate, or train longer"]
    return [
        f"{said}; likely causes, the likeliest first:",
        *suspicious,
        f"not suspicious: {', '.join(others)}",
    ]


def warn(state: TrainerState, what: str, lines: list[str]) -> None:
    """Say it beside the bar, and keep it with the run."""
    step = state.global_step
    state.stateful_callbacks.setdefault(KEPT, []).append(
        {"step": step, "what": what, "lines": lines}
    )
    head, *rest = lines
    text = "\n".join([f"warning: step {step}: {head}", *(f"  {line}" for line in rest)])
    tqdm.write(text, file=sys.stderr)


def warnings_of(state: TrainerState) -> list[dict[str, Any]]:
    """All that was said so far: {"step", "what", "lines"}."""
    return state.stateful_callbacks.get(KEPT, [])


def given(state: TrainerState, what: str) -> bool:
    """Whether it was said already."""
    return any(warning["what"] == what for warning in warnings_of(state))


def _newest_first(state: TrainerState) -> Iterator[dict[str, Any]]:
    return (entry for entry in reversed(state.log_history) if "loss" in entry)


def _after(state: TrainerState, step: int) -> list[dict[str, Any]]:
    """The logs of training after this step, without reading the older ones."""
    return list(itertools.takewhile(lambda entry: entry["step"] > step, _newest_first(state)))

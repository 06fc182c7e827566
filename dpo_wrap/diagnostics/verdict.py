"""Is the run well? Step 0 must be at ln 2 and margin 0; at the end, what was learned, in words."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOTrainer

from dpo_wrap.diagnostics.kl import Drift
from dpo_wrap.evaluation.findings import FAR, NEAR
from dpo_wrap.trl_hooks import loss_and_margin

# Losses that are ln 2 where policy and reference agree: -log sigmoid(0).
AT_LN_2 = {"sigmoid", "robust", "sigmoid_norm"}
# Nats an answer, whatever beta: policy and reference run the same arithmetic, so what stands
# between them is rounding, of numbers with 24 or with 8 significant bits.
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.1
# A margin below this is what an adapter makes that has hardly moved (field measurements: 0.0003 to
# 0.006 where nothing was learned, 2.2 where it was).
MOVED = 0.05
COIN = 0.55
"""A reward accuracy up to this is a coin's, however large the margin."""
# Nats a token by which the loss of sft alone must fall.
SFT_MOVED = 0.01
# Below this share of the training margin the held-out one says that pairs were learned by heart;
# above this multiple of its lowest value the held-out loss has risen.
GENERAL, RISEN = 0.5, 1.05
FALLEN = 0.5
"""Nats a token that the chosen answers may lose before it is said: each of their tokens has then
0.61 of the probability that it had."""


@dataclass(frozen=True)
class StepZero:
    """Loss and mean reward margin on the first rows before any update, dropout off."""

    loss: float
    margin: float
    fault: str | None


def step_zero(trainer: DPOTrainer) -> StepZero | None:
    """Measure it on a batch of the first rows; None where the model is sharded and not yet set up.

    The rows come straight from the dataset: drawing a batch would shift the run's random state.
    """
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return None
    size = min(trainer.args.per_device_train_batch_size, len(trainer.train_dataset))
    rows = [trainer.train_dataset[row] for row in range(size)]
    loss, margin = loss_and_margin(trainer, rows)
    exact = not (trainer.args.bf16 or trainer.args.fp16) and trainer.model.dtype == torch.float32
    tolerance = trainer.beta * (TOLERANCE if exact else HALF_TOLERANCE)
    fault = None
    if abs(margin) > tolerance:
        fault = (
            f"step 0 has a margin of {margin:.4f}, not 0: the policy does not start at its "
            "reference (an adapter initialised away from zero?)"
        )
    elif _starts_at_ln_2(trainer) and abs(loss - math.log(2)) > max(tolerance, 1e-4):
        fault = f"step 0 has a loss of {loss:.4f}, not ln 2 = 0.6931"
    return StepZero(loss, margin, fault)


def _starts_at_ln_2(trainer: DPOTrainer) -> bool:
    if trainer.use_weighting or trainer.aux_loss_enabled or trainer.loss_weights != [1.0]:
        return False
    return trainer.loss_types[0] in AT_LN_2


def prefers(trainer: DPOTrainer) -> bool:
    """Whether the loss asks for a margin; sft alone raises the chosen answers and asks for none."""
    return any(name != "sft" for name in trainer.loss_types)


def figures(
    history: list[dict[str, Any]], beta: float, tokens: dict[str, float] | None = None
) -> dict[str, Any]:
    """The run's figures at its end: means over the last tenth of the log, at least one line of it.

    Log-ratios are of whole answers, policy over reference, in nats; with `tokens`, how many a
    chosen and a rejected answer have in mean, also per token.
    """
    logs = [entry for entry in history if "loss" in entry]
    if not logs:
        return {}
    last = logs[-max(1, len(logs) // 10) :]

    def mean(name: str) -> float:
        return sum(entry[name] for entry in last) / len(last)

    found = {
        "loss": mean("loss"),
        "reward_accuracy": mean("rewards/accuracies"),
        "reward_margin": mean("rewards/margins"),
        "chosen_log_ratio": mean("rewards/chosen") / beta,
        "rejected_log_ratio": mean("rewards/rejected") / beta,
        "first_loss": logs[0]["loss"],
        "first_margin": logs[0]["rewards/margins"],
    }
    for side, count in (tokens or {}).items():
        found[f"{side}_log_ratio_per_token"] = found[f"{side}_log_ratio"] / max(1, count)
    evaluated = [entry for entry in history if "eval_loss" in entry]
    if evaluated:
        found |= {name: value for name, value in evaluated[-1].items() if name.startswith("eval_")}
        lowest = min(evaluated, key=lambda entry: entry["eval_loss"])
        found |= {"lowest_eval_loss": lowest["eval_loss"], "lowest_eval_step": lowest.get("step")}
    return found


def verdict(
    found: dict[str, Any],
    start: dict[str, Any] | None,
    drift: Drift | None = None,
    preference: bool = True,
) -> str:
    """How the run went, in a few sentences; `preference` is whether the loss asks for a margin."""
    if not found:
        said = ["nothing was logged, so little can be said; lower logging_steps"]
        return _joined([*said, _drift(drift), start["fault"] if start else None])
    said = [_outcome(found) if preference else _outcome_of_sft(found), _changes(found)]
    if preference:
        said.append(_held_out(found))
    else:
        said.append(_rise_of_held_out_loss(found))
    if "saved_step" in found:
        said.append(f"the saved weights are those of step {found['saved_step']}, the best")
    said += [_drift(drift), start["fault"] if start else None]
    return _joined(said)


def _joined(said: list[str | None]) -> str:
    first, *others = (sentence for sentence in said if sentence)
    return ". ".join([first, *(f"{other[0].upper()}{other[1:]}" for other in others)])


def _outcome(found: dict[str, Any]) -> str:
    margin, accuracy = found["reward_margin"], found["reward_accuracy"]
    if margin <= -MOVED:
        return (
            f"went the wrong way: the margin ended at {margin:.3f}; look at the labels, then at "
            "learning_rate and loss_type"
        )
    if margin < MOVED:
        return (
            f"hardly moved: the margin ended at {margin:z.4f}; raise learning_rate or num_epochs "
            f"(the accuracy of {accuracy:.2f} says little at such margins)"
        )
    if accuracy <= COIN:
        return (
            f"did not learn to prefer: the margin ended at {margin:.2f}, but a few pairs make it, "
            f"with a reward accuracy of {accuracy:.2f}; look at the labels, then at learning_rate"
        )
    return (
        f"learned: the margin rose to {margin:.2f}, reward accuracy {accuracy:.2f} (which counts "
        "who is ahead, not by how much)"
    )


def _outcome_of_sft(found: dict[str, Any]) -> str:
    loss, first = found["loss"], found["first_loss"]
    way = "learned" if loss < first - SFT_MOVED else "hardly moved"
    return (
        f"{way}: the loss went from {first:.3f} to {loss:.3f} nats a token of the chosen answers; "
        "sft alone prefers nothing, so no margin is to be expected"
    )


def _changes(found: dict[str, Any]) -> str:
    chosen, rejected = found["chosen_log_ratio"], found["rejected_log_ratio"]
    parts = []
    for side, nats in (("chosen", chosen), ("rejected", rejected)):
        per_token = found.get(f"{side}_log_ratio_per_token")
        each = "" if per_token is None else f", {per_token:+z.2f} a token"
        parts.append(f"{side} {nats:+z.1f} nats{each}")
    change = "; ".join(parts)
    if max(chosen, rejected) <= -0.05 and found["reward_margin"] >= MOVED:
        if found.get("chosen_log_ratio_per_token", 0) <= -FALLEN:
            return (
                f"both answers became less likely than under the reference ({change}), which is "
                f"usual while the margin grows, but more than {FALLEN} nats a token off the chosen "
                "ones is a lot: what it prefers now may be what nobody chose"
            )
        return (
            f"both answers became less likely than under the reference ({change}), which is usual "
            "while the margin grows: falling rewards are no fault, the gap between them is what "
            "the loss asks for"
        )
    return f"against the reference: {change}"


def _held_out(found: dict[str, Any]) -> str | None:
    margin, held_out = found["reward_margin"], found.get("eval_rewards/margins")
    if held_out is None:
        return None
    said = (
        f"held out: margin {held_out:z.2f} against {margin:z.2f} in training, reward accuracy "
        f"{found['eval_rewards/accuracies']:.2f}"
    )
    if margin >= MOVED and held_out < margin * GENERAL:
        said += "; so much less means pairs learned by heart: fewer epochs, or more pairs"
    rise = _rise_of_held_out_loss(found)
    return f"{said}; {rise}" if rise else said


def _rise_of_held_out_loss(found: dict[str, Any]) -> str | None:
    now, lowest = found.get("eval_loss"), found.get("lowest_eval_loss")
    if now is None or now <= lowest * RISEN:
        return None
    return (
        f"the held-out loss was lowest at step {found['lowest_eval_step']} ({lowest:.4f}) and rose "
        f"to {now:.4f}: stop earlier, or keep the best with load_best_model_at_end"
    )


def _drift(drift: Drift | None) -> str | None:
    if drift is None:
        return None
    if drift.per_token is None:
        return f"the KL from the reference was not measured: {drift.missing}"
    kl, where = drift.per_token, f"{drift.answers} chosen answers of {drift.split}"
    if kl < NEAR:
        word = "small: it still writes much as the reference does"
    elif kl < FAR:
        word = "moderate: read samples of both (eval)"
    else:
        word = "large: its texts may fall apart; read samples (eval), raise beta or train less"
    return f"KL from the reference {kl:.3f} nats a token over {where}, {word}"

"""The final figures of a run, and its verdict in plain sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dpo_wrap.evaluation.findings import FAR, NEAR

MOVED = 0.05
"""Reward margin below which nothing was learned: such runs end at 0.0003 to 0.006."""
CHANCE = 0.55
"""Reward accuracy up to which a margin comes from a few pairs, whatever its size."""
FALLEN = 0.5
"""Nats per token that the chosen answers may lose; each then keeps 0.61 of its probability."""


@dataclass(frozen=True)
class ReferenceKL:
    """KL(policy || reference) of the next token, mean over the tokens of some chosen answers."""

    per_token: float | None
    """In nats; None where it could not be measured."""
    source: str
    """The answers that it was measured on, or why it could not be measured."""


def figures(
    history: list[dict[str, Any]], beta: float, tokens: dict[str, float] | None = None
) -> dict[str, Any]:
    """Means over the last tenth of the training log, at least one entry; {} without a log.

    Log-ratios (policy over reference, nats) are of whole answers and, where `tokens` gives the mean
    length of a chosen and of a rejected answer, also per token.
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
    kl: ReferenceKL | None = None,
    preference: bool = True,
) -> str:
    """How the run went, in a few sentences, from its figures, step 0 and KL.

    `preference` is false where the loss is sft alone, which asks for no margin.
    """
    sentences = ["nothing was logged, so the run cannot be judged; lower logging_steps"]
    if found:
        sentences = [_outcome(found, preference), _changes(found), *_held_out(found, preference)]
    if "saved_step" in found:
        sentences.append(f"the saved weights are those of step {found['saved_step']}, the best")
    if kl is not None:
        sentences.append(_distance(kl))
    if start and start["fault"]:
        sentences.append(start["fault"])
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def _outcome(found: dict[str, Any], preference: bool) -> str:
    margin, accuracy = found["reward_margin"], found["reward_accuracy"]
    loss, first = found["loss"], found["first_loss"]
    if not preference:
        return (
            f"the policy {'learned' if loss < first - 0.01 else 'hardly moved'}: the loss went "
            f"from {first:.3f} to {loss:.3f} nats per token of the chosen answers; sft alone "
            "compares no answers, so no margin is to be expected"
        )
    if margin <= -MOVED:
        return (
            f"the policy learned the opposite: the margin ended at {margin:.3f}; check the labels, "
            "then learning_rate and loss_type"
        )
    if margin < MOVED:
        return (
            f"the policy hardly moved: the margin ended at {margin:z.4f}; raise learning_rate or "
            f"num_epochs (a reward accuracy of {accuracy:.2f} means little at such a margin)"
        )
    if accuracy <= CHANCE:
        return (
            f"the policy did not learn to prefer: the margin of {margin:.2f} comes from a few "
            f"pairs, as the reward accuracy is {accuracy:.2f}; check the labels, then learning_rate"
        )
    return f"the policy learned: the margin rose to {margin:.2f}, reward accuracy {accuracy:.2f}"


def _changes(found: dict[str, Any]) -> str:
    changes = []
    for side in ("chosen", "rejected"):
        per_token = found.get(f"{side}_log_ratio_per_token")
        each = "" if per_token is None else f", {per_token:+z.2f} per token"
        changes.append(f"{side} {found[f'{side}_log_ratio']:+z.1f} nats{each}")
    both = "; ".join(changes)
    rise = max(found["chosen_log_ratio"], found["rejected_log_ratio"])
    if rise > -0.05 or found["reward_margin"] < MOVED:
        return f"change from the reference: {both}"
    text = f"both answers became less likely than under the reference ({both})"
    if found.get("chosen_log_ratio_per_token", 0) > -FALLEN:
        return (
            f"{text}, which is normal while the margin grows: falling rewards are not an error, "
            "because the DPO loss depends only on the margin"
        )
    return (
        f"{text}, which is normal while the margin grows, but the chosen ones lost more than "
        f"{FALLEN} nats per token: the policy may now prefer answers that are neither chosen nor "
        "rejected in the data"
    )


def _held_out(found: dict[str, Any], preference: bool) -> Iterator[str]:
    margin, held_out = found["reward_margin"], found.get("eval_rewards/margins")
    if preference and held_out is not None:
        accuracy = found["eval_rewards/accuracies"]
        yield (
            f"held out, the margin is {held_out:z.2f} against {margin:z.2f} in training, and the "
            f"reward accuracy {accuracy:.2f}"
        )
        if margin >= MOVED and held_out < margin / 2:
            yield "so small a held-out margin means memorized pairs; use fewer epochs or more pairs"
    if found.get("eval_loss", 0) > 1.05 * found.get("lowest_eval_loss", 0):
        yield (
            f"the held-out loss was lowest at step {found['lowest_eval_step']} "
            f"({found['lowest_eval_loss']:.4f}) and rose to {found['eval_loss']:.4f}; stop "
            "earlier, or keep the best checkpoint with load_best_model_at_end"
        )


def _distance(kl: ReferenceKL) -> str:
    if kl.per_token is None:
        return f"the KL from the reference was not measured: {kl.source}"
    size = "large: its text may degenerate; read samples (eval), raise beta or train less"
    if kl.per_token < NEAR:
        size = "small: the policy still writes much like the reference"
    elif kl.per_token < FAR:
        size = "moderate: read samples of both (eval)"
    return (
        f"the KL from the reference is {kl.per_token:.3f} nats per token over {kl.source}, {size}"
    )

"""Is the run well? Step 0 must be at ln 2 and margin 0; at the end, what was learned, in words."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOTrainer

# Losses that are ln 2 where policy and reference agree: -log sigmoid(0).
AT_LN_2 = {"sigmoid", "robust", "sigmoid_norm"}
# Policy and reference run the same arithmetic, so what stands between them is rounding.
TOLERANCE = 0.01
# A margin below this is what an adapter makes that has hardly moved (field measurements: 0.0003 to
# 0.006 where nothing was learned, 2.2 where it was).
MOVED = 0.05


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
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(size)])
    training = trainer.model.training
    trainer.model.eval()
    try:
        with torch.no_grad(), trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).item()
        margin = trainer._metrics["eval"]["rewards/margins"][-1]
    finally:
        trainer._metrics["eval"].clear()
        trainer.model.train(training)
    fault = None
    if abs(margin) > TOLERANCE:
        fault = (
            f"step 0 has a margin of {margin:.4f}, not 0: the policy does not start at its "
            "reference (an adapter initialised away from zero?)"
        )
    elif _starts_at_ln_2(trainer) and abs(loss - math.log(2)) > TOLERANCE:
        fault = f"step 0 has a loss of {loss:.4f}, not ln 2 = 0.6931"
    return StepZero(loss, margin, fault)


def _starts_at_ln_2(trainer: DPOTrainer) -> bool:
    if trainer.use_weighting or trainer.aux_loss_enabled or trainer.loss_weights != [1.0]:
        return False
    return trainer.loss_types[0] in AT_LN_2


def figures(history: list[dict[str, Any]], beta: float) -> dict[str, float]:
    """The run's figures at its end: means over the last tenth of the log, at least one line of it.

    Log-ratios are of whole answers, policy over reference, in nats.
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
    }
    evaluated = [entry for entry in history if "eval_loss" in entry]
    if evaluated:
        found |= {name: value for name, value in evaluated[-1].items() if name.startswith("eval_")}
    return found


def verdict(found: dict[str, float], start: dict[str, Any] | None) -> str:
    """How the run went, in a sentence or two."""
    if not found:
        return "nothing was logged, so nothing can be said; lower logging_steps"
    margin, accuracy = found["reward_margin"], found["reward_accuracy"]
    if margin <= -MOVED:
        said = (
            f"went the wrong way: the margin ended at {margin:.3f}; look at the labels, then at "
            "learning_rate"
        )
    elif margin < MOVED:
        said = (
            f"hardly moved: the margin ended at {margin:.4f}; raise learning_rate or num_epochs "
            f"(the accuracy of {accuracy:.2f} says little at such margins)"
        )
    else:
        said = f"learned: the margin rose to {margin:.2f}, reward accuracy {accuracy:.2f}"
        chosen, rejected = found["chosen_log_ratio"], found["rejected_log_ratio"]
        if chosen < 0:
            said += (
                f"; both answers became less likely (chosen {chosen:+.1f} nats, rejected "
                f"{rejected:+.1f}), which is usual while the margin grows"
            )
        else:
            said += f"; chosen {chosen:+.1f} nats, rejected {rejected:+.1f}"
    return f"{said}. {start['fault']}" if start and start["fault"] else said

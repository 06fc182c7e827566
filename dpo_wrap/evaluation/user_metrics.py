"""The key `metrics:`: local modules that evaluate.load takes, scored on both models' answers.

A module's compute(predictions=[text, ...]) returns figures by name. Beside a figure NAME it may
return NAME_per_example, one number a prediction; then the change has a paired interval.
Predictions are prompts with their answers. A module whose features name `references` is given the
answers alone, and as references what people chose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import evaluate

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, one_line
from dpo_wrap.evaluation.intervals import mean_interval
from dpo_wrap.hub import located

PER_EXAMPLE = "_per_example"


@dataclass(frozen=True)
class Change:
    """One figure of a metric module, on the reference's answers and on the policy's."""

    name: str
    reference: float
    policy: float
    change_interval: tuple[float, float] | None
    """95 % bounds of policy minus reference; None where the module has no figure per example."""
    each: dict[str, tuple[float, ...]]
    """`reference` and `policy`: one figure a prompt; empty where the module has none."""

    @property
    def change(self) -> float:
        return self.policy - self.reference

    def figures(self) -> dict[str, Any]:
        """For JSON, without the figures of each prompt."""
        found = {"reference": self.reference, "policy": self.policy, "change": self.change}
        return found | {"change_interval": self.change_interval and list(self.change_interval)}


def load_metrics(settings: Settings) -> list[Any]:
    """Every module of `metrics:`, before anything is sampled. Raises ConfigError."""
    place = settings.where("metrics")
    loaded = []
    for path in settings.metrics:
        try:
            # A name of its own for each run, or two at once would share one file of intermediates.
            name = f"eval-{id(settings)}-{len(loaded)}"
            loaded.append(evaluate.load(located(path), experiment_id=name))
        except Exception as error:  # a module is code and may raise anything
            raise ConfigError(f"{place}: {path!r} could not be loaded: {one_line(error)}") from None
    return loaded


def score_samples(
    settings: Settings, modules: Sequence[Any], samples: Sequence[dict[str, Any]]
) -> list[Change]:
    """Each figure of each module, on the same prompts for both. Raises ConfigError.

    A sample has `prompt`, the answers `reference` and `policy`, and `chosen`, what people chose.
    """
    changes = []
    for path, module in zip(settings.metrics, modules, strict=True):
        try:
            before, after = (
                module.compute(**_given(module, samples, who)) for who in ("reference", "policy")
            )
            found = _changes(before, after, len(samples))
            if taken := {c.name for c in changes} & {c.name for c in found}:
                raise ValueError(f"another module of metrics has a figure {min(taken)!r} too")
            changes += found
        except Exception as error:
            raise ConfigError(
                f"{settings.where('metrics')}: {path!r} failed on the samples: {one_line(error)}"
            ) from None
    return changes


def _given(module: Any, samples: Sequence[dict[str, Any]], who: str) -> dict[str, list[str]]:
    features = module.features[0] if isinstance(module.features, list) else module.features
    if "references" not in features:
        return {"predictions": [sample["prompt"] + sample[who] for sample in samples]}
    return {
        "predictions": [sample[who] for sample in samples],
        "references": [sample["chosen"] for sample in samples],
    }


def _changes(before: dict[str, Any], after: dict[str, Any], samples: int) -> list[Change]:
    changes = []
    for name, value in before.items():
        if name.endswith(PER_EXAMPLE) or not isinstance(value, Real):
            continue
        each = [tuple(map(float, found.get(name + PER_EXAMPLE, ()))) for found in (before, after)]
        if {len(values) for values in each} not in ({0}, {samples}):
            counts = " and ".join(str(len(values)) for values in each)
            raise ValueError(f"{name}{PER_EXAMPLE} has {counts} figures for {samples} predictions")
        interval = mean_interval([b - a for a, b in zip(*each, strict=True)])
        earlier, later = float(value), float(after[name])
        if not all(map(math.isfinite, (earlier, later, *each[0], *each[1]))):
            raise ValueError(f"{name} is {earlier} and {later}, or of some prompt no figure")
        by_model = dict(zip(("reference", "policy"), each, strict=True)) if each[0] else {}
        changes.append(Change(name, earlier, later, interval, by_model))
    return changes

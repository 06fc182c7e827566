"""The key `metrics:`: local modules that evaluate.load takes, scored on both models' answers.

A module's compute(predictions=[text, ...]) returns figures by name. Beside a figure NAME it may
return NAME_per_example, one number a prediction; then the change has a paired interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import evaluate

from dpo_wrap.errors import ConfigError, one_line
from dpo_wrap.judging.intervals import mean_interval
from dpo_wrap.loading.hub import located
from dpo_wrap.settings.config import Settings

PER_EXAMPLE = "_per_example"


@dataclass(frozen=True)
class Change:
    """One figure of a metric module, on the reference's answers and on the policy's."""

    name: str
    reference: float
    policy: float
    change_interval: tuple[float, float] | None
    """95 % bounds of policy minus reference; None where the module has no figure per example."""

    @property
    def change(self) -> float:
        return self.policy - self.reference


def load_metrics(settings: Settings) -> list[Any]:
    """Every module of `metrics:`, before anything is sampled. Raises ConfigError."""
    place = settings.place("metrics")
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
    settings: Settings, modules: Sequence[Any], reference: list[str], policy: list[str]
) -> list[Change]:
    """Each figure of each module, on the same prompts for both. Raises ConfigError."""
    changes = []
    for path, module in zip(settings.metrics, modules, strict=True):
        try:
            before = module.compute(predictions=reference)
            after = module.compute(predictions=policy)
            changes += _changes(before, after)
        except Exception as error:
            raise ConfigError(
                f"{settings.place('metrics')}: {path!r} failed on the samples: {one_line(error)}"
            ) from None
    return changes


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    changes = []
    for name, value in before.items():
        if name.endswith(PER_EXAMPLE) or not isinstance(value, Real):
            continue
        pairs = zip(
            before.get(name + PER_EXAMPLE, ()), after.get(name + PER_EXAMPLE, ()), strict=True
        )
        interval = mean_interval([later - earlier for earlier, later in pairs])
        earlier, later = float(value), float(after[name])
        if not math.isfinite(earlier + later):
            raise ValueError(f"{name} is {earlier} and {later}, which are no figures")
        changes.append(Change(name, earlier, later, interval))
    return changes

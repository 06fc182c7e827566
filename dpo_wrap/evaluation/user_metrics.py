"""The key `metrics:`: local modules for evaluate.load, computed on both models' answers.

compute(predictions=[text, ...]) returns figures by name. If it also returns NAME_per_example, one
number per prediction, the change of NAME gets a paired interval. Predictions are prompts with their
answers. A module whose features have `references` gets the answers alone, and the chosen answers as
references.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import evaluate

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, one_line
from dpo_wrap.evaluation.sampling import MODELS
from dpo_wrap.hub import located
from dpo_wrap.metrics.intervals import mean

PER_EXAMPLE = "_per_example"
Figures = dict[str, Any]
Columns = dict[str, list[float]]


def load_metrics(settings: Settings) -> list[Any]:
    """Every module of `metrics:`. Raises ConfigError."""
    loaded = []
    for path in settings.metrics:
        try:
            # The files of intermediate results are named by this id; two runs must not share one.
            name = f"eval-{id(settings)}-{len(loaded)}"
            loaded.append(evaluate.load(located(path), experiment_id=name))
        except Exception as error:  # a module is code and may raise anything
            raise ConfigError(
                f"{settings.where('metrics')}: {path!r} cannot be loaded: {one_line(error)}"
            ) from None
    return loaded


def score_samples(
    settings: Settings, modules: Sequence[Any], samples: Sequence[dict[str, Any]]
) -> tuple[Figures, Columns]:
    """(figures by name, columns of values per sample) of all modules. Raises ConfigError.

    A figure has `reference`, `policy`, `change` (policy minus reference) and `change_interval`
    (95 %, None without values per sample). A sample has the texts `prompt`, `reference`, `policy`
    and `chosen`.
    """
    figures: Figures = {}
    columns: Columns = {}
    for path, module in zip(settings.metrics, modules, strict=True):
        try:
            results = [module.compute(**_inputs(module, samples, who)) for who in MODELS]
            for name, value in results[0].items():
                if isinstance(value, Real) and not name.endswith(PER_EXAMPLE):
                    if name in figures:
                        raise ValueError(f"another module of metrics returns {name!r} too")
                    figures[name], values = _change(name, results, len(samples))
                    columns |= values
        except Exception as error:
            raise ConfigError(
                f"{settings.where('metrics')}: {path!r} failed on the samples: {one_line(error)}"
            ) from None
    return figures, columns


def _inputs(module: Any, samples: Sequence[dict[str, Any]], who: str) -> dict[str, list[str]]:
    features = module.features[0] if isinstance(module.features, list) else module.features
    if "references" not in features:
        return {"predictions": [sample["prompt"] + sample[who] for sample in samples]}
    answers, references = ([sample[name] for sample in samples] for name in (who, "chosen"))
    return {"predictions": answers, "references": references}


def _change(name: str, results: list[Figures], count: int) -> tuple[Figures, Columns]:
    before, after = (float(result[name]) for result in results)
    each = [[float(value) for value in r.get(name + PER_EXAMPLE, ())] for r in results]
    if {len(values) for values in each} not in ({0}, {count}):
        lengths = " and ".join(str(len(values)) for values in each)
        raise ValueError(f"{name}{PER_EXAMPLE} has {lengths} values for {count} predictions")
    if not all(map(math.isfinite, (before, after, *each[0], *each[1]))):
        raise ValueError(f"{name} is {before} and {after}, or not finite for some prediction")
    differences = [later - earlier for earlier, later in zip(*each, strict=True)]
    bounds = mean(differences)[1] if differences else None
    figure = {"reference": before, "policy": after, "change": after - before}
    columns = {f"{name}_{who}": values for who, values in zip(MODELS, each, strict=True) if values}
    return figure | {"change_interval": bounds and list(bounds)}, columns

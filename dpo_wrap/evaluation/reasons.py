"""Why a figure of eval.json is null: the key `reasons`, by the path of the figure."""

from collections.abc import Iterator
from typing import Any

TEXTS = ("caution", "notes", "reasons", "steps")
"""Keys that are no figures."""
SAMPLED = ("kl_per_sequence", "kl_per_token", "length_ratio", "eos_rate", "distinct_")
NO_PAIRS = "no pairs of it are in this split"
ONE = "an interval needs two prompts"
REASONS = {
    "first_answer": "no conversion report says which answer was shown first",
    "ceiling": "no conversion report has several judgements of a pair",
    "alpha": "it is defined for one dataset with several annotators",
    "accuracy": "no pairs of a similar difference in length have it in both directions",
    "change": "the metric returns no value for each answer (NAME_per_example)",
    "win_rate": "no pair was judged in both orders",
    "position_bias": "no verdict names one answer",
}


def null_reasons(figures: dict[str, Any]) -> dict[str, str]:
    """The reason of each null figure, by its path, such as `ceiling.alpha`; lists are left out."""
    return {
        ".".join(path): _reason(path, parent, figures)
        for path, parent in _nulls(figures, ())
        if path[0] not in TEXTS
    }


def reason_lines(reasons: dict[str, str]) -> list[str]:
    """One line for each reason, with the figures that it is of."""
    named: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        if path.removesuffix("_interval") == path or path.removesuffix("_interval") not in reasons:
            named.setdefault(reason, []).append(path)
    return [f"no {', '.join(paths)}: {reason}" for reason, paths in named.items()]


def _nulls(
    value: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """(path, the object that it is in) of each null."""
    for name, inner in value.items():
        if inner is None:
            yield (*path, name), value
        elif isinstance(inner, dict):
            yield from _nulls(inner, (*path, name))


def _reason(path: tuple[str, ...], parent: dict[str, Any], figures: dict[str, Any]) -> str:
    name = path[-1].removesuffix("_interval")
    if path[0].startswith(SAMPLED) and not figures["samples"]:
        none = "--samples 0" if figures["samples_requested"] == 0 else "no prompt leaves room"
        return f"no answers were sampled ({none})"
    if path[0].startswith("distinct_"):
        return f"no answer has {path[0].removeprefix('distinct_')} tokens"
    if parent.get("examples") == 0:
        return NO_PAIRS
    if name != path[-1] and parent[name] is not None:
        return ONE if name != "change" or figures["samples"] < 2 else REASONS["change"]
    return REASONS.get(name, "it is not defined for these data")

"""Figures as tables and numbers as text, for any value that a JSON file may hold."""

import math
from collections.abc import Iterator
from typing import Any

from dpo_wrap.report.markup import Markup, tag
from dpo_wrap.report.run_files import a_dict, a_list

LARGEST = 1e15
"""Beyond this no figure of a run is one, and a drawing's arithmetic would end."""


def table(figures: Any) -> Markup:
    """Names and values, groups of them spelled out."""
    rows = [tag("tr", tag("th", n, scope="row"), tag("td", v)) for n, v in _flat(a_dict(figures))]
    return tag("div", tag("table", *rows), class_="wide") if rows else Markup()


def columns(groups: dict[str, dict[str, Any]]) -> Markup:
    """Groups of the same figures side by side."""
    flat = {group: dict(_flat(figures)) for group, figures in groups.items()}
    names = list(dict.fromkeys(name for figures in flat.values() for name in figures))
    if not names:
        return Markup()
    head = tag("tr", tag("th", ""), *(tag("th", group, scope="col") for group in flat))
    rows = [
        tag("tr", tag("th", n, scope="row"), *(tag("td", f.get(n, "")) for f in flat.values()))
        for n in names
    ]
    return tag("div", tag("table", tag("thead", head), *rows), class_="wide")


def rows(names: list[str], values: list[list[str]]) -> Markup:
    """Lines under a head, for what comes in many lines of few values."""
    if not values:
        return Markup()
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    lines = [tag("tr", *(tag("td", value) for value in line)) for line in values]
    return tag("div", tag("table", tag("thead", head), *lines), class_="wide lines")


def _flat(figures: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name} ")
        else:
            yield f"{before}{name}".replace("_", " "), _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(one) if not isinstance(one, list) else "…" for one in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "—" if value is None else str(value)


def number(value: Any, form: str, unit: str = "") -> str:
    """Empty for what is no number; a count is shown as one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        return ""
    return f"{value:{form}}{unit}"


def bounded(found: dict[str, Any], name: str, form: str, unit: str = "") -> str:
    """A figure of eval.json with its 95 % interval, where it has one."""
    bounds = [number(bound, form) for bound in a_list(found.get(f"{name}_interval"))]
    spread = f" [{', '.join(bounds)}]" if len(bounds) == 2 else ""
    value = number(found.get(name), form, unit)
    return value and value + spread


def a_float(value: Any) -> float:
    """The value where it is a number, else NaN."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= LARGEST else math.nan

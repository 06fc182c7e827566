"""The geometry of line charts: curves over training steps, and histograms.

report.html.jinja draws what `line_chart` returns as inline SVG. Positions are in units of the
drawing, about CSS pixels on a phone, from the top left corner of the plot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

WIDTH, HEIGHT = 278, 156

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A named line; a point that holds NaN or inf leaves a gap. `style` is a class of report.css.

    `dots` marks every point, which shows where a few evaluations are among many steps.
    """

    label: str
    style: str
    points: Sequence[Point]
    dots: bool = False


def line_chart(
    title: str,
    curves: Sequence[Curve],
    level: float,
    vertical: float | None = None,
    x_format: str = "step {:,.0f}",
) -> dict[str, Any] | None:
    """Positions and labels of a chart; None where no curve has a finite point.

    `level` is the value of a dashed horizontal line, `vertical` the place of a dashed vertical one
    if that is within the chart; `x_format` formats the ends of the horizontal axis.
    """
    curves = [curve for curve in curves if any(map(_finite, curve.points))]
    if not curves:
        return None
    points = [point for curve in curves for point in curve.points if _finite(point)]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    values = [level, *(y for _, y in points)]
    # A margin keeps the curves away from the frame.
    margin = (max(values) - min(values)) * 0.05 or abs(level) * 0.05 or 1.0
    low, high = min(values) - margin, max(values) + margin

    def place(point: Point) -> Point:
        across = (point[0] - first) / (last - first or 1)
        up = (point[1] - low) / (high - low)
        return round(across * WIDTH, 1), round((1 - up) * HEIGHT, 1)

    lines, dots = [], []
    for curve in curves:
        for finite, group in groupby(curve.points, _finite):
            places = [place(point) for point in group] if finite else []
            if len(places) > 1:
                lines.append((curve.style, " ".join(f"{x},{y}" for x, y in places)))
            # A line through a single point would be invisible.
            if curve.dots or len(places) == 1:
                dots += [(curve.style, x, y) for x, y in places]
    labels = [(0, "start", x_format.format(first)), (WIDTH, "end", x_format.format(last))]
    labels = labels[:1] if first == last else labels
    crossing = None
    if vertical is not None and first < vertical < last:
        crossing = place((vertical, level))[0]
        labels.append((crossing, "middle", f"{vertical:g}"))
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "legend": [(curve.label, curve.style) for curve in curves],
        "ticks": [(place((first, value))[1], f"{value:.3g}") for value in ticks(low, high)],
        "labels": labels,
        "level": place((first, level))[1],
        "vertical": crossing,
        "lines": lines,
        "dots": dots,
    }


def ticks(low: float, high: float) -> list[float]:
    """Three to six multiples of 1, 2 or 5 times a power of ten from low to high."""
    size = 10 ** math.floor(math.log10(high - low))
    marks: list[float] = []
    for step in (2 * size, size, size / 2, size / 5):
        marks = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(marks) >= 3:
            break
    return marks


def outline(edges: Sequence[float], counts: Sequence[float]) -> list[Point]:
    """The outline of a histogram with one edge more than counts."""
    bins = zip(edges, edges[1:], counts, strict=False)
    steps = [point for start, end, count in bins for point in ((start, count), (end, count))]
    return [(edges[0], 0.0), *steps, (edges[-1], 0.0)]


def _finite(point: Point) -> bool:
    return all(map(math.isfinite, point))

"""Curves over training steps as inline SVG: no script, nothing fetched, colours left to the page.

chart("loss", [Curve("training", "one", [(1, 0.69), (2, 0.65)])], level=0.693)
"""

import math
from dataclasses import dataclass
from itertools import groupby

from dpo_wrap.report.markup import Markup, joined, tag

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24
"""Margins round the plot, in the units of WIDTH and HEIGHT, which are pixels on a phone."""

Point = tuple[float, float]
"""Step and value; a value that is no finite number leaves a gap."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart; its `style` is a class that the page's style sheet colours."""

    label: str
    style: str
    points: list[Point]
    dots: bool = False
    """Whether each point is marked, as suits a few evaluations among many steps."""


@dataclass(frozen=True)
class _Scale:
    """Steps and values to places in the drawing."""

    first: float
    last: float
    low: float
    high: float

    def place(self, point: Point) -> tuple[str, str]:
        step, value = point
        across = (step - self.first) / (self.last - self.first or 1)
        up = (value - self.low) / (self.high - self.low or 1)
        x = LEFT + across * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f}", f"{y:.1f}"


def chart(title: str, curves: list[Curve], level: float | None = None) -> Markup:
    """A figure with its legend; empty where no curve has a point. `level` is a line to look at."""
    curves = [curve for curve in curves if any(_finite(point) for point in curve.points)]
    if not curves:
        return Markup()
    points = [point for curve in curves for point in curve.points if _finite(point)]
    values = [value for _, value in points] + ([] if level is None else [level])
    steps = [step for step, _ in points]
    scale = _Scale(min(steps), max(steps), *_room(min(values), max(values)))
    parts = [_axes(scale)]
    if level is not None:
        parts.append(_line([(scale.first, level), (scale.last, level)], scale, "level"))
    parts += [_drawn(curve, scale) for curve in curves]
    names = ", ".join(curve.label for curve in curves)
    drawing = tag(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}: {names}"
    )
    legend = (tag("span", curve.label, class_=f"key {curve.style}") for curve in curves)
    return tag("figure", tag("figcaption", tag("b", title), *legend), drawing)


def _finite(point: Point) -> bool:
    return all(map(math.isfinite, point))


def _room(low: float, high: float) -> tuple[float, float]:
    """The bounds with a little air, so that no curve runs along the frame."""
    air = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - air, high + air


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, two to five of them: multiples of 1, 2 or 5 tens."""
    size = 10 ** math.floor(math.log10(high - low))
    steps = (size * part for part in (1.0, 0.5, 0.2, 0.1))
    step = next(s for s in steps if math.floor(high / s) - math.ceil(low / s) >= 1)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axes(scale: _Scale) -> Markup:
    parts = []
    for value in ticks(scale.low, scale.high):
        y = scale.place((scale.first, value))[1]
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{value:.3g}", x=LEFT - 6, y=y, dy="0.35em", text_anchor="end"))
    ends = [(scale.first, LEFT, "start"), (scale.last, WIDTH - RIGHT, "end")]
    for step, x, anchor in ends[: 1 if scale.first == scale.last else 2]:
        label = f"step {step:g}" if anchor == "start" else f"{step:g}"
        parts.append(tag("text", label, x=x, y=HEIGHT - 6, text_anchor=anchor))
    return joined(*parts)


def _drawn(curve: Curve, scale: _Scale) -> Markup:
    parts = []
    for finite, run in groupby(curve.points, _finite):
        points = list(run)
        if not finite:
            continue
        if len(points) > 1:
            parts.append(_line(points, scale, curve.style))
        if curve.dots or len(points) == 1:
            # A line of one point cannot be seen.
            places = map(scale.place, points)
            parts += [tag("circle", cx=x, cy=y, r=3, class_=curve.style) for x, y in places]
    return joined(*parts)


def _line(points: list[Point], scale: _Scale, style: str) -> Markup:
    places = " ".join(",".join(scale.place(point)) for point in points)
    return tag("polyline", points=places, class_=style)

"""Shares as bars with their intervals, and distributions as steps, as inline SVG.

bars("accuracy", [Bar("policy", 0.96, (0.94, 0.98), "one")], level=0.5)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dpo_wrap.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from dpo_wrap.report.markup import Markup, joined, tag

LABEL, ROW, THICK = 144, 26, 12
"""Room for names, height of a line and of its bar, in the units of WIDTH."""
VALUE, LETTERS = 54, 24


@dataclass(frozen=True)
class Bar:
    """A share in [0, 1]; its `style` is a class that the page's style sheet colours."""

    label: str
    value: float
    bounds: tuple[float, float] | None = None
    style: str = "flat"


def bars(title: str, given: Sequence[Bar], level: float | None = None) -> Markup:
    """A bar for each share, with a whisker over its interval; empty where there is none."""
    shown = [bar for bar in given if math.isfinite(bar.value)]
    if not shown:
        return Markup()
    width, height = WIDTH - LABEL - VALUE, ROW * len(shown) + 6

    def across(share: float) -> str:
        return f"{LABEL + min(1.0, max(0.0, share)) * width:.1f}"

    parts = []
    for line, bar in enumerate(shown):
        y = ROW * line + (ROW - THICK) / 2
        middle = y + THICK / 2
        size = {"width": f"{float(across(bar.value)) - LABEL:.1f}", "height": THICK}
        parts += [
            tag("text", _short(bar.label), x=LABEL - 8, y=middle, dy="0.35em", text_anchor="end"),
            tag("rect", tag("title", bar.label), x=LABEL, y=y, class_=bar.style, **size),
            tag("text", f"{bar.value:.1%}", x=WIDTH, y=middle, dy="0.35em", text_anchor="end"),
        ]
        if bar.bounds:
            low, high = map(across, bar.bounds)
            parts.append(tag("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker"))
    if level is not None:
        x = across(level)
        parts.append(tag("line", x1=x, x2=x, y1=0, y2=height, class_="level"))
    said = ", ".join(f"{bar.label} {bar.value:.1%}" for bar in shown)
    drawing = tag(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=f"{title}: {said}"
    )
    return tag("figure", tag("figcaption", tag("b", title)), drawing)


def _short(label: str) -> str:
    """The end of a label, which tells paths apart; the whole one shows under the pointer."""
    return label if len(label) <= LETTERS else f"…{label[1 - LETTERS :]}"


def distribution(
    title: str, edges: Sequence[float], series: dict[str, tuple[str, Sequence[float]]]
) -> Markup:
    """Counts between edges as an outline for each series, by label: (style, counts)."""
    top = max((max(counts, default=0) for _, counts in series.values()), default=0)
    if len(edges) < 2 or top <= 0 or any(len(c) != len(edges) - 1 for _, c in series.values()):
        return Markup()
    low, high = edges[0], edges[-1]

    def place(value: float, count: float) -> str:
        x = LEFT + (value - low) / (high - low or 1) * (WIDTH - LEFT - RIGHT)
        return f"{x:.1f},{HEIGHT - BOTTOM - count / top * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [_floor(low, high, place)]
    for style, counts in series.values():
        points = [place(low, 0)]
        for start, end, count in zip(edges, edges[1:], counts, strict=False):
            points += [place(start, count), place(end, count)]
        parts.append(tag("polyline", points=" ".join([*points, place(high, 0)]), class_=style))
    legend = (tag("span", label, class_=f"key {style}") for label, (style, _) in series.items())
    drawing = tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {', '.join(series)}",
    )
    return tag("figure", tag("figcaption", tag("b", title), *legend), drawing)


def _floor(low: float, high: float, place) -> Markup:
    """The axis below, its ends, and where nought stands."""
    y = HEIGHT - BOTTOM
    parts = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")]
    marks = [(low, "start"), (high, "end")]
    if low < 0 < high:
        marks.append((0.0, "middle"))
        x = place(0.0, 0).partition(",")[0]
        parts.append(tag("line", x1=x, x2=x, y1=TOP, y2=y, class_="level"))
    for value, anchor in marks:
        x = place(value, 0).partition(",")[0]
        parts.append(tag("text", f"{value:.3g}", x=x, y=HEIGHT - 6, text_anchor=anchor))
    return joined(*parts)

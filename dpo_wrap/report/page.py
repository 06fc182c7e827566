"""report.html: a run's verdict, figures, charts, samples and config on one self-contained page.

The template report.html.jinja decides what is shown where, with the filters defined below. What a
run directory lacks is left out of the page.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, TemplateError

from dpo_wrap import run_dir
from dpo_wrap.evaluation.findings import contradicts_labels
from dpo_wrap.files import write_atomically
from dpo_wrap.run_dir import conversion_reports, read_lines, read_object, read_text

WIDTH, HEIGHT = 278, 156
"""The size of a chart in units of the drawing, about CSS pixels on a phone."""
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and surrogates, which UTF-8 cannot hold."""
EXCERPT = 5000
"""The most characters that are shown of a prompt or an answer."""
CONVERSION = (
    *("format", "evidence", "records", "pairs", "reasons", "warnings", "splits", "prompts"),
    *("chosen_longer", "chosen_shorter", "first_answer_wins", "ties", "notes"),
)
"""The keys of a conversion's report.json that the page shows."""
IN_SECTIONS = (
    *("against", "against_label", "findings", "groups", "likelihood_margins", "metrics", "slices"),
    "win_rate",
)
"""The keys of eval.json that are shown in sections, not in the table of all figures."""
SUSPECT_KEYS = ("source", "reward_margin", "probability", "split", "prompt", "chosen", "rejected")
"""The keys of a suspect that are no columns of the dataset."""

DAMAGED = (KeyError, IndexError, TypeError, ValueError, AttributeError, TemplateError)
"""What JSON of other types than expected raises."""

LARGEST = 1e15
"""Numbers beyond this are damage, and would overflow the geometry of a chart."""
Point = tuple[float, float]


def write_page(directory: Path, run: dict[str, Any] | None = None) -> None:
    """Write report.html into a run directory; raises OSError.

    `run` is the content of a run.json that is not written yet.
    """
    write_atomically(directory / run_dir.REPORT, page(directory, run))


def page(directory: Path, run: dict[str, Any] | None = None) -> str:
    """The HTML of the page; what eval or suspects wrote is left out where it is damaged."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        undefined=ChainableUndefined,
    )
    filters = (rows, text, excerpt, number, estimate, contradicts_labels)
    environment.filters |= {one.__name__: one for one in filters}
    template = environment.get_template("report.html.jinja")
    try:
        html = template.render(_values(directory, run))
    except DAMAGED:
        html = template.render(_values(directory, run, damaged=True))
    return UNPRINTABLE.sub("\ufffd", html.lstrip())


def _values(directory: Path, run: dict[str, Any] | None, damaged: bool = False) -> dict[str, Any]:
    run = read_object(directory / run_dir.RUN) if run is None else run
    run = {k: v for k, v in run.items() if isinstance(v, run_dir.RUN_TYPES.get(k, object))}
    found = {} if damaged else read_object(directory / run_dir.EVAL)
    fault = (run.get("step_0") or {}).get("fault")
    warnings = [fault] if fault else []
    warnings += ["\n".join(warning["lines"]) for warning in run.get("warnings", [])]
    if damaged:
        warnings.append(
            f"{run_dir.EVAL}, {run_dir.SAMPLES} or {run_dir.SUSPECTS} is damaged or was written by "
            "another version; run python -m dpo_wrap.eval CONFIG again"
        )
    if found.get("steps") not in (None, run.get("steps")):
        warnings.append(
            f"eval.json was computed at step {found['steps']}, and the run was trained further "
            "since; to update it, run python -m dpo_wrap.eval CONFIG"
        )
        found = {}
    paths = run.get("config", {}).get("dataset_path", [])
    reports = conversion_reports(directory, [paths] if isinstance(paths, str) else paths)
    samples = read_lines(directory / run_dir.SAMPLES) if found else []
    return {
        "title": f"DPO run {'/'.join(directory.resolve().parts[-2:])}",
        "run": run,
        "found": found,
        "warnings": warnings,
        "conversions": {
            path: {name: report[name] for name in CONVERSION if report.get(name)}
            for path, report in reports.items()
        },
        "suspects": [] if damaged else read_lines(directory / run_dir.SUSPECTS),
        "search": {} if damaged else read_object(directory / run_dir.SUSPECTS_FIGURES),
        "margins": _margins_chart(found.get("likelihood_margins")),
        "samples": sorted(samples, key=_is_unchanged),
        "unchanged": sum(map(_is_unchanged, samples)),
        "training": _training_charts(read_lines(directory / run_dir.METRICS)),
        "data": {name: value for name, value in run.get("data", {}).items() if name != "fit"},
        "figures": {name: value for name, value in found.items() if name not in IN_SECTIONS},
        "config": read_text(directory / run_dir.CONFIG),
        "SUSPECT_KEYS": SUSPECT_KEYS,
    }


def _is_unchanged(sample: dict[str, Any]) -> bool:
    return sample["policy"] == sample["reference"]


def _margins_chart(margins: dict[str, Any] | None) -> dict[str, Any] | None:
    if not margins:
        return None
    curves = [
        Curve("before training", "two", outline(margins["edges"], margins["reference"])),
        Curve("after", "one", outline(margins["edges"], margins["policy"])),
    ]
    title = "log-probability, chosen minus rejected, nats"
    return line_chart(title, curves, level=0.0, vertical=0.0, x_format="{:.3g}")


def _training_charts(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def curve(label: str, style: str, name: str) -> Curve:
        found = ((line.get("step"), line.get(name)) for line in metrics)
        points = [point for point in found if all(map(_is_number, point))]
        return Curve(label, style, points, dots=name.startswith("eval_"))

    def both(name: str) -> list[Curve]:
        return [curve("training", "one", name), curve("held out", "two", f"eval_{name}")]

    rewards = [
        curve("chosen", "one", "rewards/chosen"),
        curve("rejected", "two", "rewards/rejected"),
    ]
    charts = [
        line_chart("loss", both("loss"), level=math.log(2)),
        line_chart("reward accuracy", both("rewards/accuracies"), level=0.5),
        line_chart("reward margin", both("rewards/margins"), level=0.0),
        line_chart("rewards", rewards, level=0.0),
    ]
    return [chart for chart in charts if chart]


def rows(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and texts of an object and those within it; lists of objects are left out."""
    found = []
    for name, value in (figures or {}).items():
        if isinstance(value, dict):
            found += rows(value, f"{prefix}{name} ")
        elif not (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
            found.append((f"{prefix}{name}".replace("_", " "), text(value)))
    return found


def text(value: Any) -> str:
    """Any JSON value as text."""
    if isinstance(value, list):
        return ", ".join(map(text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "—" if value is None else str(value)


def excerpt(value: str) -> str:
    """A prompt or an answer, cut to what a page can show."""
    whole = str(value).removeprefix(" ")  # the space that separates an answer from its prompt
    if len(whole) <= EXCERPT:
        return whole
    return f"{whole[:EXCERPT]} … ({len(whole):,} characters)"


def number(value: Any, form: str) -> str:
    """The number in a format, "" where there is none or it is NaN or inf."""
    return f"{value:{form}}" if isinstance(value, int | float) and math.isfinite(value) else ""


def estimate(figures: dict[str, Any], name: str, form: str) -> str:
    """A figure with its 95 % interval, if it has one: "0.95 [0.90, 0.98]"."""
    figures = figures or {}
    value, bounds = number(figures.get(name), form), figures.get(f"{name}_interval")
    return f"{value} [{bounds[0]:{form}}, {bounds[1]:{form}}]" if value and bounds else value


@dataclass(frozen=True)
class Curve:
    """A named line; a point that holds NaN or inf leaves a gap. `style` is a class of report.css.

    `dots` marks every point, since evaluations are few among many steps.
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
    """Positions, from the top left corner, and labels of a chart that the template draws as SVG.

    None where no curve has a finite point. `level` is the value of a dashed horizontal line,
    `vertical` the place of a dashed vertical one if that is within the chart; `x_format` formats
    the ends of the horizontal axis.
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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not abs(value) > LARGEST


def _finite(point: Point) -> bool:
    return all(map(math.isfinite, point))

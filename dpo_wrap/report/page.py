"""report.html: a run's verdict, figures, charts, samples and config on one self-contained page.

The template report.html.jinja decides what is shown where, with the filters defined below, which
take any JSON value: what is missing or damaged in the run directory is left out of the page.
"""

import math
import re
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from dpo_wrap import run_dir
from dpo_wrap.files import write_atomically
from dpo_wrap.report.charts import Curve, line_chart, outline
from dpo_wrap.report.run_files import (
    as_list,
    as_object,
    conversion_reports,
    read_lines,
    read_object,
    read_text,
)

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and surrogates, which UTF-8 cannot hold."""
EXCERPT = 5000
"""The most characters that are shown of a prompt or an answer."""
LARGEST = 1e15
"""Numbers beyond this are damage, and would overflow the geometry of a chart."""
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


def write_page(directory: Path, run: dict[str, Any] | None = None) -> None:
    """Write report.html into a run directory; raises OSError.

    `run` is the content of a run.json that is not written yet.
    """
    write_atomically(directory / run_dir.REPORT, page(directory, run))


def page(directory: Path, run: dict[str, Any] | None = None) -> str:
    """Return the HTML of the page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        undefined=ChainableUndefined,
    )
    filters = (objects, as_list, fields, rows, text, excerpt, number, estimate, percents)
    environment.filters |= {one.__name__: one for one in (*filters, is_below_chance)}
    html = environment.get_template("report.html.jinja").render(page_values(directory, run))
    return UNPRINTABLE.sub("\ufffd", html.lstrip())


def page_values(directory: Path, run: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the values of the template by name."""
    run = read_object(directory / run_dir.RUN) if run is None else run
    found = read_object(directory / run_dir.EVAL)
    warnings = _warnings(run)
    if found.get("steps") not in (None, run.get("steps")):
        warnings.append(
            f"eval.json was computed at step {text(found['steps'])}, and the run was trained "
            "further since; to update it, run python -m dpo_wrap.eval CONFIG"
        )
        found = {}
    paths = as_object(run, "config").get("dataset_path")
    paths = [paths] if isinstance(paths, str) else [text(path) for path in as_list(paths)]
    samples = read_lines(directory / run_dir.SAMPLES) if found else []
    return {
        "title": f"DPO run {'/'.join(directory.resolve().parts[-2:])}",
        "run": run,
        "found": found,
        "warnings": warnings,
        "conversions": {
            path: {name: report[name] for name in CONVERSION if report.get(name)}
            for path, report in conversion_reports(directory, paths).items()
        },
        "suspects": read_lines(directory / run_dir.SUSPECTS),
        "search": read_object(directory / run_dir.SUSPECTS_FIGURES),
        "margins": _margins_chart(as_object(found, "likelihood_margins")),
        "samples": sorted(samples, key=_is_unchanged),
        "unchanged": sum(map(_is_unchanged, samples)),
        "training": _training_charts(read_lines(directory / run_dir.METRICS)),
        "data": {name: value for name, value in fields(run.get("data")) if name != "fit"},
        "figures": {name: value for name, value in found.items() if name not in IN_SECTIONS},
        "config": read_text(directory / run_dir.CONFIG),
        "SUSPECT_KEYS": SUSPECT_KEYS,
    }


def _warnings(run: dict[str, Any]) -> list[str]:
    fault = as_object(run, "step_0").get("fault")
    warnings = [text(fault)] if fault else []
    for warning in as_list(run.get("warnings")):
        lines = as_list(as_object(warning).get("lines"))
        warnings.append("\n".join(map(text, lines)) if lines else text(warning))
    return warnings


def _is_unchanged(sample: dict[str, Any]) -> bool:
    return sample.get("policy") == sample.get("reference")


def _margins_chart(margins: dict[str, Any]) -> dict[str, Any] | None:
    edges = [as_float(edge) for edge in as_list(margins.get("edges"))]

    def curve(label: str, style: str, model: str) -> Curve:
        counts = [as_float(count) for count in as_list(margins.get(model))]
        return Curve(label, style, outline(edges, counts))

    curves = [curve("before training", "two", "reference"), curve("after", "one", "policy")]
    title = "log-probability, chosen minus rejected, nats"
    return line_chart(title, curves, level=0.0, vertical=0.0, x_format="{:.3g}")


def _training_charts(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def curve(label: str, style: str, name: str) -> Curve:
        lines = [line for line in metrics if name in line]
        points = [(as_float(line.get("step")), as_float(line[name])) for line in lines]
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


def objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list."""
    return [one for one in as_list(value) if isinstance(one, dict)]


def fields(value: Any) -> list[tuple[str, Any]]:
    """Return the names and values of an object."""
    return list(as_object(value).items())


def rows(figures: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return names and texts of an object and those within it; lists of objects are left out."""
    found = []
    for name, value in fields(figures):
        if isinstance(value, dict):
            found += rows(value, f"{prefix}{name} ")
        elif not objects(value):
            found.append((f"{prefix}{name}".replace("_", " "), text(value)))
    return found


def text(value: Any) -> str:
    """Return any JSON value as text."""
    if isinstance(value, list):
        return ", ".join("…" if isinstance(one, list) else text(one) for one in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "…"
    return "—" if value is None else str(value)


def excerpt(value: Any) -> str:
    """Return a prompt or an answer as text, cut to what a page can show."""
    whole = text(value).removeprefix(" ")  # the space that separates an answer from its prompt
    if len(whole) <= EXCERPT:
        return whole
    return f"{whole[:EXCERPT]} … ({len(whole):,} characters)"


def as_float(value: Any) -> float:
    """Return the value as a float, NaN where it is not a number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= LARGEST else math.nan


def number(value: Any, form: str) -> str:
    """Return the number in a format, "" where the value is not a number."""
    return "" if math.isnan(as_float(value)) else f"{as_float(value):{form}}"


def estimate(figures: Any, name: str, form: str) -> str:
    """Return a figure with its 95 % interval, if it has one: "0.95 [0.90, 0.98]"."""
    figures = as_object(figures)
    value = number(figures.get(name), form)
    bounds = [number(bound, form) for bound in as_list(figures.get(f"{name}_interval"))]
    return f"{value} [{', '.join(bounds)}]" if value and len(bounds) == 2 else value


def percents(shares: Any) -> list[str]:
    """Return shares in [0, 1] as lengths in SVG."""
    return [f"{100 * min(1.0, max(0.0, as_float(share))):.1f}%" for share in as_list(shares)]


def is_below_chance(figures: Any) -> bool:
    """Whether a group's labels are contradicted significantly more often than confirmed."""
    figures = as_object(figures)
    upper = [as_float(bound) for bound in as_list(figures.get("reward_accuracy_interval"))][1:]
    # A tie is no win, but does not contradict its label.
    ties = as_float(figures.get("ties")) / (as_float(figures.get("examples")) or math.nan)
    return bool(upper) and upper[0] < 0.5 and as_float(figures.get("reward_accuracy")) + ties < 0.5

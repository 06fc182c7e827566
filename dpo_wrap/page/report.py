"""report.html of a run directory: the verdict, figures, curves and samples on one page by itself.

Nothing is fetched and no script runs. Whatever is missing or cannot be read is left out.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpo_wrap.atomic import write_atomically
from dpo_wrap.page.curves import Curve, chart
from dpo_wrap.page.markup import Markup, joined, tag
from dpo_wrap.page.pieces import Pieces, a_dict, a_list, read_pieces

REPORT, STYLE = "report.html", Path(__file__).with_name("report.css")
SHOWN = 64
"""Samples on the page; samples.jsonl holds all."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_page(directory: Path, run: dict[str, Any] | None = None) -> None:
    """Write report.html; `run` stands for a run.json that is yet to be written. Raises OSError."""
    write_atomically(directory / REPORT, page(read_pieces(directory, run)))


def page(pieces: Pieces) -> str:
    """The whole page."""
    title = f"{pieces.name}: DPO run"
    head = joined(
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Markup(STYLE.read_text("utf-8"))),
    )
    parts = (
        tag("h1", title),
        _verdict(pieces),
        _tiles(pieces),
        _warnings(pieces),
        _section("Training", _curves(pieces.metrics)),
        _section("Evaluation", _evaluation(pieces)),
        _section("Samples", _samples(pieces)),
        _section("Data", _data(pieces)),
        _section("Versions", _table(pieces.run.get("versions"))),
        _section("Config", tag("pre", pieces.config) if pieces.config else ""),
    )
    body = tag("body", tag("main", *parts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'


def _verdict(pieces: Pieces) -> Markup:
    said = pieces.run.get("verdict") or "no finished run stands here"
    return tag("p", said, class_="verdict", dir="auto")


def _tiles(pieces: Pieces) -> Markup:
    run, found = pieces.run, _judged(pieces)
    figures, data = a_dict(run.get("figures")), a_dict(run.get("data"))
    pairs = "held-out" if found.get("split") == "test" else "eval"
    loss = [_number(figures.get(name), ".4f") for name in ("first_loss", "loss")]
    shown = [
        ("loss", " → ".join(loss) if all(loss) else ""),
        ("reward accuracy", _number(figures.get("reward_accuracy"), ".3f")),
        ("reward margin", _number(figures.get("reward_margin"), ".3f")),
        ("log-ratio chosen", _number(figures.get("chosen_log_ratio"), "+.2f", " nats")),
        ("log-ratio rejected", _number(figures.get("rejected_log_ratio"), "+.2f", " nats")),
        ("pairs trained on", _number(data.get("train"), ",")),
        ("steps", _number(run.get("steps"), ",")),
        ("time", _number(run.get("seconds"), ",.0f", " s")),
        (f"{pairs} accuracy", _bounded(found, "reward_accuracy", ".3f")),
        (f"{pairs} margin", _number(found.get("reward_margin"), ".3f")),
        ("KL a sequence", _bounded(found, "kl_per_sequence", ".2f", " nats")),
        ("length ratio", _number(found.get("length_ratio"), ".2f")),
    ]
    tiles = [tag("div", tag("span", name), tag("b", value)) for name, value in shown if value]
    return tag("div", *tiles, class_="tiles") if tiles else Markup()


def _warnings(pieces: Pieces) -> Markup:
    said = [str(fault)] if (fault := a_dict(pieces.run.get("step_0")).get("fault")) else []
    for warning in a_list(pieces.run.get("warnings")):
        lines = a_list(a_dict(warning).get("lines"))
        said.append("\n".join(map(str, lines)) if lines else str(warning))
    if pieces.found and not _judged(pieces):
        said.append(
            f"eval.json is of these weights after step {pieces.found['steps']}; evaluate again"
        )
    return joined(*(tag("p", line, class_="warning", dir="auto") for line in said))


def _curves(metrics: list[dict[str, Any]]) -> Markup:
    def curve(label: str, style: str, name: str) -> Curve:
        lines = [line for line in metrics if name in line]
        points = [(_float(line.get("step")), _float(line[name])) for line in lines]
        return Curve(label, style, points, dots=name.startswith("eval_"))

    def both(name: str) -> list[Curve]:
        return [curve("training", "one", name), curve("held out", "two", f"eval_{name}")]

    sides = (("chosen", "one"), ("rejected", "two"))
    answers = [curve(side, style, f"rewards/{side}") for side, style in sides]
    charts = (
        chart("loss", both("loss"), level=math.log(2)),
        chart("reward accuracy", both("rewards/accuracies"), level=0.5),
        chart("reward margin", both("rewards/margins"), level=0.0),
        chart("rewards", answers, level=0.0),
    )
    return tag("div", *charts, class_="charts") if any(charts) else Markup()


def _evaluation(pieces: Pieces) -> Markup:
    figures = {name: value for name, value in _judged(pieces).items() if name != "slices"}
    slices = {path: a_dict(value) for path, value in a_dict(pieces.found.get("slices")).items()}
    return joined(_table(figures), _columns(slices) if figures else "")


def _samples(pieces: Pieces) -> Markup:
    if not _judged(pieces):
        return Markup()
    shown = [_sample(sample) for sample in pieces.samples[:SHOWN]]
    rest = len(pieces.samples) - len(shown)
    return joined(*shown, tag("p", f"{rest:,} more in samples.jsonl") if rest else "")


def _sample(sample: dict[str, Any]) -> Markup:
    answers = [
        tag("div", tag("small", who), _said(sample[who]))
        for who in ("reference", "policy")
        if who in sample
    ]
    prompt = joined(tag("small", "prompt"), _said(sample.get("prompt", "")))
    return tag("article", prompt, tag("div", *answers, class_="answers"))


def _said(words: Any) -> Markup:
    # Set apart, so that marks of direction in the text turn nothing else of the page round.
    return tag("p", words, class_="said", dir="auto")


def _data(pieces: Pieces) -> Markup:
    data = dict(a_dict(pieces.run.get("data")))
    fits = {split: a_dict(fit) for split, fit in a_dict(data.pop("fit", None)).items()}
    notes = map(_said, a_list(pieces.run.get("notes")))
    parts = [_table(data), *notes, _columns(fits)]
    if fits:
        parts.append(tag("small", "pairs; lengths in tokens: at 50, 95, 99 % and the longest"))
    for path, report in pieces.conversions.items():
        parts += [tag("h3", f"converted: {path}"), _table(report)]
    return joined(*parts)


def _judged(pieces: Pieces) -> dict[str, Any]:
    """eval.json where it is of these weights, not of those before the run was gone on with."""
    steps = pieces.found.get("steps")
    return pieces.found if steps is None or steps == pieces.run.get("steps") else {}


def _section(title: str, inside: str) -> Markup:
    return tag("section", tag("h2", title), inside) if inside else Markup()


def _table(figures: Any) -> Markup:
    """Names and values, groups of them spelled out."""
    rows = [tag("tr", tag("th", n, scope="row"), tag("td", v)) for n, v in _flat(a_dict(figures))]
    return tag("div", tag("table", *rows), class_="wide") if rows else Markup()


def _columns(groups: dict[str, dict[str, Any]]) -> Markup:
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


def _flat(figures: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name} ")
        else:
            yield f"{before}{name}".replace("_", " "), _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "—" if value is None else str(value)


def _number(value: Any, form: str, unit: str = "") -> str:
    """Empty for what is no number; a count is shown as one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return f"{value:{form}}{unit}"


def _bounded(found: dict[str, Any], name: str, form: str, unit: str = "") -> str:
    """A figure of eval.json with its 95 % interval, where it has one."""
    bounds = [_number(bound, form) for bound in a_list(found.get(f"{name}_interval"))]
    spread = f" [{', '.join(bounds)}]" if len(bounds) == 2 else ""
    value = _number(found.get(name), form, unit)
    return value and value + spread


def _float(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else math.nan

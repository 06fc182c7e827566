"""report.html of a run directory: the verdict, figures, charts and samples on one page by itself.

Nothing is fetched and no script runs. Whatever is missing or cannot be read is left out.
"""

import math
from pathlib import Path
from typing import Any

from dpo_wrap.atomic import write_atomically
from dpo_wrap.page import evaluation
from dpo_wrap.page.curves import Curve, chart
from dpo_wrap.page.evaluation import judged, said
from dpo_wrap.page.markup import Markup, joined, tag
from dpo_wrap.page.pieces import Pieces, a_dict, a_list, read_pieces
from dpo_wrap.page.tables import a_float, bounded, columns, number, table

REPORT, STYLE = "report.html", Path(__file__).with_name("report.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
WORDS = (
    ("policy", "the model that was trained"),
    ("reference", "the model that training started from, and is held near to"),
    (
        "reward",
        "beta times how much more likely the policy finds an answer than the reference does; the "
        "margin is that of the chosen answer less that of the rejected one",
    ),
    ("reward accuracy", "the share of pairs whose margin is above 0"),
    ("log-ratio", "log-probability of an answer under the policy less under the reference, nats"),
    ("KL", "how far the policy has moved, measured on its own answers; 0 is not at all"),
    ("held out", "pairs of prompts that were not trained on"),
)


def write_page(directory: Path, run: dict[str, Any] | None = None) -> None:
    """Write report.html; `run` stands for a run.json that is yet to be written. Raises OSError."""
    write_atomically(directory / REPORT, page(read_pieces(directory, run)))


def page(pieces: Pieces) -> str:
    """The whole page."""
    title = f"DPO run {pieces.name}"
    head = joined(
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Markup(STYLE.read_text("utf-8"))),
    )
    found = judged(pieces)
    parts = (
        tag("h1", title),
        _verdict(pieces),
        evaluation.findings(found),
        _warnings(pieces),
        _tiles(pieces),
        _section("Does it prefer as people did?", evaluation.preferences(found)),
        _section("How far did it move?", evaluation.distance(found)),
        _section("Judged by others", evaluation.verdicts(found)),
        _section("Samples", evaluation.samples(pieces)),
        _section("Labels to look at", evaluation.suspects(pieces)),
        _section("Training", _curves(pieces.metrics)),
        _section("Data", _data(pieces)),
        _section("Words", _words() if found or pieces.metrics else ""),
        _section("Figures", evaluation.all_figures(found)),
        _section("Versions", table(pieces.run.get("versions"))),
        _section("Config", tag("pre", pieces.config) if pieces.config else ""),
    )
    body = tag("body", tag("main", *parts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'


def _verdict(pieces: Pieces) -> Markup:
    verdict = str(pieces.run.get("verdict") or "no finished run stands here")
    first, stop, rest = verdict.partition(". ")
    inside = joined(tag("b", first + stop.strip()), tag("span", rest) if rest else "")
    return tag("p", inside, class_="verdict", dir="auto")


def _tiles(pieces: Pieces) -> Markup:
    run, found = pieces.run, judged(pieces)
    figures, data = a_dict(run.get("figures")), a_dict(run.get("data"))
    pairs = "held-out" if found.get("split") == "test" else "eval"
    loss = [number(figures.get(name), ".4f") for name in ("first_loss", "loss")]
    shown = [
        (f"{pairs} accuracy", bounded(found, "reward_accuracy", ".3f")),
        (f"{pairs} margin", number(found.get("reward_margin"), ".3f")),
        ("KL a sequence", bounded(found, "kl_per_sequence", ".2f", " nats")),
        ("length ratio", number(found.get("length_ratio"), ".2f")),
        ("win rate", bounded(a_dict(found.get("win_rate")), "win_rate", ".3f")),
        ("loss", " → ".join(loss) if all(loss) else ""),
        ("reward accuracy", number(figures.get("reward_accuracy"), ".3f")),
        ("reward margin", number(figures.get("reward_margin"), ".3f")),
        ("log-ratio chosen", number(figures.get("chosen_log_ratio"), "+.2f", " nats")),
        ("log-ratio rejected", number(figures.get("rejected_log_ratio"), "+.2f", " nats")),
        ("pairs trained on", number(data.get("train"), ",")),
        ("steps", number(run.get("steps"), ",")),
        ("time", number(run.get("seconds"), ",.0f", " s")),
    ]
    tiles = [_tile(name, value) for name, value in shown if value]
    return tag("div", *tiles, class_="tiles") if tiles else Markup()


def _tile(name: str, value: str) -> Markup:
    figure, bracket, bounds = value.partition(" [")
    spread = tag("small", bracket.strip() + bounds) if bounds else ""
    return tag("div", tag("span", name), tag("b", figure), spread)


def _warnings(pieces: Pieces) -> Markup:
    told = [str(fault)] if (fault := a_dict(pieces.run.get("step_0")).get("fault")) else []
    for warning in a_list(pieces.run.get("warnings")):
        lines = a_list(a_dict(warning).get("lines"))
        told.append("\n".join(map(str, lines)) if lines else str(warning))
    if pieces.found and not judged(pieces):
        told.append(
            f"eval.json is of these weights after step {pieces.found['steps']}; evaluate again"
        )
    return joined(*(tag("p", line, class_="warning", dir="auto") for line in told))


def _curves(metrics: list[dict[str, Any]]) -> Markup:
    def curve(label: str, style: str, name: str) -> Curve:
        lines = [line for line in metrics if name in line]
        points = [(a_float(line.get("step")), a_float(line[name])) for line in lines]
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
    if not any(charts):
        return Markup()
    note = (
        "Dashed: the loss of a policy that prefers nothing (ln 2), a coin, and nought. That both "
        "rewards fall is usual; what the loss asks for is the gap between them."
    )
    return joined(tag("p", note, class_="note"), tag("div", *charts, class_="charts"))


def _data(pieces: Pieces) -> Markup:
    data = dict(a_dict(pieces.run.get("data")))
    fits = {split: a_dict(fit) for split, fit in a_dict(data.pop("fit", None)).items()}
    notes = map(said, a_list(pieces.run.get("notes")))
    parts = [table(data), *notes, columns(fits)]
    if fits:
        parts.append(tag("small", "pairs; lengths in tokens: at 50, 95, 99 % and the longest"))
    for path, report in pieces.conversions.items():
        parts += [tag("h3", f"converted: {path}"), table(report)]
    return joined(*parts)


def _words() -> Markup:
    terms = (joined(tag("dt", word), tag("dd", meaning)) for word, meaning in WORDS)
    inside = tag("dl", *terms)
    return tag("details", tag("summary", "what the words mean"), inside)


def _section(title: str, inside: str) -> Markup:
    return tag("section", tag("h2", title), inside) if inside else Markup()

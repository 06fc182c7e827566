"""report.html of a run directory: the verdict, figures, charts and samples on one page by itself.

Nothing is fetched and no script runs. Whatever is missing or cannot be read is left out.
"""

import math
from pathlib import Path
from typing import Any

from dpo_wrap.files import write_atomically
from dpo_wrap.report import eval_sections as evaluation
from dpo_wrap.report.curves import Curve, chart
from dpo_wrap.report.eval_sections import judged, said
from dpo_wrap.report.markup import Markup, joined, tag
from dpo_wrap.report.run_files import Pieces, a_dict, a_list, read_pieces
from dpo_wrap.report.tables import a_float, bounded, columns, number, table
from dpo_wrap.run_dir import REPORT

STYLE = Path(__file__).with_name("report.css")
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
    ("token", "a piece of text as the model reads it, a word or less"),
    ("nat", "the unit of log-probabilities: an answer 1 nat likelier is 2.7 times as likely"),
    ("beta", "how strongly the policy is held to its reference; lower lets it move further"),
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
        _left_out(pieces),
        _warnings(pieces),
        _tiles(pieces),
        _section("Does it prefer as people did?", evaluation.preferences(found)),
        _section("Labels to look at", evaluation.suspects(pieces)),
        _section("How far did it move?", evaluation.distance(found)),
        _section("Judged by others", evaluation.verdicts(found)),
        _section("Samples", evaluation.samples(pieces)),
        _section("Training", _curves(pieces.metrics)),
        _section("Data", _data(pieces)),
        _section("More", _more(pieces, found)),
    )
    body = tag("body", tag("main", *parts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'


def _verdict(pieces: Pieces) -> Markup:
    """What came out, by the held-out pairs where they were evaluated, then how training went."""
    training = str(pieces.run.get("verdict") or "no finished run stands here")
    first = a_dict(next(iter(a_list(judged(pieces).get("findings"))), None))
    colour = {"good": " good", "warning": " bad"}.get(str(first.get("tone")), "")
    if first.get("text"):
        head = tag("b", evaluation.sentence(first["text"]))
        inside = joined(head, tag("span", f"Training {training}"))
    else:
        head, stop, rest = training.partition(". ")
        inside = joined(tag("b", head + stop.strip()), tag("span", rest) if rest else "")
    return tag("p", inside, class_=f"verdict{colour}", dir="auto")


def _left_out(pieces: Pieces) -> Markup:
    """What the conversion could not use, in a sentence for each dataset."""
    lines = []
    for path, report in pieces.conversions.items():
        read, kept = (
            a_dict(report.get(n)).get(w) for n, w in (("records", "read"), ("pairs", "kept"))
        )
        reasons = a_dict(report.get("reasons"))
        if reasons and number(read, ",") and number(kept, ","):
            said_of = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in reasons.items())
            lines.append(f"{path}: {read:,} records read, {kept:,} pairs kept; left out: {said_of}")
    return joined(*(tag("p", line, class_="note", dir="auto") for line in lines))


def _tiles(pieces: Pieces) -> Markup:
    run, found = pieces.run, judged(pieces)
    figures, data = a_dict(run.get("figures")), a_dict(run.get("data"))
    pairs = "held-out" if found.get("split") == "test" else "eval"
    loss = [number(figures.get(name), ".4f") for name in ("first_loss", "loss")]
    shown = [
        (f"{pairs} accuracy", bounded(found, "reward_accuracy", ".3f")),
        (f"{pairs} margin", bounded(found, "reward_margin", ".3f")),
        ("KL, nats an answer", bounded(found, "kl_per_sequence", ".2f")),
        ("length ratio", bounded(found, "length_ratio", ".2f")),
        ("win rate", bounded(a_dict(found.get("win_rate")), "win_rate", ".3f")),
        ("training loss", " → ".join(loss) if all(loss) else ""),
        ("training accuracy", number(figures.get("reward_accuracy"), ".3f")),
        ("training margin", number(figures.get("reward_margin"), ".3f")),
        ("training log-ratio, chosen", number(figures.get("chosen_log_ratio"), "+.2f")),
        ("training log-ratio, rejected", number(figures.get("rejected_log_ratio"), "+.2f")),
        ("pairs trained on", number(data.get("train"), ",")),
        ("steps, seconds", _steps(run)),
    ]
    tiles = [_tile(name, value) for name, value in shown if value]
    return tag("div", *tiles, class_="tiles") if tiles else Markup()


def _steps(run: dict[str, Any]) -> str:
    return ", ".join(
        filter(None, (number(run.get("steps"), ","), number(run.get("seconds"), ",.0f")))
    )


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
        "Dashed: where a policy stands that prefers nothing, a loss of ln 2 = 0.69, an accuracy of "
        "50 % and a margin of 0. What the loss asks for is the gap between the two rewards; both "
        "may fall."
    )
    return joined(tag("p", note, class_="note"), tag("div", *charts, class_="charts"))


def _data(pieces: Pieces) -> Markup:
    data = dict(a_dict(pieces.run.get("data")))
    fits = {split: a_dict(fit) for split, fit in a_dict(data.pop("fit", None)).items()}
    said_of = {
        split: {name: value for name, value in fit.items() if value not in (0, "", False)}
        for split, fit in fits.items()
    }
    notes = map(said, a_list(pieces.run.get("notes")))
    parts = [table(data), *notes, columns(said_of)]
    if fits:
        parts.append(tag("small", "pairs; lengths in tokens: at 50, 95, 99 % and the longest"))
    for path, report in pieces.conversions.items():
        parts += [tag("h3", f"converted: {path}"), table(report)]
    return joined(*parts)


def _more(pieces: Pieces, found: dict[str, Any]) -> Markup:
    """What few will look for, folded."""
    folds = (
        ("what the words mean", _words() if found or pieces.metrics else ""),
        ("every figure of eval.json", evaluation.all_figures(found)),
        ("versions", table(pieces.run.get("versions"))),
        ("config", tag("pre", pieces.config) if pieces.config else ""),
    )
    return joined(
        *(tag("details", tag("summary", name), inside) for name, inside in folds if inside)
    )


def _words() -> Markup:
    return tag("dl", *(joined(tag("dt", word), tag("dd", means)) for word, means in WORDS))


def _section(title: str, inside: str) -> Markup:
    return tag("section", tag("h2", title), inside) if inside else Markup()

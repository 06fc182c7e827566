"""The parts of the page that eval and suspects know of: findings, charts, samples, suspects."""

import dataclasses
import math
from typing import Any

from dpo_wrap.report.bars import Bar, bars, distribution
from dpo_wrap.report.markup import Markup, joined, tag
from dpo_wrap.report.run_files import Pieces, a_dict, a_list
from dpo_wrap.report.tables import a_float, bounded, number, rows, table

OPEN, SHOWN, SUSPECTS = 8, 64, 30
"""Samples that are seen at once, samples and suspects on the page; the files hold all."""
CLIPPED = 5000
"""Characters of a text on the page."""
APART = {"slices", "groups", "metrics", "baselines", "length_matched", "calibration"}
APART |= {"likelihood_margins", "against_label", "findings", "against", "win_rate"}
"""What eval.json holds that has a place of its own."""
KNOWN = {"source", "reward_margin", "probability", "split", "prompt", "chosen", "rejected"}


def judged(pieces: Pieces) -> dict[str, Any]:
    """eval.json where it is of these weights, not of those before the run was gone on with."""
    steps = pieces.found.get("steps")
    return pieces.found if steps is None or steps == pieces.run.get("steps") else {}


def findings(found: dict[str, Any]) -> Markup:
    """The sentences that say what the figures mean, but for the first, which is the headline."""
    lines = [
        tag("li", sentence(one.get("text", "")), class_=_tone(one), dir="auto")
        for one in map(a_dict, a_list(found.get("findings"))[1:])
    ]
    return tag("ul", *lines, class_="findings") if lines else Markup()


def _tone(finding: dict[str, Any]) -> str:
    tone = finding.get("tone")
    return tone if tone in ("good", "warning") else "neutral"


def sentence(text: Any) -> str:
    """The text with a capital."""
    text = str(text)
    return text[:1].upper() + text[1:]


def preferences(found: dict[str, Any]) -> Markup:
    """Accuracy beside what scores without training, by length, by group and by confidence."""
    matched, rules = a_dict(found.get("length_matched")), a_dict(found.get("baselines"))
    first = a_dict(found.get("first_answer"))
    named = [
        _bar("this policy", found, "reward_accuracy", "one"),
        _bar("at like lengths", matched, "accuracy", "one"),
        _bar("before training", a_dict(rules.get("reference")), "accuracy"),
        _bar("always longer (tokens)", a_dict(rules.get("longer")), "accuracy"),
        _bar("always first shown", first, "accuracy"),
        _bar("annotators agree", a_dict(found.get("ceiling")), "share"),
    ]
    charts = joined(
        bars("right about which answer was chosen", named, level=0.5),
        *(_group(name, a_dict(values)) for name, values in a_dict(found.get("groups")).items()),
        _group("dataset", a_dict(found.get("slices"))),
        _lengths(matched),
        _calibration(a_dict(found.get("calibration"))),
    )
    if not charts:
        return Markup()
    note = (
        "The dashed line is 50 %, guessing. Whiskers are 95 % intervals, wider where several pairs "
        "share a prompt; numbers in brackets count pairs. At like lengths: of pairs whose answers "
        "differ alike in length, those with the longer one chosen weigh as much as those with the "
        "shorter one, so that a mere taste for length scores 50 %. Red is surely below guessing."
    )
    return joined(tag("p", note, class_="note"), tag("div", charts, class_="charts"))


def _bar(label: str, figures: dict[str, Any], name: str, style: str = "flat") -> Bar:
    bounds = [a_float(bound) for bound in a_list(figures.get(f"{name}_interval"))]
    pair = (bounds[0], bounds[1]) if len(bounds) == 2 else None
    return Bar(label, a_float(figures.get(name)), pair, style)


def _lengths(matched: dict[str, Any]) -> Markup:
    given = []
    for one in map(a_dict, a_list(matched.get("bins"))):
        low, high = number(one.get("from"), ".3g"), number(one.get("to"), ".3g")
        size = f"{low}–{high} x" if high else f"over {low} x"
        for side in ("longer", "shorter"):
            value = a_float(one.get(f"accuracy_where_{side}"))
            count = _count(one.get(f"chosen_{side}"))
            given.append(Bar(f"{size} {side}{count}", value, None, "one"))
    return bars("right where the chosen answer is", given, level=0.5)


def _calibration(found: dict[str, Any]) -> Markup:
    given = []
    for one in map(a_dict, a_list(found.get("bins"))):
        sure, pairs = number(one.get("confidence"), ".0%"), number(one.get("pairs"), ",")
        given.append(Bar(f"{sure} sure ({pairs})", a_float(one.get("accuracy")), None, "one"))
    return bars("right when its margins say that it is", given, level=0.5)


def _group(name: str, values: dict[str, Any]) -> Markup:
    given = []
    for value, figures in values.items():
        one = a_dict(figures)
        bar = _bar(f"{value}{_count(one.get('examples'))}", one, "reward_accuracy", "one")
        tied = a_float(one.get("ties")) / a_float(one.get("examples") or math.nan)
        below = bar.bounds is not None and bar.bounds[1] < 0.5 and bar.value + tied < 0.5
        given.append(dataclasses.replace(bar, style="bad") if below else bar)
    return bars(f"right by {name}", given, level=0.5)


def _count(pairs: Any) -> str:
    count = number(pairs, ",")
    return f" ({count})" if count else ""


def distance(found: dict[str, Any]) -> Markup:
    """How far the policy went from its reference: likelihood margins, KL, and how it writes."""
    margins = a_dict(found.get("likelihood_margins"))
    counts = {
        label: (style, [a_float(n) for n in a_list(margins.get(name))])
        for name, label, style in (
            ("reference", "before training", "two"),
            ("policy", "after", "one"),
        )
    }
    edges = [a_float(edge) for edge in a_list(margins.get("edges"))]
    figures = [
        ("KL, nats an answer", bounded(found, "kl_per_sequence", ".2f")),
        ("KL, nats a token", bounded(found, "kl_per_token", ".3f")),
        ("length of its answers over those before", bounded(found, "length_ratio", ".2f")),
    ]
    changes = []
    for name, change in a_dict(found.get("metrics")).items():
        one = a_dict(change)
        both = [number(one.get(who), ".3f") for who in ("reference", "policy")]
        changes += [[name, *both, bounded(one, "change", "+.3f")]] if all(both) else []
    for name, label in (
        ("eos_rate", "end by themselves"),
        ("distinct_1", "distinct tokens"),
        ("distinct_2", "distinct pairs of tokens"),
    ):
        one = a_dict(found.get(name))
        both = [number(one.get(who), ".1%") for who in ("reference", "policy")]
        changes += [[label, *both, ""]] if all(both) else []
    parts = joined(
        distribution("how much likelier chosen is than rejected, nats", edges, counts),
        tag(
            "div",
            rows(["of the answers", "before", "after", "change"], changes),
            rows(["distance", ""], [[name, value] for name, value in figures if value]),
        ),
    )
    if not changes and not any(value for _, value in figures) and "<svg" not in parts:
        return Markup()
    note = (
        "Left: how many pairs (upwards) lie where; to the right of 0 the chosen answer is the "
        "likelier one. The outermost steps hold all that lies beyond. Distance is 0 for a policy "
        "that writes as it did before training; a few nats an answer are usual."
    )
    return joined(tag("p", note, class_="note"), tag("div", parts, class_="charts"))


def verdicts(found: dict[str, Any]) -> Markup:
    """The win rate that judges gave, where there is one, and the comparison with another run."""
    parts = [table(found["win_rate"])] if a_dict(found.get("win_rate")) else []
    against = a_dict(found.get("against"))
    lines = []
    for name, figures in a_dict(against.get("differences")).items():
        one = a_dict(figures)
        here, there = (number(one.get(side), ".3f") for side in ("here", "there"))
        by = bounded(one, "difference", "+.3f")
        lines.append([name.replace("_", " "), here, there, by, number(one.get("examples"), ",")])
    if lines:
        head = ["", "this run", "the other", "difference", "examples"]
        parts += [tag("h3", f"against {against.get('run', '')}"), rows(head, lines)]
    return joined(*parts)


def all_figures(found: dict[str, Any]) -> Markup:
    """The rest of eval.json."""
    return table({name: value for name, value in found.items() if name not in APART})


def samples(pieces: Pieces) -> Markup:
    """Answers of both models to the same prompts, side by side, those that differ first."""
    if not judged(pieces) or not pieces.samples:
        return Markup()
    same = [one for one in pieces.samples if one.get("policy") == one.get("reference")]
    apart = [one for one in pieces.samples if one.get("policy") != one.get("reference")]
    note = (
        f"Both models drew with the same dice; {len(same):,} of {len(pieces.samples):,} answers "
        "came out the same and stand last."
    )
    shown = [_sample(sample) for sample in [*apart, *same][:SHOWN]]
    rest = len(pieces.samples) - len(shown)
    more = joined(*shown[OPEN:], tag("p", f"{rest:,} more in samples.jsonl") if rest else "")
    folded = tag("details", tag("summary", f"{len(shown[OPEN:])} more"), more) if more else ""
    return joined(tag("p", note, class_="note"), *shown[:OPEN], folded)


def _sample(sample: dict[str, Any]) -> Markup:
    answers = [
        tag("div", tag("small", label), said(sample[who]))
        for who, label in (("reference", "before (reference)"), ("policy", "after (policy)"))
        if who in sample
    ]
    prompt = joined(tag("small", "prompt"), said(sample.get("prompt", "")))
    return tag("article", prompt, tag("div", *answers, class_="answers"))


def suspects(pieces: Pieces) -> Markup:
    """The pairs that speak most against their label, and where they stand."""
    if pieces.suspects:
        shown, rest = pieces.suspects[:SUSPECTS], len(pieces.suspects) - SUSPECTS
        of = number(pieces.search.get("pairs"), ",")
        note = (
            f"{len(pieces.suspects):,}{f' of {of}' if of else ''} pairs where a policy that was "
            "not trained on the pair clearly prefers the other answer, the strongest first. Some "
            "will be its mistakes and not the label's. What a person finds wrong is left out by "
            "convert's option --exclude-rows."
        )
    else:
        shown, rest = a_list(judged(pieces).get("against_label")), 0
        note = (
            "The evaluated pairs on which the policy disagrees most with the label. For those it "
            "was trained on: python -m dpo_wrap.suspects CONFIG."
        )
    if not shown:
        return Markup()
    crowds = [tag("p", line, class_="warning") for line in a_list(pieces.search.get("crowds"))]
    parts = [_suspect(a_dict(one)) for one in shown]
    more = joined(*parts[OPEN:], tag("p", f"{rest:,} more in suspects.jsonl") if rest > 0 else "")
    folded = tag("details", tag("summary", f"{len(parts[OPEN:])} more"), more) if more else ""
    return joined(tag("p", note, class_="note"), *crowds, *parts[:OPEN], folded)


def _suspect(pair: dict[str, Any]) -> Markup:
    place = f"{pair.get('source') or 'no place'}, margin {number(pair.get('reward_margin'), '.2f')}"
    place += "".join(f", {name} {value}" for name, value in pair.items() if name not in KNOWN)
    answers = [
        tag("div", tag("small", label), said(pair.get(side, "")))
        for side, label in (("chosen", "labelled better"), ("rejected", "labelled worse"))
    ]
    prompt = joined(tag("small", place), said(pair.get("prompt", "")))
    return tag("article", prompt, tag("div", *answers, class_="answers"))


def said(words: Any) -> Markup:
    """Text of data or a model, set apart so that marks of direction in it turn nothing round."""
    # An answer begins with the space that parts it from its prompt.
    text = str(words).removeprefix(" ")
    shown = text if len(text) <= CLIPPED else f"{text[:CLIPPED]} … ({len(text):,} characters)"
    return tag("p", shown, class_="said", dir="auto")

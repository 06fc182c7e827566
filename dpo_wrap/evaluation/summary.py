"""An evaluation's figures and findings as lines for a terminal."""

from typing import Any

MARKS = {"good": "+", "warning": "!"}


def summary(figures: dict[str, Any]) -> list[str]:
    """The figures as a table, then groups, the comparison with another run and the findings."""
    lines = _aligned([*_pair_rows(figures), *_answer_rows(figures)])
    for column, values in [("dataset", figures["slices"]), *figures["groups"].items()]:
        lines += [f"{column} {value}: {_group(group)}" for value, group in values.items()]
    if figures.get("against"):
        lines += ["", *_against(figures["against"])]
    lines += ["", "intervals are 95 %; a log-ratio is policy over reference, without beta", ""]
    return lines + [f"{MARKS.get(f['tone'], ' ')} {f['text']}" for f in figures["findings"]] + [""]


def _pair_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    pairs, baselines = f"{figures['examples']:,} of {figures['prompts']:,}", figures["baselines"]
    matched, calibration = figures["length_matched"], figures["calibration"]
    rows = [
        ("held-out pairs" if figures["split"] == "test" else "pairs", f"{pairs} prompts"),
        ("reward accuracy", bounded(figures, "reward_accuracy")),
        ("reward margin", bounded(figures, "reward_margin")),
        ("log-ratio chosen", f"{figures['chosen_log_ratio']:+.2f} nats"),
        ("log-ratio rejected", f"{figures['rejected_log_ratio']:+.2f} nats"),
        ("ties (no wins)", f"{figures['ties']:,}"),
        ("  always longer", bounded(baselines["longer"], "accuracy")),
        ("  reference", bounded(baselines["reference"], "accuracy")),
    ]
    if first := figures["first_answer"]:
        rows.append(("  always first", f"{first['accuracy']:.3f} of {first['pairs']:,} as shown"))
    if ceiling := figures["ceiling"]:
        text = f"{ceiling['share']:.3f} agree with the majority of the others: the ceiling"
        rows.append(("  annotators", text))
    error, loss = calibration["ece"], calibration["log_loss"]
    return [
        *rows,
        ("length-matched", f"{bounded(matched, 'accuracy')} over {matched['pairs']:,} pairs"),
        ("calibration", f"error {error:.3f}, log loss {loss:.4f}"),
    ]


def _answer_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    if not figures["samples"]:
        return []
    changes = {
        "ended by itself": figures["eos_rate"],
        "distinct 1-grams": figures["distinct_1"],
        "distinct 2-grams": figures["distinct_2"],
        **figures["metrics"],
    }
    rows = [
        ("sampled answers", f"{figures['samples']:,} of each model"),
        ("KL per sequence", f"{bounded(figures, 'kl_per_sequence', '.2f')} nats"),
        ("KL per token", f"{bounded(figures, 'kl_per_token')} nats"),
        ("length ratio", bounded(figures, "length_ratio", ".2f")),
    ]
    for name, both in changes.items():
        text = f"{_number(both['reference'])} -> {_number(both['policy'])}"
        if "change" in both:
            text += f", change {bounded(both, 'change', '+.3f')}"
        rows.append((name, text))
    return rows


def _against(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, figures in found["differences"].items():
        bounds = figures["difference_interval"]
        differs = bounds is not None and not bounds[0] <= 0 <= bounds[1]
        text = (
            f"{figures['here']:.3f} and {figures['there']:.3f}, difference "
            f"{bounded(figures, 'difference', '+.3f')} over {figures['examples']:,}"
        )
        rows.append(
            (
                f"  {name.replace('_', ' ')}",
                text + ("" if differs else ": not distinguishable from 0"),
            )
        )
    return [f"this run and {found['run']}, on the same rows:", *_aligned(rows)]


def win_rate(found: dict[str, Any]) -> list[str]:
    """The win rate that judges gave, what it is made of, and their position bias."""
    ignored = {
        "judged in one order only": found["one_order"],
        "not judged": found["unjudged"],
        "empty verdicts": found["no_verdict"],
        "verdicts on other answers": found["foreign"],
    }
    rows = [
        ("win rate", f"{bounded(found, 'win_rate')} over {found['pairs']:,} prompts"),
        ("pairs", f"{found['wins']:,} won, {found['losses']:,} lost, {found['ties']:,} tied"),
        (
            "ties",
            f"{found['inconsistent']:,} with another verdict in the other order, "
            f"{found['identical']:,} with identical answers",
        ),
        ("position", f"{bounded(found, 'position_bias')} of the verdicts name the first answer"),
    ]
    rows += [("not counted", f"{count:,} {name}") for name, count in ignored.items() if count]
    return _aligned(rows)


def bounded(figures: dict[str, Any], name: str, form: str = ".3f") -> str:
    """A figure with its 95 % interval, if it has one."""
    bounds = figures.get(f"{name}_interval")
    interval = f"  [{bounds[0]:{form}}, {bounds[1]:{form}}]" if bounds else ""
    return f"{_number(figures[name], form)}{interval}"


def _number(value: float | None, form: str = ".3f") -> str:
    return "none" if value is None else f"{value:{form}}"


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _group(figures: dict[str, Any]) -> str:
    if not figures["examples"]:
        return "no pairs in this split"
    accuracy = bounded(figures, "reward_accuracy")
    margin = f"margin {figures['reward_margin']:.3f}"
    return f"{figures['examples']:,} pairs, reward accuracy {accuracy}, {margin}"

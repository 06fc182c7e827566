"""What an evaluation found, as lines for a terminal."""

from typing import Any

SHOWN, CLIPPED = 2, 200
"""Samples on the screen, and characters of each; samples.jsonl holds all."""


def summary(found: dict[str, Any], samples: list[dict[str, Any]]) -> list[str]:
    """The figures as a table, what stands beside them, and two samples."""
    rows = [*_preferences(found), *_beside(found)]
    if samples:
        rows += _answers(found)
    for name, change in found["metrics"].items():
        figures = f"{change['reference']:.3f} -> {change['policy']:.3f}, change "
        rows.append((name, figures + bounded(change, "change", "+.3f")))
    lines = _aligned(rows)
    lines += [f"of {path}: {_slice(figures)}" for path, figures in found["slices"].items()]
    for column, groups in found["groups"].items():
        lines += [f"{column} {value}: {_slice(figures)}" for value, figures in groups.items()]
    if found.get("against"):
        lines += ["", *against(found["against"])]
    for sample in samples[:SHOWN]:
        lines += ["", f"prompt     {_one_line(sample['prompt'])[-CLIPPED:]}"]
        lines += [
            f"{who:<9}  {_one_line(sample[who])[:CLIPPED]}" for who in ("reference", "policy")
        ]
    lines += ["", "intervals are of 95 %; a log-ratio is policy over reference, without beta"]
    marks = {"good": "+", "warning": "!"}
    said = [f"{marks.get(one['tone'], ' ')} {one['text']}" for one in found["findings"]]
    return [*lines, "", *said, ""]


def _preferences(found: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = "held-out pairs" if found["split"] == "test" else "pairs"
    rows = [
        (pairs, f"{found['examples']:,} of {found['prompts']:,} prompts ({found['split']})"),
        ("reward accuracy", bounded(found, "reward_accuracy", ".3f")),
        ("reward margin", bounded(found, "reward_margin", ".3f")),
        ("log-ratio chosen", f"{found['chosen_log_ratio']:+.2f} nats"),
        ("log-ratio rejected", f"{found['rejected_log_ratio']:+.2f} nats"),
    ]
    if found["ties"]:
        rows.insert(2, ("ties (no wins)", f"{found['ties']:,}"))
    return rows


def _beside(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What the accuracy is to be read against."""
    rules = found["baselines"]
    rows = [("  always longer", bounded(rules["longer"], "accuracy", ".3f"))]
    if first := found["first_answer"]:
        rows.append(("  always first", f"{first['accuracy']:.3f} of {first['pairs']:,} as shown"))
    rows.append(("  reference", bounded(rules["reference"], "accuracy", ".3f")))
    if ceiling := found["ceiling"]:
        rows.append(
            (
                "  annotators",
                f"{ceiling['share']:.3f} agree with the majority of the others: the ceiling",
            )
        )
    matched = found["length_matched"]
    if matched["accuracy"] is None:
        rows.append(("length-matched", "no pairs of like lengths both ways"))
    else:
        text = f"{bounded(matched, 'accuracy', '.3f')} over {matched['pairs']:,} pairs"
        rows.append(("length-matched", text))
    calibration = found["calibration"]
    rows.append(
        ("calibration", f"error {calibration['ece']:.3f}, log loss {calibration['log_loss']:.4f}")
    )
    return rows


def _answers(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("sampled answers", f"{found['samples']:,} of each model"),
        ("KL a sequence", f"{bounded(found, 'kl_per_sequence', '.2f')} nats"),
        ("KL a token", f"{bounded(found, 'kl_per_token', '.3f')} nats"),
        ("length ratio", bounded(found, "length_ratio", ".2f")),
        *(
            (name, f"{_figure(both['reference'])} -> {_figure(both['policy'])}")
            for name, both in (("ended by itself", found["eos_rate"]), *_distinct(found))
        ),
    ]


def _distinct(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"distinct {n}-grams", found[f"distinct_{n}"]) for n in (1, 2)]


def against(found: dict[str, Any]) -> list[str]:
    """The paired differences, and which of them can be told from none."""
    lines = [f"against {found['run']}, on the same rows (here less there):"]
    rows = []
    for name, figures in found["differences"].items():
        bounds = figures["difference_interval"]
        told = bounds is not None and (bounds[0] > 0 or bounds[1] < 0)
        rows.append(
            (
                f"  {name.replace('_', ' ')}",
                f"{figures['here']:.3f} against {figures['there']:.3f}, difference "
                f"{bounded(figures, 'difference', '+.3f')} over {figures['examples']:,}"
                f"{'' if told else ': cannot be told from none'}",
            )
        )
    return lines + _aligned(rows)


def win_rate(found: dict[str, Any]) -> list[str]:
    """How often the judges took the policy's answer, and how far they can be trusted."""
    rows = [
        ("win rate", f"{bounded(found, 'win_rate', '.3f')} over {found['pairs']:,} prompts"),
        (
            "of these",
            f"{found['wins']:,} won, {found['losses']:,} lost, {found['ties']:,} tied, of which "
            f"{found['inconsistent']:,} by a judge who said otherwise in the other order and "
            f"{found['identical']:,} because both answers are the same",
        ),
    ]
    if found.get("position_bias") is not None:
        text = f"{bounded(found, 'position_bias', '.3f')} of the verdicts name the first answer"
        rows.append(("position", text))
    left = [
        (found["one_order"], "judged in one order alone"),
        (found["unjudged"], "not judged"),
        (found["no_verdict"], "verdicts empty"),
        (found["foreign"], "verdicts on other answers"),
    ]
    if any(count for count, _ in left):
        said = ", ".join(f"{count:,} {what}" for count, what in left if count)
        rows.append(("not counted", said))
    return _aligned(rows)


def bounded(found: dict[str, Any], name: str, form: str) -> str:
    """A figure with its 95 % interval, where it has one."""
    bounds = found.get(f"{name}_interval")
    spread = f"  [{bounds[0]:{form}}, {bounds[1]:{form}}]" if bounds else ""
    return f"{_figure(found[name], form)}{spread}"


def _figure(value: float | None, form: str = ".3f") -> str:
    return "none" if value is None else f"{value:{form}}"


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _slice(found: dict[str, Any]) -> str:
    if not found["examples"]:
        return "no pairs in this split"
    return (
        f"{found['examples']:,} pairs, reward accuracy {bounded(found, 'reward_accuracy', '.3f')}, "
        f"margin {found['reward_margin']:.3f}"
    )


def _one_line(text: str) -> str:
    """The text in one printable line: a model may write control characters."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))

"""What an evaluation's figures mean, in sentences with a tone, and its summary for a terminal."""

from collections.abc import Iterator
from typing import Any

from dpo_wrap.evaluation.reasons import reason_lines
from dpo_wrap.metrics.intervals import wilson

Finding = tuple[str, str]
"""(tone, sentence); the tone is good, neutral or warning."""

# KL in nats per token. The quickstart's policy ends at 0.04 with 93 % of its reviews well
# formed; at beta 0.3 and twice the learning rate it ends at 0.48, and half of its reviews are.
NEAR, FAR = 0.1, 0.3
SHORTCUT = 0.1
"""The loss of accuracy under length matching from which it is a warning."""
LONGER, SHORTER = 1.25, 0.8
"""Length ratios beyond which it is a warning."""
ENDS, REPEATS = 0.05, 0.05
"""Decreases of the shares of ended answers and of distinct token pairs that are a warning."""
ENOUGH = 20
"""Samples below which answers get no warning."""
MANY_TIES = 0.1
CHANCE = 0.5
MARKS = {"good": "+", "warning": "!"}


def findings(figures: dict[str, Any]) -> list[dict[str, str]]:
    """The findings, most important first; empty where no pairs were scored."""
    if not figures.get("examples"):
        return []
    return [
        {"tone": tone, "text": text}
        for part in (_accuracy, _win_rate, _groups, _length, _ceiling, _answers)
        for tone, text in part(figures)
    ]


def _accuracy(figures: dict[str, Any]) -> Iterator[Finding]:
    low, ties = figures["reward_accuracy_interval"][0], figures["ties"]
    pairs = _count(figures["examples"], "held-out pair" if figures["split"] == "test" else "pair")
    baselines = _baselines(figures)
    name, best = max(baselines.items(), key=lambda baseline: baseline[1])
    tone = "warning"
    if ties > MANY_TIES * figures["examples"]:
        comment = f"{ties:,} are ties, so it has hardly moved from its reference; train longer"
    elif contradicts_labels(figures):
        comment = "less than chance; check which answer the labels call chosen"
    elif low <= CHANCE:
        comment = "not distinguishable from chance; train longer or evaluate more pairs"
    elif low <= best:
        comment = (
            f"not clearly better than {name} ({best:.1%}); train longer or evaluate more pairs"
        )
    else:
        tone, comment = "good", f"the best baseline is {name} ({best:.1%})"
    accuracy = _share(figures, "reward_accuracy")
    yield tone, f"The policy prefers the chosen answer in {accuracy} of {pairs}: {comment}"
    if figures.get("caution"):
        yield "warning", figures["caution"]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _share(figures: dict[str, Any], name: str) -> str:
    low, high = figures[f"{name}_interval"]
    return f"{figures[name]:.1%} (95 % interval {low:.1%} to {high:.1%})"


def _baselines(figures: dict[str, Any]) -> dict[str, float]:
    """Accuracies that need no training."""
    found = figures["baselines"]
    named = {
        "choosing the answer that the reference finds likelier": found["reference"]["accuracy"],
        "always choosing the longer answer": found["longer"]["accuracy"],
        "always choosing the shorter answer": found["shorter"]["accuracy"],
    }
    if first := figures.get("first_answer"):
        named["always choosing the answer shown first"] = first["accuracy"]
        named["always choosing the answer shown last"] = 1 - first["accuracy"]
    return named


def contradicts_labels(figures: dict[str, Any]) -> bool:
    """Whether the policy contradicts most labels, beyond chance; ties contradict none."""
    bounds = figures.get("reward_accuracy_interval")
    if not bounds or bounds[1] >= CHANCE or figures["ties"] == figures["examples"]:
        return False
    decided = figures["examples"] - figures["ties"]
    return wilson(_losses(figures) / decided, decided)[0] > CHANCE


def _losses(figures: dict[str, Any]) -> int:
    wins = round(figures["reward_accuracy"] * figures["examples"])
    return figures["examples"] - figures["ties"] - wins


def _win_rate(figures: dict[str, Any]) -> Iterator[Finding]:
    """The verdicts that `eval --verdicts` read."""
    found = figures.get("win_rate")
    if not found or found["win_rate"] is None:
        return
    low, high = found["win_rate_interval"]
    tone = "good" if low > CHANCE else "warning" if high < CHANCE else "neutral"
    rate, prompts = _share(found, "win_rate"), _count(found["pairs"], "prompt")
    yield tone, f"Judges prefer the policy's answer in {rate} of {prompts}, a tie being half a win"


def _groups(figures: dict[str, Any]) -> Iterator[Finding]:
    for column, values in [*figures["groups"].items(), ("dataset", figures["slices"])]:
        groups = {value: group for value, group in values.items() if group["examples"]}
        pairs = sum(group["examples"] for group in groups.values())
        losses = sum(map(_losses, groups.values()))
        for value, group in groups.items():
            if contradicts_labels(group):
                rest = pairs - group["examples"]
                others = f" ({(losses - _losses(group)) / rest:.1%} elsewhere)" if rest else ""
                yield (
                    "warning",
                    f"{column} {value}: the policy disagrees with {_losses(group):,} of "
                    f"{_count(group['examples'], 'label')}{others}, so chosen and rejected may be "
                    "swapped; check how these labels were made, then fix or remove them all, in "
                    "the training data too",
                )


def _length(figures: dict[str, Any]) -> Iterator[Finding]:
    if figures["reward_accuracy_interval"][0] <= CHANCE:
        return  # nothing was learned that length could explain
    matched = figures["length_matched"]
    if matched["accuracy"] is None:
        yield (
            "warning",
            "Among pairs of a similar difference in length, the longer answer is always chosen or "
            "always rejected, so the accuracy may be a preference for length; add pairs of both "
            "kinds",
        )
        return
    tone = "warning"
    if matched["accuracy_interval"][0] <= CHANCE:
        comment = "not distinguishable from chance, so the policy may have learned length alone"
    elif matched["accuracy"] < figures["reward_accuracy"] - SHORTCUT:
        comment = "part of what the policy learned is length"
    else:
        tone, comment = "neutral", "length does not explain the accuracy"
    pairs = _count(matched["pairs"], "pair")
    yield (
        tone,
        f"With lengths matched it is right in {_share(matched, 'accuracy')} of {pairs}: {comment}",
    )


def _ceiling(figures: dict[str, Any]) -> Iterator[Finding]:
    if ceiling := figures.get("ceiling"):
        judgements = _count(ceiling["judgements"], "judgement")
        comment = "a higher accuracy is hardly possible"
        if figures["reward_accuracy_interval"][0] > ceiling["share"]:
            comment = "the policy is above that, which is possible for labels of a majority"
        yield (
            "neutral",
            f"Annotators agree with the majority of the others in {ceiling['share']:.1%} of "
            f"{judgements}: {comment}",
        )


def _answers(figures: dict[str, Any]) -> Iterator[Finding]:
    if not figures["samples"]:
        return
    total, kl, ratio = (figures[n] for n in ("kl_per_sequence", "kl_per_token", "length_ratio"))
    distance = f"{total:.2f} nats per answer and {kl:.3f} per token" if total >= 0 else "about 0"
    length = f"its answers are {ratio:.2f} times as long"
    yield "neutral", f"The policy's KL from its reference is {distance}; {length}"
    if figures["samples"] < ENOUGH:
        return
    if kl >= FAR:
        yield (
            "warning",
            "That KL is large: answers may degenerate although the policy prefers well; read "
            "samples, then raise beta or train less",
        )
    if not SHORTER <= ratio <= LONGER:
        word = "longer" if ratio > 1 else "shorter"
        yield "warning", f"The policy writes much {word} answers than its reference; read samples"
    ends, repeats = figures["eos_rate"], figures["distinct_2"]
    if ends["policy"] < ends["reference"] - ENDS:
        yield (
            "warning",
            f"The policy ends {ends['policy']:.1%} of its answers, its reference "
            f"{ends['reference']:.1%}; check that the training answers have an end-of-text token",
        )
    if None not in repeats.values() and repeats["policy"] < repeats["reference"] - REPEATS:
        yield (
            "warning",
            f"The policy repeats itself: {repeats['policy']:.1%} of its token pairs are distinct, "
            f"its reference's {repeats['reference']:.1%}; raise beta or train less",
        )


def summary(figures: dict[str, Any]) -> list[str]:
    """The figures as a table, then groups, the comparison with another run and the findings."""
    lines = _aligned([*_pair_lines(figures), *_answer_lines(figures)])
    for column, values in [("dataset", figures["slices"]), *figures["groups"].items()]:
        lines += [f"{column} {value}: {_group(group)}" for value, group in values.items()]
    if figures.get("against"):
        lines += ["", *_against(figures["against"])]
    if reasons := reason_lines(figures["reasons"]):
        lines += ["", *reasons]
    lines += ["", "intervals are 95 %; a log-ratio is policy over reference, without beta", ""]
    return lines + [f"{MARKS.get(f['tone'], ' ')} {f['text']}" for f in figures["findings"]] + [""]


def _pair_lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    pairs, baselines = f"{figures['examples']:,} of {figures['prompts']:,}", figures["baselines"]
    matched, calibration = figures["length_matched"], figures["calibration"]
    rows = [
        ("held-out pairs" if figures["split"] == "test" else "pairs", f"{pairs} prompts"),
        ("reward accuracy", _bounded(figures, "reward_accuracy")),
        ("reward margin", _bounded(figures, "reward_margin")),
        ("log-ratio chosen", f"{figures['chosen_log_ratio']:+.2f} nats"),
        ("log-ratio rejected", f"{figures['rejected_log_ratio']:+.2f} nats"),
        ("ties (no wins)", f"{figures['ties']:,}"),
        ("  always longer", _bounded(baselines["longer"], "accuracy")),
        ("  reference", _bounded(baselines["reference"], "accuracy")),
    ]
    if first := figures["first_answer"]:
        rows.append(("  always first", f"{first['accuracy']:.3f} of {first['pairs']:,} as shown"))
    if ceiling := figures["ceiling"]:
        text = f"{ceiling['share']:.3f} agree with the majority of the others: the ceiling"
        rows.append(("  annotators", text))
    error, loss = calibration["ece"], calibration["log_loss"]
    return [
        *rows,
        ("length-matched", f"{_bounded(matched, 'accuracy')} over {matched['pairs']:,} pairs"),
        ("calibration", f"error {error:.3f}, log loss {loss:.4f}"),
    ]


def _answer_lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
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
        ("KL per sequence", f"{_bounded(figures, 'kl_per_sequence', '.2f')} nats"),
        ("KL per token", f"{_bounded(figures, 'kl_per_token')} nats"),
        ("length ratio", _bounded(figures, "length_ratio", ".2f")),
    ]
    for name, both in changes.items():
        text = f"{_number(both['reference'])} -> {_number(both['policy'])}"
        if "change" in both:
            text += f", change {_bounded(both, 'change', '+.3f')}"
        rows.append((name, text))
    return rows


def _against(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, figures in found["differences"].items():
        bounds = figures["difference_interval"]
        text = (
            f"{figures['here']:.3f} and {figures['there']:.3f}, difference "
            f"{_bounded(figures, 'difference', '+.3f')} over {figures['examples']:,}"
        )
        if bounds is None or bounds[0] <= 0 <= bounds[1]:
            text += ": not distinguishable from 0"
        rows.append((f"  {name.replace('_', ' ')}", text))
    return [f"this run and {found['run']}, on the same rows:", *_aligned(rows)]


def win_rate_summary(found: dict[str, Any]) -> list[str]:
    """The win rate that judges gave, what it is made of, and their position bias."""
    ignored = {
        "judged in one order only": found["one_order"],
        "not judged": found["unjudged"],
        "empty verdicts": found["no_verdict"],
        "verdicts on other answers": found["foreign"],
    }
    rows = [
        ("win rate", f"{_bounded(found, 'win_rate')} over {found['pairs']:,} prompts"),
        ("pairs", f"{found['wins']:,} won, {found['losses']:,} lost, {found['ties']:,} tied"),
        (
            "ties",
            f"{found['inconsistent']:,} with another verdict in the other order, "
            f"{found['identical']:,} with identical answers",
        ),
    ]
    if found["position_bias"] is not None:
        position = f"{_bounded(found, 'position_bias')} of the verdicts name the first answer"
        rows.append(("position", position))
    rows += [("not counted", f"{count:,} {name}") for name, count in ignored.items() if count]
    return _aligned(rows)


def _bounded(figures: dict[str, Any], name: str, form: str = ".3f") -> str:
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
    accuracy = _bounded(figures, "reward_accuracy")
    margin = f"margin {figures['reward_margin']:.3f}"
    return f"{figures['examples']:,} pairs, reward accuracy {accuracy}, {margin}"

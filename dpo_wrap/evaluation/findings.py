"""What an evaluation's figures mean, in sentences, with a tone: good, neutral or a warning."""

from collections.abc import Iterator
from typing import Any

from dpo_wrap.evaluation.intervals import share_interval

Finding = dict[str, str]

# Nats a token. The quickstart's policy ends at 0.04 and still writes reviews (0.93 well formed); at
# beta 0.3 and twice the learning rate it ends at 0.48, and every second one falls apart.
NEAR, FAR = 0.1, 0.3
SHORTCUT = 0.1
"""Accuracy that may be lost under length matching before it is said that length carries it."""
LONGER, SHORTER = 1.25, 0.8
"""Length ratios beyond which the policy writes longer or shorter than its reference."""
ENDS, REPEATS = 0.05, 0.05
"""Shares by which endings and distinct pairs of words may fall."""
BIASED = 0.1
"""How far from one half the share of verdicts that name the first answer is worth a warning."""
ENOUGH = 20
"""Pairs, or samples, from which a part of them is spoken of."""
MANY = 0.1
"""The share of ties from which they are spoken of first."""


def findings(found: dict[str, Any]) -> list[Finding]:
    """The sentences, what matters most first; empty where no pairs were scored."""
    if not found.get("examples"):
        return []
    return [
        {"tone": tone, "text": text}
        for part in (_preference, _won, _groups, _length, _ceiling, _writing)
        for tone, text in part(found)
    ]


def _preference(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    accuracy, (low, high) = found["reward_accuracy"], found["reward_accuracy_interval"]
    noun = "held-out pair" if found["split"] == "test" else "pair"
    said = (
        f"it prefers the chosen answer in {accuracy:.1%} of {_counted(found['examples'], noun)} "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )
    rules = _rules(found)
    name, best = max(rules.items(), key=lambda rule: rule[1])
    if found["ties"] > MANY * found["examples"]:
        yield (
            "warning",
            f"{said}, and neither answer in {found['ties']:,}: it has hardly moved there",
        )
    elif _surely_against(found):
        yield "warning", f"{said}: the wrong way round; look at which answer the labels call chosen"
    elif low <= 0.5:
        yield "warning", f"{said}: that cannot be told from a coin"
    elif low <= best:
        yield "warning", f"{said}, which is no better than {name} would do ({best:.1%})"
    else:
        yield "good", f"{said}; without training the best is {best:.1%}, by {name}"
    if found.get("caution"):
        yield "warning", found["caution"]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _surely_against(figures: dict[str, Any]) -> bool:
    """Whether labels are contradicted more often than not; a tie contradicts nothing."""
    bounds, decided = figures["reward_accuracy_interval"], figures["examples"] - figures["ties"]
    return bounds[1] < 0.5 and decided > 0 and share_interval(_losses(figures), decided)[0] > 0.5


def _losses(figures: dict[str, Any]) -> int:
    wins = round(figures["reward_accuracy"] * figures["examples"])
    return figures["examples"] - figures["ties"] - wins


def _rules(found: dict[str, Any]) -> dict[str, float]:
    """What needs no training: accuracies of rules, and of the reference by its own likelihood."""
    rules = found["baselines"]
    named = {
        "taking what the reference finds likelier": rules["reference"]["accuracy"],
        "always taking the longer answer": rules["longer"]["accuracy"],
        "always taking the shorter answer": rules["shorter"]["accuracy"],
    }
    if first := found.get("first_answer"):
        named["always taking the first answer shown"] = first["accuracy"]
        named["always taking the last answer shown"] = 1 - first["accuracy"]
    return named


def _length(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    matched, accuracy = found["length_matched"], found["reward_accuracy"]
    if found["reward_accuracy_interval"][0] <= 0.5:
        return  # nothing was learned that length could carry
    if matched["accuracy"] is None:
        yield (
            "warning",
            "no two pairs differ alike in length with the longer answer chosen in one and the "
            "shorter in the other, so what it learned cannot be told from a taste for length",
        )
        return
    right, (low, high) = matched["accuracy"], matched["accuracy_interval"]
    said = f"among {matched['pairs']:,} pairs of like lengths it is right in {right:.1%}"
    if low <= 0.5:
        yield (
            "warning",
            f"{said} ({low:.1%} to {high:.1%}), which cannot be told from a coin: what it learned "
            "may be length alone",
        )
    elif right < accuracy - SHORTCUT:
        yield "warning", f"{said} only ({low:.1%} to {high:.1%}): part of what it learned is length"
    else:
        weakest = _weakest(matched, accuracy)
        yield "neutral", f"length is not what carries it: {said}{weakest}"


def _won(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What judges said of its answers, where eval --verdicts took that in."""
    won = found.get("win_rate")
    if not won or won["win_rate"] is None:
        return
    low, high = won["win_rate_interval"]
    tone = "good" if low > 0.5 else "warning" if high < 0.5 else "neutral"
    same = f", {won['identical']:,} of them with one answer twice" if won["identical"] else ""
    yield (
        tone,
        f"judges take its answer over the reference's in {won['win_rate']:.1%} of "
        f"{_counted(won['pairs'], 'prompt')}{same}, ties as halves (95 % interval {low:.1%} to "
        f"{high:.1%})",
    )
    bias, bounds = won["position_bias"], won["position_bias_interval"]
    if bounds and (bounds[0] > 0.5 or bounds[1] < 0.5) and abs(bias - 0.5) > BIASED:
        yield (
            "warning",
            f"{bias:.1%} of the judges' verdicts name the answer that was shown first, so they "
            "judge the place as well; where both orders disagree it counts as a tie",
        )


def _weakest(matched: dict[str, Any], accuracy: float) -> str:
    """Where lengths differ so that it does clearly worse, if anywhere."""
    found = [
        (one[f"accuracy_where_{side}"], one[f"chosen_{side}"], side, one["from"])
        for one in matched["bins"]
        for side in ("longer", "shorter")
        if one[f"chosen_{side}"] >= ENOUGH
    ]
    worst = min(found, default=None)
    if worst is None or worst[0] >= accuracy - SHORTCUT:
        return ""
    share, pairs, side, ratio = worst
    where = (
        f"over {ratio:g} times {side} than the rejected one" if ratio > 1 else f"a little {side}"
    )
    return f"; weakest where the chosen answer is {where}: {share:.1%} of {pairs:,}"


def _groups(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    parts = [(column, values) for column, values in found["groups"].items()]
    parts.append(("dataset", found["slices"]))
    for column, values in parts:
        for value, figures in values.items():
            if figures["examples"] and _surely_against(figures):
                yield "warning", _turned(f"{column} {value}", figures, list(values.values()))


def _turned(name: str, figures: dict[str, Any], every: list[dict[str, Any]]) -> str:
    rest = [g for g in every if g is not figures and g["examples"]]
    said = f"{name}: it disagrees with {_losses(figures):,} of its {figures['examples']:,} labels"
    if others := sum(g["examples"] for g in rest):
        said += f", elsewhere with {sum(map(_losses, rest)) / others:.1%}"
    return (
        f"{said}: chosen and rejected look swapped there; see how these labels were given or read, "
        "and mend or leave out all of them, in training too"
    )


def _ceiling(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if ceiling := found.get("ceiling"):
        said = (
            f"annotators agree with the majority of the others in {ceiling['share']:.1%} of "
            f"{_counted(ceiling['judgements'], 'judgement')}"
        )
        above = found["reward_accuracy_interval"][0] > ceiling["share"]
        yield (
            "neutral",
            f"{said}; it is above that, which labels of a majority allow"
            if above
            else f"{said}: more than that is hardly to be had",
        )


def _writing(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not found["samples"]:
        return
    kl, ratio = found["kl_per_token"], found["length_ratio"]
    whole = found["kl_per_sequence"]
    far = f"{whole:.2f} nats from those before training ({kl:.3f} a token)"
    if whole < 0:
        far = "no measurable way from those before training"
    yield "neutral", f"its own answers are {far}, and {ratio:.2f} times as long"
    if found["samples"] < ENOUGH:
        return
    if kl >= FAR:
        yield (
            "warning",
            "that is far: its texts may fall apart though it prefers well; read samples, raise "
            "beta or train less",
        )
    if ratio > LONGER or ratio < SHORTER:
        word = "longer" if ratio > 1 else "shorter"
        yield "warning", f"it writes much {word} answers than before; read samples of both"
    ends, repeats = found["eos_rate"], found["distinct_2"]
    if ends["policy"] < ends["reference"] - ENDS:
        yield (
            "warning",
            f"it finds an end in {ends['policy']:.1%} of its answers, its reference in "
            f"{ends['reference']:.1%}: it may have forgotten to stop",
        )
    if None not in repeats.values() and repeats["policy"] < repeats["reference"] - REPEATS:
        yield (
            "warning",
            f"it repeats itself: {repeats['policy']:.1%} of its pairs of tokens are distinct, "
            f"{repeats['reference']:.1%} of its reference's",
        )

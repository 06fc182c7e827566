"""What an evaluation's figures mean, in sentences, with a tone: good, neutral or a warning."""

from collections.abc import Iterator
from typing import Any

Finding = dict[str, str]

SHORTCUT = 0.1
"""Accuracy that may be lost under length matching before it is said that length carries it."""
LONGER, SHORTER = 1.25, 0.8
"""Length ratios beyond which the policy writes longer or shorter than its reference."""
ENDS, REPEATS = 0.05, 0.05
"""Shares by which endings and distinct pairs of words may fall."""
UNSURE = 0.1
"""Expected calibration error from which the margins are said not to be probabilities."""


def findings(found: dict[str, Any]) -> list[Finding]:
    """The sentences, what matters most first; empty where no pairs were scored."""
    if not found.get("examples"):
        return []
    return [
        {"tone": tone, "text": text}
        for part in (_preference, _length, _groups, _ceiling, _writing, _calibrated)
        for tone, text in part(found)
    ]


def _preference(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    accuracy, (low, high) = found["reward_accuracy"], found["reward_accuracy_interval"]
    where = "held-out pairs" if found["split"] == "test" else "pairs"
    said = (
        f"it prefers the chosen answer in {accuracy:.1%} of {found['examples']:,} {where} "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )
    rules = _rules(found)
    name, best = max(rules.items(), key=lambda rule: rule[1])
    if high < 0.5:
        yield "warning", f"{said}: the wrong way round; look at which answer the labels call chosen"
    elif low <= 0.5:
        yield "warning", f"{said}: that cannot be told from a coin"
    elif low <= best:
        yield "warning", f"{said}, which is no better than {name} would do ({best:.1%})"
    else:
        yield "good", f"{said}; {name} would be right in {best:.1%}"
    if found.get("caution"):
        yield "warning", found["caution"]


def _rules(found: dict[str, Any]) -> dict[str, float]:
    """What needs no training: accuracies of rules, and of the reference by its own likelihood."""
    rules = found["baselines"]
    named = {
        "always taking the longer answer": rules["longer"]["accuracy"],
        "always taking the shorter answer": rules["shorter"]["accuracy"],
        "the untrained model's own likelihood": rules["reference"]["accuracy"],
        "the untrained model's likelihood a token": rules["reference_per_token"]["accuracy"],
    }
    if first := found.get("first_answer"):
        named["always taking the first answer shown"] = first["accuracy"]
        named["always taking the last answer shown"] = 1 - first["accuracy"]
    return named


def _length(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    matched, accuracy = found["length_matched"], found["reward_accuracy"]
    if matched["accuracy"] is None:
        yield (
            "warning",
            "chosen answers differ in length from rejected ones always the same way, so what it "
            "learned cannot be told from a taste for length",
        )
    elif matched["accuracy"] < accuracy - SHORTCUT:
        low, high = matched["accuracy_interval"]
        yield (
            "warning",
            f"among pairs of like lengths it is right in {matched['accuracy']:.1%} only "
            f"({low:.1%} to {high:.1%}): much of what it learned is length",
        )
    else:
        yield (
            "neutral",
            f"length is not what carries it: among pairs of like lengths it is right in "
            f"{matched['accuracy']:.1%}",
        )


def _groups(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    groups = [(f"{c} {v}", g) for c, values in found["groups"].items() for v, g in values.items()]
    groups += [(f"dataset {path}", figures) for path, figures in found["slices"].items()]
    for name, figures in groups:
        bounds = figures["reward_accuracy_interval"]
        if bounds and bounds[1] < 0.5:
            yield (
                "warning",
                f"{name}: it disagrees with {1 - figures['reward_accuracy']:.1%} of these "
                f"{figures['examples']:,} labels, far more than elsewhere; they look turned round",
            )


def _ceiling(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if ceiling := found.get("ceiling"):
        yield (
            "neutral",
            f"annotators agree with the majority of the others in {ceiling['share']:.1%} of "
            f"{ceiling['judgements']:,} judgements: more than that is hardly to be had",
        )


def _writing(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not found["samples"]:
        return
    kl, ratio = found["kl_per_token"], found["length_ratio"]
    yield (
        "neutral",
        f"its own answers are {found['kl_per_sequence']:.2f} nats from the untrained model's "
        f"({kl:.3f} a token), and {ratio:.2f} times as long",
    )
    if ratio > LONGER or ratio < SHORTER:
        word = "longer" if ratio > 1 else "shorter"
        yield "warning", f"it writes much {word} answers than before; read samples of both"
    ends, repeats = found["eos_rate"], found["distinct_2"]
    if ends["policy"] < ends["reference"] - ENDS:
        yield (
            "warning",
            f"it finds an end in {ends['policy']:.1%} of its answers, the untrained model in "
            f"{ends['reference']:.1%}: it may have forgotten to stop",
        )
    if None not in repeats.values() and repeats["policy"] < repeats["reference"] - REPEATS:
        yield (
            "warning",
            f"it repeats itself: {repeats['policy']:.1%} of its pairs of tokens are distinct, "
            f"{repeats['reference']:.1%} of the untrained model's",
        )


def _calibrated(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    error = found["calibration"]["ece"]
    sure = sum(b["pairs"] * b["confidence"] for b in found["calibration"]["bins"])
    right = sum(b["pairs"] * b["accuracy"] for b in found["calibration"]["bins"])
    if error >= UNSURE:
        how = "more often right than its margins say" if right > sure else "surer than it is right"
        yield "neutral", f"it is {how}: its margins are no probabilities (error {error:.2f})"

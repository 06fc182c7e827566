"""Dialogues for benchmarks: pairs of Anthropic's HH, or invented pairs of the same lengths."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

HH = Path(__file__).parents[1].parent / "shared/data/hh-harmless-base-test.jsonl.gz"
TURN = "\n\nAssistant:"
# Lengths of HH's prompts and answers (harmless-base, test), in words and punctuation marks, at
# these percentiles.
SHARES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
PROMPTS = (5, 9, 12, 18, 36, 58, 81, 104, 130, 167, 247, 308, 488, 789)
ANSWERS = (1, 6, 9, 13, 18, 23, 29, 38, 50, 65, 93, 120, 208, 533)


def texts_of(data: Path | None, count: int) -> list[dict[str, str]]:
    """`count` pairs as text, in random order (fixed seed)."""
    dice = random.Random(0)
    if data is None:
        return [_invented(dice) for _ in range(count)]
    pairs = []
    with gzip.open(data, "rt", encoding="utf-8") as file:
        for line in file:
            sides = [json.loads(line)[name] for name in ("chosen", "rejected")]
            (prompt, other), answers = zip(*map(_split, sides), strict=True)
            if prompt == other and all(text.strip() for text in answers):
                pairs.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
    dice.shuffle(pairs)
    return pairs[:count]


def _split(dialogue: str) -> tuple[str, str]:
    """Everything up to the last answer, and the answer."""
    prompt, turn, answer = dialogue.rpartition(TURN)
    return prompt + turn, answer


def _invented(dice: random.Random) -> dict[str, str]:
    def words(lengths: Sequence[int]) -> str:
        place = dice.uniform(0, 100)
        upper = next(n for n, share in enumerate(SHARES) if share >= place)
        below, above = SHARES[upper - 1], SHARES[upper]
        part = (place - below) / (above - below) if upper else 0
        count = lengths[max(0, upper - 1)] * (1 - part) + lengths[upper] * part
        return "".join(f" w{dice.randrange(4000)}" for _ in range(max(1, int(count))))

    return {
        "prompt": f"\n\nHuman:{words(PROMPTS)}{TURN}",
        "chosen": words(ANSWERS),
        "rejected": words(ANSWERS),
    }

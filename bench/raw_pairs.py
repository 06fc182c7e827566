"""Raw preference files to measure on: invented prose with 3 % of each fault, the same every time.

Labelled pairs as CSV, or TRL's message records as JSON Lines; about 2.2 kB a record, unless short.
"""

import csv
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

SHARE = 0.03
"""Of the records that have each fault."""

Pair = tuple[str, str, str]  # prompt, the better answer, the worse

_WORDS, _TEXTS = 3000, 2000
_FREQUENT = "etaoinshrdlucmfwypvbgkqjxz"


def write(path: Path, records: int, short: bool = False) -> None:
    """Write one file of either kind, by its ending; `short` texts have a few words."""
    dice = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        kind = _labelled if path.suffix == ".csv" else _messages
        kind(file, _pairs(dice, records, short), dice)


def _pairs(dice: random.Random, records: int, short: bool) -> Iterator[Pair]:
    words = ["".join(dice.choices(_FREQUENT, k=dice.randint(1, 11))) for _ in range(_WORDS)]
    length = (1, 6) if short else (60, 220)
    texts = [_prose(dice, words, dice.randint(*length)) for _ in range(_TEXTS)]
    earlier: list[Pair] = []
    for number in range(records):
        question = dice.choice(texts)[: dice.randint(5, 20) if short else dice.randint(50, 500)]
        pair = f"{number}: {question}", f"{dice.choice(texts)} Yes.", f"{dice.choice(texts)} No."
        if earlier and (fault := _fault(dice, ("repeated", "turned"))):
            prompt, good, bad = dice.choice(earlier)
            pair = (prompt, good, bad) if fault == "repeated" else (prompt, bad, good)
        elif len(earlier) < 10_000:
            earlier.append(pair)
        yield pair


def _prose(dice: random.Random, words: list[str], count: int) -> str:
    ends = dice.choices([" ", ", ", ". ", "\n\n", ' "', " – "], (84, 8, 6, 1, 0.7, 0.3), k=count)
    return "".join(dice.choice(words) + end for end in ends).strip()


def _fault(dice: random.Random, names: tuple[str, ...]) -> str:
    """One of the names, each for 3 % of the records; empty for the others."""
    at = int(dice.random() / SHARE)
    return names[at] if at < len(names) else ""


_SPOILED: dict[str, Callable[[Pair], tuple[str | None, str | None, str | None]]] = {
    "empty prompt": lambda pair: ("", *pair[1:]),
    "empty answer": lambda pair: (pair[0], " \n", pair[2]),
    "equal answers": lambda pair: (pair[0], pair[1], f"{pair[1]} "),
    "markup": lambda pair: (pair[0], f"<p>{pair[1]}</p>", pair[2]),
}


def _labelled(file, pairs: Iterator[Pair], dice: random.Random) -> None:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["prompt", "response_a", "response_b", "preference"])
    for pair in pairs:
        fault = _fault(dice, (*_SPOILED, "tie", "", "the long one", "ragged"))
        prompt, good, bad = _SPOILED.get(fault, lambda pair: pair)(pair)
        won = dice.choice("ab")
        row = [prompt, *((good, bad) if won == "a" else (bad, good)), f"response_{won}"]
        if fault == "ragged":
            row = row[:-1]
        elif fault not in _SPOILED and fault:
            row[-1] = fault
        elif dice.random() < SHARE:
            row[-1] = ""
        rows.writerow(row)


def _messages(file, pairs: Iterator[Pair], dice: random.Random) -> None:
    for pair in pairs:
        fault = _fault(dice, (*_SPOILED, "null", "history"))
        prompt, good, bad = _SPOILED.get(fault, lambda pair: pair)(pair)
        record = {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "user" if fault == "history" else "assistant", "content": good}],
            "rejected": None if fault == "null" else [{"role": "assistant", "content": bad}],
        }
        file.write(json.dumps(record, ensure_ascii=False) + "\n")

"""Write data/raw.csv: valid preference records, and records with deliberate faults.

    python -m quickstart.make_data                 # the committed file, byte for byte
    python -m quickstart.make_data --flip 0.2 --out flipped.csv   # every fifth label is wrong

The good records compare two sampled answers to one prompt; the better one has the clearly greater
true reward (quickstart.grammar) and comes first or second at random. Mixed in are as many faulty
records of each kind as `PLANTED` says, under the reason that the converter must give. Good pairs
never repeat by accident, so the counts are exact.
"""

import argparse
import csv
import io
import sys
from pathlib import Path
from random import Random

from quickstart.grammar import sample_answer, sample_prompt, true_reward

HEADER = ["prompt", "response_a", "response_b", "preference"]
FIRST, SECOND, TIE = "response_a", "response_b", "tie"

GOOD = 3200  # pairs, of which those that take part in a contradiction are lost
CLEAR = 1.0  # the least difference in true reward of a pair; smaller ones are not labelled
MULTI_LINE = 16  # good records with a line break inside a quoted cell, which is legal
BLANK_LINES = 6  # no records at all

# Rejected records by the reason that the converter gives them.
PLANTED = {
    "ragged_row": 24,
    "null_label": 20,
    "unknown_label": 16,
    "tie": 60,
    "empty_prompt": 12,
    "empty_response": 30,
    "identical_pair": 20,
    "contradictory": 40,  # 20 pairs, each labelled both ways: neither label can be trusted
    "duplicate": 50,
}

Row = list[str]


class Pairs:
    """Endless sampled pairs, no two alike: `draw` gives a prompt and two different answers."""

    def __init__(self, rng: Random):
        self.rng = rng
        self.seen: set[tuple[str, frozenset[str]]] = set()

    def draw(self, tied: bool = False) -> tuple[str, str, str]:
        """Answers of equal true reward when `tied`, else of clearly different ones."""
        while True:
            prompt = sample_prompt(self.rng)
            first, second = sample_answer(prompt, self.rng), sample_answer(prompt, self.rng)
            key = prompt, frozenset((first, second))
            gap = abs(true_reward(first) - true_reward(second))
            if first != second and (gap == 0 if tied else gap >= CLEAR) and key not in self.seen:
                self.seen.add(key)
                return prompt, first, second


def judged(prompt: str, first: str, second: str) -> Row:
    """The record of a pair, labelled by its true reward."""
    return [prompt, first, second, FIRST if true_reward(first) > true_reward(second) else SECOND]


def swapped(row: Row) -> Row:
    """The same label with the two answers in the other order."""
    prompt, first, second, label = row
    return [prompt, second, first, FIRST if label == SECOND else SECOND]


def reversed_label(row: Row) -> Row:
    """The same pair with the opposite label."""
    return [*row[:3], FIRST if row[3] == SECOND else SECOND]


def either(number: int, one, other, row: Row) -> Row:
    """Apply `one` to rows of even number and `other` to odd ones: two forms of one fault."""
    return (one if number % 2 == 0 else other)(row)


def faulty(pairs: Pairs, good: list[Row]) -> dict[str, list[Row]]:
    """The planted records by their reason; repeats and contradictions start from `good`."""

    def fresh(reason):
        return [(i, judged(*pairs.draw())) for i in range(PLANTED[reason])]

    def too_few(row):
        return row[:3]

    def too_many(row):  # what an unquoted comma does
        return [row[0], *row[1].split(" ", 1), *row[2:]]

    def relabelled(label):
        return lambda row: [*row[:3], label]

    def without(column, blank=""):
        return lambda row: [*row[:column], blank, *row[column + 1 :]]

    def answered_twice(row):
        return [row[0], row[1], row[1], row[3]]

    def answered_twice_but_for_space(row):
        return [row[0], row[1], row[1].strip() + "  ", row[3]]

    contradicted = good[: PLANTED["contradictory"] // 2]
    repeated = good[len(contradicted) :][: PLANTED["duplicate"]]
    return {
        "ragged_row": [either(i, too_few, too_many, row) for i, row in fresh("ragged_row")],
        "null_label": [relabelled("")(row) for _, row in fresh("null_label")],
        "unknown_label": [
            either(i, relabelled("response_c"), relabelled("see comment"), row)
            for i, row in fresh("unknown_label")
        ],
        "tie": [[*pairs.draw(tied=True), TIE] for _ in range(PLANTED["tie"])],
        "empty_prompt": [without(0)(row) for _, row in fresh("empty_prompt")],
        "empty_response": [
            either(i, without(1), without(2, blank="  "), row) for i, row in fresh("empty_response")
        ],
        "identical_pair": [
            either(i, answered_twice, answered_twice_but_for_space, row)
            for i, row in fresh("identical_pair")
        ],
        # The other half of each contradiction is the good record itself.
        "contradictory": [
            either(i, reversed_label, lambda row: swapped(reversed_label(row)), row)
            for i, row in enumerate(contradicted)
        ],
        "duplicate": [either(i, list, swapped, row) for i, row in enumerate(repeated)],
    }


def break_a_line(row: Row) -> Row:
    """The record with a line break before the last sentence of an answer that has two."""
    return [cell.replace(". ", ".\n") for cell in row[:3]] + row[3:]


def records(seed: int = 0, flip: float = 0.0) -> list[Row]:
    """All records in the order of the file; an empty row is a blank line.

    `flip` is the share of the valid records whose label is inverted, against the true reward.
    """
    rng = Random(seed)
    pairs = Pairs(rng)
    good = [judged(*pairs.draw()) for _ in range(GOOD)]
    # From a separate generator, so that the records do not depend on `flip`.
    for i in Random(seed + 1).sample(range(GOOD), round(flip * GOOD)):
        good[i] = reversed_label(good[i])
    planted = faulty(pairs, good)
    two_sentences = [i for i, row in enumerate(good) if ". " in row[1]]
    for i in two_sentences[-MULTI_LINE:]:
        good[i] = break_a_line(good[i])
    rows = good + [row for kind in planted.values() for row in kind] + [[]] * BLANK_LINES
    rng.shuffle(rows)
    return rows


def as_csv(rows: list[Row]) -> str:
    """The file's text: comma-separated, quoted where needed, a line feed after each record."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADER, *rows])
    return text.getvalue()


def expected() -> dict:
    """What a conversion of the file must report: records read, pairs kept, rejects by reason."""
    lost_twice = PLANTED["contradictory"] // 2
    return {
        "read": GOOD + sum(PLANTED.values()) - lost_twice,
        "kept": GOOD - lost_twice,
        "reasons": dict(PLANTED),
    }


def main(argv: list[str] | None = None) -> int:
    """Write the file and print what it contains; exit status 0, or 1 when it cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m quickstart.make_data",
        description="Write the quickstart's raw preference records, faulty ones among them.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/raw.csv"),
        metavar="FILE",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another sample (default: %(default)s)"
    )
    parser.add_argument(
        "--flip",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="invert this share of the good judgements, from 0 to 1 (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if not 0 <= options.flip <= 1:
        parser.error(f"--flip must be from 0 to 1, not {options.flip}")
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(as_csv(records(options.seed, options.flip)).encode())
    except OSError as error:
        print(f"{options.out}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    figures = expected()
    print(f"{options.out}: {figures['read']} records, {figures['kept']} good pairs")
    for reason, count in PLANTED.items():
        print(f"  {reason:15} {count:4}")
    if options.flip:
        print(f"  of the good pairs {round(options.flip * GOOD)} are labelled the wrong way round")
    print(f"  also {MULTI_LINE} good records over several lines, {BLANK_LINES} blank lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Several judgements of one comparison: their verdict, and how far the annotators agree.

Agreement is a ceiling for any model trained on the judgements. It holds numbers for every vote and
one key for every comparison, never texts.
"""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from data_tools.record import BadRecord, LabeledComparison, Pair, Result, Vote

MODES = ("majority", "unanimous", "each")
LISTED = 1_000  # annotators with figures of their own; the others are counted
_TIE = 2  # after 0 and 1, the positions of the answers


def decide(comparison: LabeledComparison, mode: str) -> list[Result]:
    """What the votes of a comparison come to: one result; under `each` one for every vote."""
    if mode == "each":
        return [_result(comparison, outcome, name) for name, outcome in comparison.votes]
    try:
        return [_result(comparison, verdict(comparison.votes, mode))]
    except BadRecord as fault:
        return [fault]


def verdict(votes: Sequence[Vote], mode: str) -> int:
    """The position of the answer that won. Raises BadRecord (`tie` or `disagreement`).

    An annotator has one vote, however often it was given; who voted both ways has none.
    """
    given: dict[str, set[int | None]] = {}
    for name, outcome in votes:
        given.setdefault(name, set()).add(outcome)
    outcomes = Counter(outcome for own in given.values() if len(own) == 1 for outcome in own)
    if not outcomes:
        detail = "each annotator judged these two answers both ways; ask them which is right"
        raise BadRecord("disagreement", detail)
    (leading, count), total = outcomes.most_common(1)[0], outcomes.total()
    required, other, agreed = "more than half agree", "each", 2 * count > total
    if mode == "unanimous":
        required, other, agreed = "all agree", "majority or each", count == total
    if not agreed:
        ties = f", {outcomes[None]} for a tie" if outcomes[None] else ""
        raise BadRecord(
            "disagreement",
            f"the judgements are {outcomes[0]} for the first answer, {outcomes[1]} for the second"
            f"{ties}, and not {required}; remove the pair, or use --annotators {other}",
        )
    if leading is None:
        raise BadRecord("tie", "the judgement is that neither answer is better")
    return leading


def _result(comparison: LabeledComparison, outcome: int | None, annotator: str | None = None):
    if outcome is None:
        who = f"annotator {annotator} judged" if annotator else "the judgement is"
        return BadRecord("tie", f"{who} that neither answer is better")
    sides = (comparison.first, comparison.second)
    chosen, rejected = sides if outcome == 0 else sides[::-1]
    extras = (comparison.tools, comparison.chat_template_kwargs)
    return Pair(comparison.prompt, chosen, rejected, outcome == 0, *extras, annotator)


@dataclass(frozen=True, slots=True)
class Ballot:
    """The votes of one record on one comparison, which `key` identifies.

    `swapped` is true where the record shows the answers in the other order than the key's.
    """

    key: bytes
    votes: tuple[Vote, ...]
    swapped: bool = False


class Agreement:
    """Takes ballots in any order; those with the same key are about the same comparison."""

    def __init__(self) -> None:
        self._comparisons: dict[bytes, int] = {}
        self._swapped = bytearray()  # whether a comparison's first ballot was swapped
        self._annotators: dict[str, int] = {}
        self._shown: dict[str, list[int]] = {}  # outcomes by annotator, in the order shown
        # Of each vote: its comparison, its annotator, its outcome in the first ballot's order.
        self._on, self._by, self._outcomes = array("I"), array("I"), bytearray()

    def add(self, ballot: Ballot) -> None:
        comparison = self._comparisons.setdefault(ballot.key, len(self._comparisons))
        if comparison == len(self._swapped):
            self._swapped.append(ballot.swapped)
        opposite = ballot.swapped != self._swapped[comparison]
        for name, outcome in ballot.votes:
            shown = _TIE if outcome is None else outcome
            self._shown.setdefault(name, [0, 0, 0])[shown] += 1
            self._on.append(comparison)
            self._by.append(self._annotators.setdefault(name, len(self._annotators)))
            self._outcomes.append(1 - shown if opposite and shown != _TIE else shown)

    @property
    def judged(self) -> bool:
        """Whether any annotator judged anything."""
        return bool(self._comparisons)

    def figures(self) -> dict[str, Any] | None:
        """The figures for report.json; None where fewer than two annotators judged."""
        if len(self._annotators) < 2:
            return None
        counted: Counter[tuple[int, ...]] = Counter()  # comparisons by their votes per outcome
        compared, differed = Counter(), Counter()  # judgements, by annotator
        for votes in self._units():
            outcomes = [*votes.values()]
            counts = [outcomes.count(outcome) for outcome in range(3)]
            counted[tuple(counts)] += 1
            for annotator, outcome in votes.items():
                others = [*counts]
                others[outcome] -= 1
                if (usual := _majority(others)) is not None:
                    compared[annotator] += 1
                    differed[annotator] += outcome != usual
        several = sum(many for counts, many in counted.items() if sum(counts) > 1)
        split = sum(many for counts, many in counted.items() if sum(map(bool, counts)) > 1)
        reliability = alpha(counted)
        names = sorted(self._annotators, key=lambda name: (-sum(self._shown[name]), name))
        rows = []
        for name in names[:LISTED]:
            annotator, (first, second, ties) = self._annotators[name], self._shown[name]
            row = {"annotator": name, "judgements": first + second + ties}
            row["compared"] = compared[annotator]
            row["differs"] = share(differed[annotator], compared[annotator])
            row["first_answer_wins"] = share(first, first + second)
            rows.append(row | {"ties": share(ties, row["judgements"])})
        return {
            "annotators": len(names),
            "comparisons": counted.total(),
            "judged_twice": several,
            "disagreeing": split,
            "disagreeing_share": share(split, several),
            "majority_ties": sum(many for c, many in counted.items() if _majority(c) == _TIE),
            "alpha": None if reliability is None else round(reliability, 4),
            "per_annotator": rows,
            "other_annotators": len(names) - len(rows),
        }

    def _units(self) -> Iterator[dict[int, int]]:
        """The outcome of each annotator, for each comparison.

        An annotator's second judgement of a comparison counts as another comparison: alpha has one
        value of each annotator, and a file that is given twice must not look more agreed.
        """
        ordered = sorted(range(len(self._on)), key=self._on.__getitem__)
        for _, votes in groupby(ordered, key=self._on.__getitem__):
            rounds, times = defaultdict(dict), Counter()
            for vote in votes:
                annotator = self._by[vote]
                rounds[times[annotator]][annotator] = self._outcomes[vote]
                times[annotator] += 1
            yield from rounds.values()


def alpha(units: Mapping[tuple[int, ...], int]) -> float | None:
    """Krippendorff's alpha for nominal values; None where values do not vary or are never paired.

    `units` gives how many units have these counts of each value. From the coincidence matrix, as in
    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C.
    """
    met = {counts: many for counts, many in units.items() if sum(counts) > 1}
    observed = math.fsum(
        many * (sum(counts) ** 2 - sum(c * c for c in counts)) / (sum(counts) - 1)
        for counts, many in met.items()
    )
    weighted = ([many * c for c in counts] for counts, many in met.items())
    totals = [sum(value) for value in zip(*weighted, strict=True)]
    expected = sum(totals) ** 2 - sum(t * t for t in totals)
    return 1 - (sum(totals) - 1) * observed / expected if expected else None


def _majority(counts: list[int] | tuple[int, ...]) -> int | None:
    """The outcome that more than half gave."""
    return next((i for i, count in enumerate(counts) if 2 * count > sum(counts)), None)


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None

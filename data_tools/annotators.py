"""Several judgements of one comparison: their verdict, and how far the annotators agree.

Agreement is a ceiling for any model trained on the judgements. It holds numbers for every vote and
one key for every comparison, never texts.
"""

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_tools.record import BadRecord, LabeledComparison, Pair, Result, Vote

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
        self._annotators: dict[str, int] = {}
        # Of each vote: the key of its comparison, its annotator, its outcome in the order shown.
        self._keys, self._by, self._shown = bytearray(), array("I"), bytearray()
        self._swapped = bytearray()

    def add(self, ballot: Ballot) -> None:
        for name, outcome in ballot.votes:
            self._keys += ballot.key
            self._by.append(self._annotators.setdefault(name, len(self._annotators)))
            self._shown.append(_TIE if outcome is None else outcome)
            self._swapped.append(ballot.swapped)

    @property
    def judged(self) -> bool:
        """Whether any annotator judged anything."""
        return bool(self._annotators)

    def figures(self) -> dict[str, Any] | None:
        """The figures for report.json; None where fewer than two annotators judged."""
        if len(self._annotators) < 2:
            return None
        by, outcomes, units = self._votes()
        counts = _table(units, outcomes)
        others = counts[units]
        others[np.arange(len(by)), outcomes] -= 1
        has_usual = 2 * others.max(axis=1) > others.sum(axis=1)
        differs = has_usual & (others.argmax(axis=1) != outcomes)
        compared = np.bincount(by[has_usual], minlength=len(self._annotators)).tolist()
        differed = np.bincount(by[differs], minlength=len(self._annotators)).tolist()
        shown = _table(by, np.frombuffer(self._shown, np.uint8)).tolist()
        names = sorted(self._annotators, key=lambda n: (-sum(shown[self._annotators[n]]), n))
        rows = []
        for name in names[:LISTED]:
            annotator = self._annotators[name]
            first, second, ties = shown[annotator]
            row = {"annotator": name, "judgements": first + second + ties}
            row["compared"] = compared[annotator]
            row["differs"] = share(differed[annotator], compared[annotator])
            row["first_answer_wins"] = share(first, first + second)
            rows.append(row | {"ties": share(ties, row["judgements"])})
        totals = counts.sum(axis=1)
        several, split = int((totals > 1).sum()), int(((counts > 0).sum(axis=1) > 1).sum())
        reliability = alpha(counts)
        return {
            "annotators": len(names),
            "comparisons": len(counts),
            "judged_twice": several,
            "disagreeing": split,
            "disagreeing_share": share(split, several),
            "majority_ties": int((2 * counts[:, _TIE] > totals).sum()),
            "alpha": None if reliability is None else round(reliability, 4),
            "per_annotator": rows,
            "other_annotators": len(names) - len(rows),
        }

    def _votes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each vote: its annotator, its outcome, and the number of its comparison.

        An annotator's second judgement of a comparison counts as another comparison: alpha has one
        value of each annotator, and a file that is given twice must not look more agreed.
        """
        by, shown = np.frombuffer(self._by, np.uint32), np.frombuffer(self._shown, np.uint8)
        swapped, keys = np.frombuffer(self._swapped, bool), np.frombuffer(self._keys, "S16")
        _, first, comparison = np.unique(keys, return_index=True, return_inverse=True)
        opposite = (swapped != swapped[first][comparison]) & (shown != _TIE)
        outcomes = np.where(opposite, 1 - shown, shown)  # in the order of the first ballot
        own = comparison * len(self._annotators) + by
        order = np.argsort(own, kind="stable")
        starts = np.flatnonzero(np.diff(own[order], prepend=-1))
        times = np.empty_like(own)  # that an annotator judged the comparison before
        times[order] = np.arange(len(own)) - np.repeat(starts, np.diff(starts, append=len(own)))
        numbers = comparison * (times.max() + 1) + times
        return by, outcomes, np.unique(numbers, return_inverse=True)[1]


def _table(rows: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """How often each outcome is in each row, the number of which is that of the value."""
    return np.bincount(rows * 3 + outcomes, minlength=3 * (rows.max() + 1)).reshape(-1, 3)


def alpha(counts: np.ndarray) -> float | None:
    """Krippendorff's alpha for nominal values; None where values do not vary or are never paired.

    `counts` has how often each value was given, a row for each unit. From the coincidence matrix,
    as in Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C.
    """
    sizes = counts.sum(axis=1)
    counts, sizes = counts[sizes > 1], sizes[sizes > 1]
    observed = math.fsum((sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1))
    totals = counts.sum(axis=0).tolist()
    expected = sum(totals) ** 2 - sum(t * t for t in totals)
    return 1 - (sum(totals) - 1) * observed / expected if expected else None


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None

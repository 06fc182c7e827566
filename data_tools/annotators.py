"""Several judgements of one comparison: their verdict, and how far the annotators agree.

Agreement is a ceiling for any model trained on the judgements. It holds numbers for every vote and
one key for every comparison, never texts.
"""

import math
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np

from data_tools.record import BadRecord, LabeledComparison, Pair, Result, Vote

LISTED = 1_000  # annotators with figures of their own; the others are counted
_TIE = 2  # after 0 and 1, the positions of the answers
_VOTE = np.dtype([("key", "S16"), ("annotator", "u4"), ("shown", "u1"), ("swapped", "?")])
_PACK = struct.Struct("=16sIB?").pack


def decide(comparison: LabeledComparison, mode: str) -> list[Result]:
    """What the votes of a comparison come to: one result; under `each` one for every vote.

    Else a comparison on which other records may hold votes stays as it is.
    """
    if mode == "each":
        return [
            _tie(f"annotator {name} judged") if won is None else pair_of(comparison, won, name)
            for name, won in comparison.votes
        ]
    if comparison.across_records:
        return [comparison]
    try:
        return [pair_of(comparison, verdict(comparison.votes, mode))]
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
        raise _tie("the judgement is")
    return leading


def _tie(who: str) -> BadRecord:
    return BadRecord("tie", f"{who} that neither answer is better")


def pair_of(comparison: LabeledComparison, won: int, annotator: str | None = None) -> Pair:
    """The pair of a comparison, given the position of the answer that won."""
    sides = (comparison.first, comparison.second)
    extras = (comparison.tools, comparison.chat_template_kwargs, annotator)
    return Pair(comparison.prompt, sides[won], sides[1 - won], won == 0, *extras)


class Agreement:
    """Takes votes in any order; those with the same key are about the same comparison."""

    def __init__(self) -> None:
        self.annotators: dict[str, int] = {}
        self._votes = bytearray()

    def add(self, votes: Sequence[Vote], key: bytes | None = None, swapped: bool = False) -> None:
        """Add the votes that one record has on the comparison with this key of 16 bytes.

        `swapped` is true where the record shows the answers in the other order than the key's.
        There is no key where no other record has votes on the comparison.
        """
        key = key or uuid4().bytes
        for name, outcome in votes:
            annotator = self.annotators.setdefault(name, len(self.annotators))
            shown = _TIE if outcome is None else outcome
            self._votes += _PACK(key, annotator, shown, swapped)

    def merge(self, later: "Agreement") -> None:
        """Add the votes of other records."""
        names, votes = self.annotators, np.frombuffer(later._votes, _VOTE).copy()
        numbers = [names.setdefault(name, len(names)) for name in later.annotators]
        votes["annotator"] = np.array(numbers, np.uint32)[votes["annotator"]]
        self._votes += votes.tobytes()

    def figures(self) -> dict[str, Any] | None:
        """The figures for report.json; None where fewer than two annotators judged."""
        if len(self.annotators) < 2:
            return None
        by, shown, outcomes, units = self._counted()
        counts = _table(units, outcomes)
        others = counts[units]
        others[np.arange(len(by)), outcomes] -= 1
        has_usual = 2 * others.max(axis=1) > others.sum(axis=1)
        differs = has_usual & (others.argmax(axis=1) != outcomes)
        compared = np.bincount(by[has_usual], minlength=len(self.annotators)).tolist()
        differed = np.bincount(by[differs], minlength=len(self.annotators)).tolist()
        shown = _table(by, shown).tolist()
        names = sorted(self.annotators, key=lambda n: (-sum(shown[self.annotators[n]]), n))
        rows = []
        for name in names[:LISTED]:
            annotator = self.annotators[name]
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

    def _counted(self) -> list[np.ndarray]:
        """Of each vote: its annotator, its outcome as shown and as compared, and its comparison.

        An annotator's first vote on a comparison counts.
        """
        votes = np.frombuffer(self._votes, _VOTE)
        keys, by, shown, swapped = (votes[name] for name in _VOTE.names)
        _, first, units = np.unique(keys, return_index=True, return_inverse=True)
        opposite = (swapped != swapped[first][units]) & (shown != _TIE)
        outcomes = np.where(opposite, 1 - shown, shown)  # in the order of the first vote
        _, counted = np.unique(units * len(self.annotators) + by, return_index=True)
        return [values[counted] for values in (by, shown, outcomes, units)]


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

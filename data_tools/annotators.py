"""Several judgements of one comparison: their verdict, and how far the annotators agree.

Agreement is a ceiling for any model trained on the judgements. It is counted comparison by
comparison; no votes or texts are held.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from data_tools.record import BadRecord, LabeledComparison, Pair, Result, Vote

LISTED = 1_000  # annotators with figures of their own; the others are counted
_TIE = 2  # after 0 and 1, the positions of the answers


def decide(comparison: LabeledComparison, mode: str) -> list[Result]:
    """What the votes of a comparison come to: one result; under `each` one for every vote."""
    found: list[Result] = []
    ballots = [comparison.votes]
    if mode == "each":
        ballots = [(vote,) for vote in comparison.votes]
    for votes in ballots:
        try:
            found.append(pair_of(comparison, verdict(votes, mode), votes, mode))
        except BadRecord as fault:
            found.append(fault.copy())
    return found


def one_each(votes: Iterable[Vote]) -> list[Vote]:
    """One vote of each annotator, however often it was given; who voted both ways has none."""
    given: dict[str, set[int | None]] = {}
    for name, outcome in votes:
        given.setdefault(name, set()).add(outcome)
    return [(name, outcomes.pop()) for name, outcomes in given.items() if len(outcomes) == 1]


def verdict(votes: Iterable[Vote], mode: str) -> int:
    """The position of the answer that won. Raises BadRecord (`tie` or `disagreement`)."""
    outcomes = Counter(outcome for _, outcome in one_each(votes))
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
        detail = "the judgement is that neither answer is better"
        raise BadRecord("tie", f"{detail}; remove the pair, or label the better one")
    return leading


def pair_of(
    comparison: LabeledComparison, won: int, votes: Sequence[Vote] = (), mode: str = ""
) -> Pair:
    """The pair of a comparison, given the position of the answer that won by these votes."""
    sides = (comparison.first, comparison.second)
    annotator = votes[0][0] if mode == "each" else None
    extras = (comparison.tools, comparison.chat_template_kwargs, annotator)
    first_won = won == 0 if comparison.is_ordered else None
    return Pair(comparison.prompt, sides[won], sides[1 - won], first_won, *extras)


@dataclass
class Agreement:
    """Counts of comparisons and of votes.

    `comparisons` are counted by how often each of the answers won and how often there was a tie,
    `votes` by the annotator, the outcome as it was shown, and whether it differs from that of most
    other votes on the comparison (None where these have no majority).
    """

    comparisons: Counter[tuple[int, ...]] = field(default_factory=Counter)
    votes: Counter[tuple[str, int, bool | None]] = field(default_factory=Counter)

    def add(self, votes: Sequence[Vote], swapped: Iterable[bool] = repeat(False)) -> None:
        """Add all votes on one comparison, of which there is one an annotator, see `one_each`.

        `swapped` tells which votes are on the answers in the other order than the first vote is.
        """
        if not votes:
            return
        shown = [_TIE if won is None else won for _, won in votes]
        outcomes = [
            1 - won if is_swapped and won != _TIE else won
            for won, is_swapped in zip(shown, swapped, strict=False)
        ]
        counts = tuple(map(outcomes.count, range(3)))
        self.comparisons[counts] += 1
        for (name, _), own, outcome in zip(votes, shown, outcomes, strict=True):
            others = [*counts]
            others[outcome] -= 1
            usual = others.index(max(others))
            differs = usual != outcome if 2 * others[usual] > sum(others) else None
            self.votes[name, own, differs] += 1

    def merge(self, later: "Agreement") -> None:
        """Add the counts of other comparisons."""
        self.comparisons.update(later.comparisons)
        self.votes.update(later.votes)

    def figures(self) -> dict[str, Any] | None:
        """The figures for report.json; None where fewer than two annotators judged."""
        shown, compared, differed = defaultdict(lambda: [0, 0, 0]), Counter(), Counter()
        for (name, outcome, differs), votes in self.votes.items():
            shown[name][outcome] += votes
            compared[name] += votes if differs is not None else 0
            differed[name] += votes if differs else 0
        if len(shown) < 2:
            return None
        names = sorted(shown, key=lambda name: (-sum(shown[name]), name))
        rows = []
        for name in names[:LISTED]:
            first, second, tied = shown[name]
            row = {"annotator": name, "judgements": first + second + tied}
            row["compared"] = compared[name]
            row["differs"] = share(differed[name], compared[name])
            row["first_answer_wins"] = share(first, first + second)
            rows.append(row | {"ties": share(tied, row["judgements"])})
        ties = Counter({c: n for c, n in self.comparisons.items() if 2 * c[_TIE] > sum(c)})
        several = Counter({c: n for c, n in self.comparisons.items() if sum(c) > 1})
        split = Counter({c: n for c, n in several.items() if max(c) < sum(c)})
        reliability = alpha(several)
        return {
            "annotators": len(names),
            "comparisons": self.comparisons.total(),
            "judged_twice": several.total(),
            "disagreeing": split.total(),
            "disagreeing_share": share(split.total(), several.total()),
            "majority_ties": ties.total(),
            "alpha": None if reliability is None else round(reliability, 4),
            "per_annotator": rows,
            "other_annotators": len(names) - len(rows),
        }


def alpha(units: Mapping[tuple[int, ...], int]) -> float | None:
    """Krippendorff's alpha for nominal values; None where the values do not vary.

    `units` with two values or more are counted by how often each value was given. From the
    coincidence matrix, as in Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability",
    section C.
    """
    unequal = []
    for counts, times in units.items():
        size = sum(counts)
        unequal.append(times * (size**2 - sum(count**2 for count in counts)) / (size - 1))
    given = [[times * count for count in counts] for counts, times in units.items()]
    totals = [*map(sum, zip(*given, strict=True))]  # of each value
    values = sum(totals)
    expected = values**2 - sum(total**2 for total in totals)
    return 1 - (values - 1) * math.fsum(unequal) / expected if expected else None


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None

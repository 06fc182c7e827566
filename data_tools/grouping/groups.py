"""Which rows belong together, in numbers, and what a group of them comes to."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data_tools import ranking
from data_tools.record import BadRecord, Location

_SMALL = 32  # rows of a group up to which working its plan out again is cheaper than holding it

Locate = Callable[[int], Location]
"""The location of the record that a row belongs to."""


@dataclass(slots=True)
class Outcome:
    """What some rows come to: a fault, or a pair of sides that are stored with the rows.

    `rows` are those that take part; the outcome is reported at the record of the first. `prompt`
    are the rows whose prompts make the prompt, `chosen` and `rejected` a row and which of its
    sides (0 prompt, 1 first, 2 second). `made` is how many pairs this makes, kept or not.
    """

    rows: Sequence[int]
    made: int
    fault: BadRecord | None = None
    prompt: Sequence[int] = ()
    chosen: tuple[int, int] = (0, 0)
    rejected: tuple[int, int] = (0, 0)
    first_won: bool | None = None


class Groups:
    """Rows by key, in the order in which they were added."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._number_of, self._rows = array("Q"), []

    def add(self, key: bytes) -> None:
        number = self._numbers.setdefault(key, len(self._numbers))
        if number == len(self._rows):
            self._rows.append(array("Q"))
        self._rows[number].append(len(self._number_of))
        self._number_of.append(number)

    def of(self, row: int) -> Sequence[int]:
        """All rows with this row's key."""
        return self._rows[self._number_of[row]]


class Plans:
    """What `work` makes of a group, asked for at each of its rows in turn.

    The plan of a large group is held while its rows pass; of small ones there may be too many.
    """

    def __init__(self, work: Callable[[Sequence[int]], Any]):
        self._work = work
        self._held: dict[int, Any] = {}  # by a group's first row

    def at(self, row: int, group: Sequence[int]) -> Any:
        if len(group) <= _SMALL:
            return self._work(group)
        if row == group[0]:
            self._held[row] = self._work(group)
        return self._held.pop(group[0]) if row == group[-1] else self._held[group[0]]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Pairs (winner, loser) and ties of one group, each by the first row that takes part."""

    pairs: dict[int, list[tuple[int, int]]]
    ties: dict[int, list[Sequence[int]]]
    taking_part: set[int]


def rank(group: Sequence[int], scores: Sequence[float], mode: str, margin: float) -> Ranking:
    """What --pairs picks from a group; where there are only ties, all rows share one tie."""
    picked, tied = ranking.pick(scores, mode, margin)
    pairs, ties, taking_part = {}, {}, set()
    for winner, loser in picked:
        pairs.setdefault(group[min(winner, loser)], []).append((group[winner], group[loser]))
        taking_part |= {group[winner], group[loser]}
    for positions in tied if picked else [range(len(group))]:
        rows = [group[position] for position in sorted(positions)]
        ties.setdefault(rows[0], []).append(rows)
        taking_part.update(rows)
    return Ranking(pairs, ties, taking_part)


def not_picked(mode: str) -> BadRecord:
    """The fault of an answer that is in no pair and no tie of its group."""
    return BadRecord(
        "unpaired",
        f"--pairs {mode} does not use answers between the best and the worst; use --pairs all to "
        "compare every two",
    )

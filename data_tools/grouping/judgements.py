"""Judgements of one comparison in several records, brought to one verdict."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_tools.annotators import verdict
from data_tools.grouping.groups import Groups, Locate, Outcome, Plans
from data_tools.keys import digest
from data_tools.record import BadRecord, Vote

_TIE = -1


@dataclass(frozen=True, slots=True)
class _Votes:
    """Each annotator's first vote, the first that differs from it, and the votes that count."""

    first: dict[int, int]
    other: dict[int, int]
    counted: list[int]


class Judgements:
    """Takes labeled comparisons; each vote on one is an entry here."""

    def __init__(self, mode: str, locate: Locate):
        self.rows = array("Q")  # the row of each entry
        self._mode, self._locate = mode, locate
        self._groups, self._plans = Groups(), Plans(self._votes)
        self._names: dict[bytes, int] = {}
        self._by, self._outcomes = array("I"), array("b")  # outcomes in the key's order of answers
        self._forward = bytearray()

    def add(self, row: int, key: bytes, value: tuple[tuple[Vote, ...], bool]) -> None:
        votes, forward = value
        for name, outcome in votes:
            self.rows.append(row)
            self._groups.add(key)
            self._by.append(self._names.setdefault(digest(name.encode()), len(self._names)))
            self._outcomes.append(_turned(_TIE if outcome is None else outcome, forward))
            self._forward.append(forward)

    def finish(self) -> None:
        """Nothing needs all entries at once."""

    def outcomes(self, entry: int) -> Iterator[Outcome]:
        """What the group of an entry comes to, as far as it is reported at this entry."""
        group, by, row = self._groups.of(entry), self._by[entry], self.rows[entry]
        votes = self._plans.at(entry, group)
        first = votes.first[by]
        if by in votes.other:
            is_first = self._outcomes[entry] == self._outcomes[first]
            other = self._locate(self.rows[votes.other[by] if is_first else first])
            yield Outcome([row], 1, _contradictory(other))
        elif entry != first:
            yield Outcome([row], 1, _duplicate(self._locate(self.rows[first])))
        elif entry == votes.counted[0]:
            yield self._verdict(row, self._forward[entry], votes.counted)

    def _verdict(self, row: int, forward: int, counted: Sequence[int]) -> Outcome:
        rows = [self.rows[vote] for vote in counted]
        given = (_turned(self._outcomes[vote], forward) for vote in counted)
        votes = [(str(voter), None if o == _TIE else o) for voter, o in enumerate(given)]
        try:
            won = verdict(votes, self._mode)
        except BadRecord as fault:
            return Outcome(rows, 0, fault)
        return Outcome(rows, 1, None, [row], (row, 1 + won), (row, 2 - won), won == 0)

    def _votes(self, group: Sequence[int]) -> _Votes:
        first, other = {}, {}
        for entry in group:
            start = first.setdefault(self._by[entry], entry)
            if self._outcomes[entry] != self._outcomes[start]:
                other.setdefault(self._by[entry], entry)
        return _Votes(first, other, [entry for by, entry in first.items() if by not in other])


def _turned(outcome: int, forward: int) -> int:
    return outcome if forward or outcome == _TIE else 1 - outcome


def _duplicate(first: object) -> BadRecord:
    return BadRecord(
        "duplicate",
        f"the same annotator's judgement of the same two answers is at {first}, which counts",
    )


def _contradictory(other: object) -> BadRecord:
    return BadRecord(
        "contradictory",
        f"this annotator judged the same two answers both ways, differently at {other}; decide "
        "which is right and remove the other",
    )

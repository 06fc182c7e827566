"""Answers to one prompt in several records, each rated alone, compared in pairs."""

from array import array
from bisect import bisect
from collections.abc import Iterator, Sequence

from data_tools.grouping.groups import Groups, Outcome, Plans, Ranking, not_picked, rank
from data_tools.record import BadRecord, ConvertError

_MOST = 1_000_000  # pairs of one prompt, beyond which it is another kind of field


class Ratings:
    """Takes scored answers; each is an entry here."""

    def __init__(self, mode: str, min_margin: float):
        self.rows = array("Q")  # the row of each entry
        self._mode, self._margin, self._groups = mode, min_margin, Groups()
        self._kinds, self._rankings = Plans(self._sorted), Plans(self._ranked)
        self._scores, self._graded = array("d"), bytearray()

    def add(self, row: int, key: bytes, value: tuple[float, bool]) -> None:
        score, graded = value
        self.rows.append(row)
        self._groups.add(key)
        self._scores.append(score)
        self._graded.append(graded)

    def finish(self) -> None:
        """Nothing needs all entries at once."""

    def outcomes(self, entry: int) -> Iterator[Outcome]:
        """What the group of an entry comes to, as far as it is reported at this entry."""
        group = self._groups.of(entry)
        if not self._graded[entry]:
            yield from self._matched(entry, group)
        elif len(group) > 1:
            yield from self._compared(entry, group)
        else:
            detail = "no other record rates an answer to this prompt; add one or remove this one"
            yield Outcome([self.rows[entry]], 0, BadRecord("unpaired", detail))

    def _matched(self, entry: int, group: Sequence[int]) -> Iterator[Outcome]:
        """Good with bad: this entry with all further ones of the other kind."""
        is_good = self._scores[entry] > 0
        others = self._kinds.at(entry, group)[not is_good]
        if not others:
            yield Outcome([self.rows[entry]], 0, _unmatched("false" if is_good else "true"))
        for other in others[bisect(others, entry) :]:
            yield self._pair(entry, other) if is_good else self._pair(other, entry)

    def _sorted(self, group: Sequence[int]) -> tuple[list[int], list[int]]:
        """The entries that are bad, and those that are good."""
        kinds = [], []
        for entry in group:
            kinds[self._scores[entry] > 0].append(entry)
        bad, good = map(len, kinds)
        if bad * good > _MOST:
            raise ConvertError(
                f"one prompt has {good:,} answers judged true and {bad:,} judged false, which "
                f"would make {bad * good:,} pairs; is it the prompt? Remove most of its records"
            )
        return kinds

    def _compared(self, entry: int, group: Sequence[int]) -> Iterator[Outcome]:
        """The higher with the lower, as --pairs asks for."""
        found = self._rankings.at(entry, group)
        for winner, loser in found.pairs.get(entry, ()):
            yield self._pair(winner, loser)
        for tied in found.ties.get(entry, ()):
            rows = [self.rows[other] for other in tied]
            yield Outcome(rows, int(bool(found.pairs)), self._tie(tied))
        if entry not in found.taking_part:
            yield Outcome([self.rows[entry]], 0, not_picked(self._mode))

    def _ranked(self, group: Sequence[int]) -> Ranking:
        return rank(group, [self._scores[entry] for entry in group], self._mode, self._margin)

    def _pair(self, winner: int, loser: int) -> Outcome:
        won, lost = self.rows[winner], self.rows[loser]
        rows = sorted((won, lost))
        return Outcome(rows, 1, None, rows[:1], (won, 1), (lost, 1), winner < loser)

    def _tie(self, tied: Sequence[int]) -> BadRecord:
        answers = f"{len(tied)} answers to this prompt are rated"
        if len({self._scores[entry] for entry in tied}) == 1:
            detail = f"{answers} equally, so none is better; remove them"
        else:
            detail = f"{answers} closer than --min-margin {self._margin:g}; lower it or remove them"
        return BadRecord("tie", detail)


def _unmatched(missing: str) -> BadRecord:
    return BadRecord(
        "unpaired",
        f"no record judges another answer to this prompt {missing}, so there is nothing to compare "
        "this one with; add one or remove this one",
    )

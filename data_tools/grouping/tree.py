"""Messages in one record each, which name the one before them, joined to trees again."""

from array import array
from collections.abc import Iterator, Sequence

from data_tools.grouping.groups import Locate, Outcome, Plans, Ranking, not_picked, rank
from data_tools.record import BadRecord

_NONE, _CYCLE, _VISITED = -1, -2, -3


class Tree:
    """Takes tree messages; each is an entry here. Chains may be long, so nothing recurses."""

    def __init__(self, mode: str, locate: Locate):
        self.rows = array("Q")  # the row of each entry
        self._mode, self._locate, self._plans = mode, locate, Plans(self._ranked)
        self._ids: dict[bytes, int] = {}
        self._entry_of = array("q")  # of each id: the first message that has it
        self._own, self._parent = array("Q"), array("q")  # ids of every message
        self._ranks = array("d")
        self._answers: dict[int, array] = {}  # of an id: the assistant's replies to it
        self._alone = bytearray()  # whether a message is no such reply

    def add(self, row: int, key: bytes, value: tuple[bytes | None, float | None, bool]) -> None:
        parent_key, rank_, is_answer = value
        entry = len(self.rows)
        self.rows.append(row)
        own = self._id(key)
        parent = _NONE if parent_key is None else self._id(parent_key)
        if self._entry_of[own] == _NONE:
            self._entry_of[own] = entry
        self._own.append(own)
        self._parent.append(parent)
        self._ranks.append(float("nan") if rank_ is None else rank_)
        alone = not is_answer or parent == _NONE or self._entry_of[own] != entry
        self._alone.append(alone)
        if not alone:
            self._answers.setdefault(parent, array("Q")).append(entry)

    def _id(self, key: bytes) -> int:
        number = self._ids.setdefault(key, len(self._ids))
        if number == len(self._entry_of):
            self._entry_of.append(_NONE)
        return number

    def finish(self) -> None:
        """Find where each message's chain ends, and which messages are above groups of answers.

        Each message is visited at most twice, however deep or wide the tree is.
        """
        self._ends = array("q", [_NONE]) * len(self._own)
        for entry in range(len(self._own)):
            self._find_end(entry)
        self._above = bytearray(len(self._own))
        for group in self._answers.values():
            at = self._up(group[0]) if len(group) > 1 else _NONE
            while at != _NONE and not self._above[at]:
                self._above[at] = True
                at = self._up(at)

    def _find_end(self, entry: int) -> None:
        path, at = [], entry
        while self._ends[at] == _NONE:
            self._ends[at] = _VISITED
            path.append(at)
            above = self._up(at)
            if above == _NONE:
                self._ends[at] = at
            else:
                at = above
        end = _CYCLE if self._ends[at] == _VISITED else self._ends[at]
        for visited in path:
            self._ends[visited] = end

    def _up(self, entry: int) -> int:
        parent = self._parent[entry]
        return _NONE if parent == _NONE else self._entry_of[parent]

    def outcomes(self, entry: int) -> Iterator[Outcome]:
        """What the siblings of a message come to, as far as it is reported at this message."""
        row, first = self.rows[entry], self._entry_of[self._own[entry]]
        if first != entry:
            where = self._locate(self.rows[first])
            fault = BadRecord("duplicate", f"a message with the same id is at {where}; it is kept")
            yield Outcome([row], 0, fault)
            return
        group = [entry] if self._alone[entry] else self._answers[self._parent[entry]]
        if len(group) == 1:
            if not self._above[entry]:
                yield Outcome([row], 0, self._broken(entry) or _no_sibling())
            return
        found = self._plans.at(entry, group)
        if found:
            yield from self._compared(entry, found)
        elif entry == group[0]:
            fault = self._broken(entry) or self._unranked(group)
            yield Outcome(self._rows([*group, *self._chain(entry)]), 0, fault)

    def _rows(self, entries: Sequence[int]) -> list[int]:
        return [self.rows[entry] for entry in entries]

    def _ranked(self, group: Sequence[int]) -> Ranking | None:
        """None where the group as a whole is unusable."""
        end = self._ends[group[0]]
        is_whole = end != _CYCLE and self._parent[end] == _NONE
        if not is_whole or self._missing(group):
            return None
        return rank(group, [-self._ranks[entry] for entry in group], self._mode, 0.0)

    def _missing(self, group: Sequence[int]) -> int:
        return sum(self._ranks[entry] != self._ranks[entry] for entry in group)

    def _compared(self, entry: int, found: Ranking) -> Iterator[Outcome]:
        pairs, ties = found.pairs.get(entry, ()), found.ties.get(entry, ())
        chain = self._rows(self._chain(entry)) if pairs or ties else []
        for winner, loser in pairs:
            # Ranked answers are often in the order of their ranks, so no order is known.
            won, lost = self.rows[winner], self.rows[loser]
            rows = [*sorted((won, lost)), *chain]
            yield Outcome(rows, 1, None, chain, (won, 0), (lost, 0))
        for tied in ties:
            detail = f"{len(tied)} replies to one message have the same rank, so none is better"
            fault = BadRecord("tie", f"{detail}; remove them")
            yield Outcome([*self._rows(tied), *chain], int(bool(found.pairs)), fault)
        if entry not in found.taking_part and not self._above[entry]:
            yield Outcome([self.rows[entry]], 0, not_picked(self._mode))

    def _chain(self, entry: int) -> list[int]:
        """The messages above one, from the root down, each once."""
        chain: dict[int, None] = {}
        at = self._up(entry)
        while at != _NONE and at not in chain:
            chain[at] = None
            at = self._up(at)
        return list(reversed(chain))

    def _broken(self, entry: int) -> BadRecord | None:
        """Why there is no dialogue from a root to this message."""
        end = self._ends[entry]
        if end == _CYCLE:
            detail = "the messages above this one form a circle without a first one"
            return BadRecord("wrong_type", f"{detail}; fix their parent_id")
        if self._parent[end] == _NONE:
            return None
        where = self._locate(self.rows[end])
        which = "this message" if end == entry else f"the message at {where}, above this one,"
        return BadRecord(
            "missing_field",
            f"the parent_id of {which} is that of no record; add the message or remove what "
            "replies to it",
        )

    def _unranked(self, group: Sequence[int]) -> BadRecord:
        return BadRecord(
            "null_label",
            f"{self._missing(group)} of {len(group)} replies to one message have no rank, so their "
            "order is incomplete; rank them all or remove them",
        )


def _no_sibling() -> BadRecord:
    return BadRecord(
        "unpaired",
        "this message has no second answer next to it and leads to none; add one or remove it",
    )

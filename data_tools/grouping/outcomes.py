"""What a group of rows comes to: the verdict of a vote, or pairs of rated or ranked answers.

A rule takes a group in order and yields what is reported at those of its rows that are `here`, the
rows of one block.
"""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from data_tools import ranking
from data_tools.annotators import verdict
from data_tools.block import Task
from data_tools.grouping.groups import NONE, Groups
from data_tools.record import (
    BadRecord,
    ConvertError,
    LabeledComparison,
    ScoredAnswer,
    TreeMessage,
)

_MOST = 1_000_000  # pairs of one prompt, beyond which it is another kind of field


@dataclass(slots=True)
class Outcome:
    """What some rows come to: a fault, or a pair of sides that are stored with the rows.

    `rows` are those that take part; the outcome is reported at the record of the first. `made` is
    how many pairs this makes, kept or not. `prompt` are the rows whose prompts make the prompt,
    `chosen` and `rejected` a row and which of its sides (0 prompt, 1 first, 2 second).
    """

    rows: Sequence[int]
    made: int
    fault: BadRecord | None = None
    prompt: Sequence[int] = ()
    chosen: tuple[int, int] = (0, 0)
    rejected: tuple[int, int] = (0, 0)
    first_won: bool | None = None


def outcomes(groups: Groups, here: range, task: Task) -> list[Outcome]:
    """What is reported at the rows of a block, in their order."""
    rule = _RULES[groups.blocks[0].files.pending]
    found, done = [], set()
    bounds = (groups.of(name, slice(here.start, here.stop)) for name in ("start", "stop"))
    for row, start, stop in zip(here, *bounds, strict=True):
        if start == stop:  # a pair of its own, which was counted as made before
            found.append(Outcome([row], 0, None, [row], (row, 1), (row, 2)))
        elif start not in done:
            done.add(start)
            found += rule(groups, groups.of("sorted", slice(start, stop)), here, task)
    found.sort(key=lambda outcome: outcome.rows[0])
    return found


def _judgements(groups: Groups, group: Sequence[int], here: range, task: Task) -> Iterator[Outcome]:
    """Judgements of one comparison, brought to one verdict; an annotator's first one counts."""
    voters, given, forward = (groups.of(name, group) for name in ("other", "value", "flag"))
    first, different = {}, {}  # positions in the group, by voter
    for at, voter in enumerate(voters):
        before = first.setdefault(voter, at)
        if given[at] != given[before]:
            different.setdefault(voter, at)
    counted = [at for voter, at in first.items() if voter not in different]
    for at, (row, voter) in enumerate(zip(group, voters, strict=True)):
        if row not in here:
            continue
        if voter in different:
            other = different[voter] if given[at] == given[first[voter]] else first[voter]
            detail = "this annotator judged the same two answers both ways, differently at "
            detail += f"{groups.locate(group[other])}; decide which is right and remove the other"
            yield Outcome([row], 1, BadRecord("contradictory", detail))
        elif at != first[voter]:
            detail = "the same annotator's judgement of the same two answers is at "
            detail += f"{groups.locate(group[first[voter]])}, which counts"
            yield Outcome([row], 1, BadRecord("duplicate", detail))
        elif at == counted[0]:
            rows = [group[vote] for vote in counted]
            votes = [(voters[vote], _shown(given[vote], forward[at])) for vote in counted]
            try:
                won = verdict(votes, task.annotators)
            except BadRecord as fault:
                yield Outcome(rows, 0, fault)
            else:
                yield Outcome(rows, 1, None, [row], (row, 1 + won), (row, 2 - won), won == 0)


def _shown(outcome: float, forward: bool) -> int | None:
    """An outcome in the order in which a record shows the answers."""
    if outcome < 0:
        return None
    return int(outcome) if forward else 1 - int(outcome)


def _ratings(groups: Groups, group: Sequence[int], here: range, task: Task) -> Iterator[Outcome]:
    """Answers to one prompt, each rated alone: good with bad ones, or higher with lower ones."""
    scores, mode, margin = groups.of("value", group), task.options.pairs, task.options.min_margin
    if not groups.columns["flag"][group[0]]:
        yield from _matched(group, scores, here)
        return
    if len(group) == 1:
        detail = "no other record rates an answer to this prompt; add one or remove this one"
        yield Outcome(group, 0, BadRecord("unpaired", detail))
        return
    pairs, ties, unused = _ranked(tuple(group), tuple(scores), mode, margin)
    yield from (_rated(won, lost) for won, lost in pairs if min(won, lost) in here)
    score_of = dict(zip(group, scores, strict=True))
    for rows in ties:
        if rows[0] in here:
            detail = f"{len(rows)} answers to this prompt are rated "
            if len({score_of[row] for row in rows}) == 1:
                detail += "equally, so none is better; remove them"
            else:
                detail += f"closer than --min-margin {margin:g}; lower it or remove them"
            yield Outcome(rows, int(bool(pairs)), BadRecord("tie", detail))
    yield from (Outcome([row], 0, _not_picked(mode)) for row in unused if row in here)


def _matched(group: Sequence[int], scores: Sequence[float], here: range) -> Iterator[Outcome]:
    """Good with bad: each answer with all further ones of the other kind."""
    good = [row for row, score in zip(group, scores, strict=True) if score > 0]
    bad = [row for row, score in zip(group, scores, strict=True) if score <= 0]
    if (pairs := len(bad) * len(good)) > _MOST:
        raise ConvertError(
            f"one prompt has {len(good):,} answers judged true and {len(bad):,} judged false, "
            f"which would make {pairs:,} pairs; is it the prompt? Remove most of its records"
        )
    for row, score in zip(group, scores, strict=True):
        if row not in here:
            continue
        others, missing = (bad, "false") if score > 0 else (good, "true")
        if not others:
            detail = f"no record judges another answer to this prompt {missing}, so there is "
            detail += "nothing to compare this one with; add one or remove this one"
            yield Outcome([row], 0, BadRecord("unpaired", detail))
        for other in others[bisect(others, row) :]:
            yield _rated(row, other) if score > 0 else _rated(other, row)


def _rated(won: int, lost: int) -> Outcome:
    rows = sorted((won, lost))
    return Outcome(rows, 1, None, rows[:1], (won, 1), (lost, 1), won < lost)


@lru_cache(100)  # a large group is in many blocks
def _ranked(
    group: tuple[int, ...], scores: tuple[float, ...], mode: str, margin: float
) -> tuple[list[tuple[int, int]], list[Sequence[int]], list[int]]:
    """The pairs (winner, loser) that --pairs picks from a group, its ties, and all other rows.

    Where there are only ties, all rows share one.
    """
    picked, tied = ranking.pick(scores, mode, margin)
    pairs = [(group[winner], group[loser]) for winner, loser in picked]
    ties = [sorted((group[one], group[other])) for one, other in tied] if pairs else [[*group]]
    used = {row for rows in (*pairs, *ties) for row in rows}
    return pairs, ties, [row for row in group if row not in used]


def _not_picked(mode: str) -> BadRecord:
    return BadRecord(
        "unpaired",
        f"--pairs {mode} does not use answers between the best and the worst; use --pairs all to "
        "compare every two",
    )


def _siblings(groups: Groups, group: Sequence[int], here: range, task: Task) -> Iterator[Outcome]:
    """The assistant's replies to one message, or a message that is no such reply."""
    row, mode = group[0], task.options.pairs
    first = int(groups.columns["first"][row])
    is_above = dict(zip(group, groups.of("is_above", group), strict=True))
    if first != row:
        where = groups.locate(first)
        fault = BadRecord("duplicate", f"a message with the same id is at {where}; it is kept")
        yield Outcome(group, 0, fault)
        return
    if len(group) == 1:
        if not is_above[row]:
            detail = "this message has no second answer next to it and leads to none; add one or "
            no_sibling = BadRecord("unpaired", detail + "remove it")
            yield Outcome(group, 0, _broken(groups, row) or no_sibling)
        return
    ranks, chain = groups.of("value", group), _chain(groups, row)
    fault = _broken(groups, row)
    if not fault and (missing := sum(rank != rank for rank in ranks)):
        detail = (
            f"{missing} of {len(ranks)} replies to one message have no rank, so their order is "
        )
        fault = BadRecord("null_label", detail + "incomplete; rank them all or remove them")
    if fault:
        if row in here:
            yield Outcome([*dict.fromkeys((*group, *chain))], 0, fault)
        return
    pairs, ties, unused = _ranked(tuple(group), tuple(-rank for rank in ranks), mode, 0.0)
    for won, lost in pairs:
        if min(won, lost) in here:
            # Ranked answers are often in the order of their ranks, so no order is known.
            yield Outcome([*sorted((won, lost)), *chain], 1, None, chain, (won, 0), (lost, 0))
    for rows in ties:
        if rows[0] in here:
            detail = f"{len(rows)} replies to one message have the same rank, so none is better"
            fault = BadRecord("tie", f"{detail}; remove them")
            yield Outcome([*rows, *chain], int(bool(pairs)), fault)
    for row in unused:
        if row in here and not is_above[row]:
            yield Outcome([row], 0, _not_picked(mode))


def _chain(groups: Groups, row: int) -> list[int]:
    """The messages above one, from the root down, each once."""
    up, chain = groups.columns["up"], {}
    at = int(up[row])
    while at != NONE and at not in chain:
        chain[at] = None
        at = int(up[at])
    return [*reversed(chain)]


def _broken(groups: Groups, row: int) -> BadRecord | None:
    """Why there is no dialogue from a root to this message."""
    end = int(groups.columns["end"][row])
    if groups.columns["up"][end] != NONE:
        detail = "the messages above this one form a circle without a first one"
        return BadRecord("wrong_type", f"{detail}; fix their parent_id")
    if not groups.columns["is_orphan"][end]:
        return None
    where = groups.locate(end)
    which = "this message" if end == row else f"the message at {where}, above this one,"
    return BadRecord(
        "missing_field",
        f"the parent_id of {which} is that of no record; add the message or remove what "
        "replies to it",
    )


_RULES: dict[type, Callable] = {
    LabeledComparison: _judgements,
    ScoredAnswer: _ratings,
    TreeMessage: _siblings,
}

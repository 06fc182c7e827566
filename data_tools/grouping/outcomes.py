"""What a group of rows comes to: the verdict of a vote, or pairs of rated or ranked answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from data_tools import ranking
from data_tools.annotators import verdict
from data_tools.block import Task
from data_tools.grouping.groups import NONE, Groups, Links
from data_tools.record import BadRecord, ConvertError, LabeledComparison, ScoredAnswer, TreeMessage

_MOST = 1_000_000  # pairs of one prompt, beyond which it is another kind of field

_BOTH_WAYS = BadRecord(
    "contradictory",
    "this annotator judged the same two answers both ways, differently at {}; decide which is "
    "right and remove the other",
)
_AGAIN = BadRecord(
    "duplicate", "the same annotator's judgement of the same two answers is at {}, which counts"
)


@dataclass(slots=True)
class Outcome:
    """What some rows come to: a fault, or a pair, which `assemble` makes of their results.

    `rows` are those that take part; the outcome is reported at the record of the first. `made` is
    true where a fault is that of a pair. `won` is the position of the answer that won, among
    those of a comparison or else the first two rows. `other` is the row whose place belongs in the
    fault, which many share. `assemble` adds what is known of the rows: the `places` of those to
    load, and the records of all, as `members` and `shared` of a block_files.Row.
    """

    rows: Sequence[int]
    fault: BadRecord | None = None
    made: bool = False
    won: int = 0
    other: int | None = None
    places: Sequence[tuple[str, int]] = ()
    members: tuple[int, ...] = ()
    shared: str | None = None


def _judgements(groups: Groups, group: Sequence[int], task: Task) -> Iterator[Outcome]:
    """Judgements of one comparison, brought to one verdict unless each makes a pair.

    Of an annotator's equal ones the first counts, and none where they differ; as pairs of their
    own they are left to `dedupe`.
    """
    if groups.of("key", group[:1]) == [0]:  # a pair of its own
        yield Outcome(group)
        return
    voters, given, forward = (groups.of(name, group) for name in ("other", "value", "flag"))
    judged: dict[int, list[int]] = {}  # positions in the group, by voter
    for at, voter in enumerate(voters):
        judged.setdefault(voter, []).append(at)
    counted, faults = [], []
    for first, *others in judged.values():
        different = [at for at in others if given[at] != given[first]]
        if not different:
            counted.append(first)
        for at in (first, *others) if different else others:
            other = different[0] if different and given[at] == given[first] else first
            fault = _BOTH_WAYS if different else _AGAIN
            faults.append(Outcome([group[at]], fault, made=True, other=group[other]))
    names = [groups.annotators[voter] for voter in voters]
    cast = [(names[at], _shown(given[at], forward[at])) for at in counted]
    groups.agreement.add(cast, [forward[at] != forward[counted[0]] for at in counted])
    ballots = [counted] if counted else []
    if task.annotators == "each":
        faults, ballots = [], [[at] for at in range(len(group))]
    yield from faults
    for ballot in ballots:
        rows, way = [group[at] for at in ballot], forward[ballot[0]]
        try:
            votes = [(names[at], _shown(given[at], way)) for at in ballot]
            yield Outcome(rows, won=verdict(votes, task.annotators))
        except BadRecord as fault:
            yield Outcome(rows, fault.copy())


def _shown(outcome: float, forward: bool) -> int | None:
    """An outcome in the order in which a record shows the answers."""
    if outcome < 0:
        return None
    return int(outcome) if forward else 1 - int(outcome)


def _ratings(groups: Groups, group: Sequence[int], task: Task) -> Iterator[Outcome]:
    """Answers to one prompt, each rated alone: good with bad ones, or higher with lower ones."""
    scores = groups.of("value", group)
    if groups.of("flag", group[:1]) == [False]:
        yield from _matched(group, scores)
    elif len(group) == 1:
        detail = "no other record rates an answer to this prompt; add one or remove this one"
        yield Outcome(group, BadRecord("unpaired", detail))
    else:
        margin = task.options.min_margin
        what = "answers to this prompt are rated"
        yield from _picked(group, scores, what, task.options.pairs, margin)


def _matched(group: Sequence[int], scores: Sequence[float]) -> Iterator[Outcome]:
    """Each good answer with each bad one."""
    good = [row for row, score in zip(group, scores, strict=True) if score > 0]
    bad = [row for row, score in zip(group, scores, strict=True) if score <= 0]
    if (pairs := len(bad) * len(good)) > _MOST:
        raise ConvertError(
            f"one prompt has {len(good):,} answers judged true and {len(bad):,} judged false, "
            f"which would make {pairs:,} pairs; is it the prompt? Remove most of its records"
        )
    yield from (_compared(won, lost) for won, lost in product(good, bad))
    missing = "false" if good else "true"
    detail = f"no record judges another answer to this prompt {missing}, so there is nothing to "
    fault = BadRecord("unpaired", f"{detail}compare this one with; add one or remove this one")
    yield from (Outcome([row], fault) for row in group if not pairs)


def _compared(won: int, lost: int, *above: int) -> Outcome:
    """The pair of two answers, below some messages."""
    return Outcome([*sorted((won, lost)), *above], won=int(won > lost))


def _picked(
    group: Sequence[int],
    scores: Sequence[float],
    what: str,
    mode: str,
    margin: float = 0.0,
    above: Sequence[int] = (),
) -> Iterator[Outcome]:
    """The pairs that --pairs picks from answers below some messages, the ties, and each other row.

    Where there are only ties, all rows share one. `what` begins the detail of a tie.
    """
    pairs, ties = ranking.pick(scores, mode, margin)
    ties = [sorted(tie) for tie in ties] if pairs else [range(len(group))]
    yield from (_compared(group[won], group[lost], *above) for won, lost in pairs)
    for tie in ties:
        how = "equally, so none is better; remove them"
        if len({scores[at] for at in tie}) > 1:
            how = f"closer than --min-margin {margin:g}; lower it or remove them"
        fault = BadRecord("tie", f"{len(tie)} {what} {how}")
        yield Outcome([*(group[at] for at in tie), *above], fault, made=bool(pairs))
    used = {at for places in (*pairs, *ties) for at in places}
    yield from (Outcome([r], _not_picked(mode)) for at, r in enumerate(group) if at not in used)


@cache
def _not_picked(mode: str) -> BadRecord:
    return BadRecord(
        "unpaired",
        f"--pairs {mode} does not use answers between the best and the worst; use --pairs all to "
        "compare every two",
    )


def _siblings(groups: Groups, group: Sequence[int], task: Task) -> Iterator[Outcome]:
    """The assistant's replies to one message, or a message that is no such reply."""
    row, links = group[0], groups.links
    if links.first[row] != row:
        where = groups.locate(links.first[row])
        fault = BadRecord("duplicate", f"a message with the same id is at {where}; it is kept")
        yield Outcome(group, fault)
    elif len(group) > 1:
        yield from _replies(groups, group, task.options.pairs)
    elif not links.is_above[row]:
        detail = "this message has no second answer next to it and leads to none; add one or "
        yield Outcome(group, BadRecord("unpaired", f"{detail}remove it"))


def _replies(groups: Groups, group: Sequence[int], mode: str) -> Iterator[Outcome]:
    """The pairs of ranked replies to one message."""
    links, ranks, chain = groups.links, groups.of("value", group), _chain(groups.links, group[0])
    fault = _broken(groups, (*chain, group[0])[0])
    if not fault and (missing := sum(rank != rank for rank in ranks)):
        detail = f"{missing} of {len(ranks)} replies to one message have no rank, so their order is"
        fault = BadRecord("null_label", f"{detail} incomplete; rank them all or remove them")
    if fault:
        yield Outcome([*dict.fromkeys((*group, *chain))], fault)
        return
    what = "replies to one message are ranked"
    for outcome in _picked(group, [-rank for rank in ranks], what, mode, above=chain):
        # A reply that is not compared is of use where answers are below it.
        if len(outcome.rows) > 1 or not links.is_above[outcome.rows[0]]:
            yield outcome


def _chain(links: Links, row: int) -> list[int]:
    """The messages above one, from the root down, each once."""
    chain, at = {}, int(links.up[row])
    while at != NONE and at not in chain:
        chain[at] = None
        at = int(links.up[at])
    return [*reversed(chain)]


def _broken(groups: Groups, top: int) -> BadRecord | None:
    """Why the dialogue that this message begins has no beginning."""
    if groups.links.up[top] != NONE:
        detail = "the messages above this one form a circle without a first one"
        return BadRecord("wrong_type", f"{detail}; fix their parent_id")
    if groups.of("other", [top]) == [0]:
        return None
    return BadRecord(
        "missing_field",
        f"the parent_id of the message at {groups.locate(top)} is that of no record; add the "
        "message or remove what replies to it",
    )


RULES: dict[type, Callable[[Groups, Sequence[int], Task], Iterator[Outcome]]] = {
    LabeledComparison: _judgements,
    ScoredAnswer: _ratings,
    TreeMessage: _siblings,
}

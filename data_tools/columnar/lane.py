"""Plain records of a block kept as columns, all others of it through the row-wise lane."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from data_tools import block, keys, odd, parts, rules
from data_tools.columnar import probe
from data_tools.columnar.texts import Texts
from data_tools.formats.shape import tidy_key, tidy_keys
from data_tools.layout import LayoutFinder
from data_tools.record import Fault, Pair, Part, Place, Raw, Reject
from data_tools.settle import FORWARD, IN_TEST, Split
from data_tools.side import fold

_LABELS = 100  # different values of a label, beyond which it is none

# What shows that a plain row breaks no rule; of a rule that is not here the lane knows nothing.
PROVEN = {
    "bad_roles": "sides that are texts have no roles",
    "empty_prompt": "something is left of the folded prompt",
    "empty_response": "something is left of either folded answer",
    "identical_pair": "the keys of the answers differ",
    "overlong": "the sizes say so",
    "excluded": "the line is not listed",
}


@dataclass(frozen=True)
class Table:
    """Records with the same fields as columns of texts.

    `order` is each one's index in its block. `labelled` gives a field's values and each record's
    by its number among them, `raws` some rows as they were read. `again` is how those that are
    plain are read again, given the numbers of the prompt's field, of the answers' and of what is
    kept; without it their texts are stored, and `kept` beside them. A field that is no column holds
    something else than texts.
    """

    names: tuple[str, ...]
    shells: dict[str, str | None]  # the roles of fields that are one message in place of a text
    columns: dict[str, pa.Array]
    order: np.ndarray
    records: np.ndarray  # ordinals, as their places have them
    lines: np.ndarray  # 0 where there are none
    crowded: np.ndarray
    starts: np.ndarray  # bytes of the file before each
    lengths: np.ndarray  # bytes of each
    cells: bool
    empty: str | None  # what stands in a field that says nothing
    raws: Callable[[np.ndarray], Sequence[Raw | Reject]]
    labelled: Callable[[str], tuple[np.ndarray, list[Any]]]
    again: Callable[..., parts.Again] | None = None
    kept: Sequence[pa.Array] = ()


Items = list[tuple[int, Raw | Reject]]


@dataclass(frozen=True)
class Found:
    """What a stretch holds: rows as a table, the other records by their index."""

    table: Table
    others: Items
    records: int
    lines: int
    stop: int


def content(
    table: Table,
    others: Items,
    file: str,
    task: block.Task,
    split: Split,
    again: bool,
) -> tuple[parts.Content, list[block.Checked]] | None:
    """The block's content, and what the row-wise lane checked of it.

    `others` are the block's records beside the table, by their index; `again` says that all can
    be read again. None where a record waits for others, of other blocks perhaps.
    """
    plain = _plain(table, file, task)
    if plain is None:
        every = table.raws(np.arange(len(table.order)))
        others = [*others, *zip(table.order.tolist(), every, strict=True)]
    slow = [(index, next(block.check([item], task))) for index, item in others]
    if plain is not None:
        rest = np.flatnonzero(~plain.rows)
        slow += zip(table.order[rest].tolist(), _judged(table, plain, rest, task), strict=True)
    slow.sort(key=itemgetter(0))
    if any(isinstance(result, Part) for _, checked in slow for result in checked.results):
        return None
    content = parts.gather(slow, split, task.keep, again)
    if plain is not None:
        content = parts.merge(_kept(table, plain, task, split, again), content)
    return content, [checked for _, checked in slow]


def _judged(
    table: Table, plain: "_Plain", rows: np.ndarray, task: block.Task
) -> Iterator[block.Checked]:
    """The rows that are not plain through the rules, or from the start where need be."""
    texts = {name: table.columns[name].take(pa.array(rows)).to_pylist() for name in plain.texts}
    for at, (row, item) in enumerate(zip(rows.tolist(), table.raws(rows), strict=True)):
        outcome = plain.outcomes[plain.numbers[row]] if plain.structured[row] else None
        if outcome is None or isinstance(item, Reject):
            yield next(block.check([item], task))
            continue
        if isinstance(outcome, probe.Outcome):
            fields = (outcome.prompt, outcome.chosen, outcome.rejected)
            outcome = Pair(*(texts[name][at] for name in fields), outcome.first_won)
        kept = block.kept(item.value, task)
        yield block.judge(item.place, item.value, [outcome], task, kept)


@dataclass
class _Plain:
    """The rows that are plainly sound, and what is known of all rows."""

    rows: np.ndarray  # of booleans
    structured: np.ndarray  # whether a row is what its label's outcome says, sound or not
    outcomes: list[probe.Outcome | Fault | None]
    numbers: np.ndarray  # each row's outcome
    prompt: str
    answers: tuple[str, str]  # the fields that hold them
    first: np.ndarray  # whether the one of these that stands first is the chosen one
    first_won: np.ndarray
    texts: dict[str, Texts]
    digests: dict[str, list[bytes]]  # by field, of each row's text as a prompt or an answer


def _plain(table: Table, file: str, task: block.Task) -> _Plain | None:
    count = len(table.order)
    found = probe.kinds(table.names, task)
    if found is None or not count or rules.RULES.keys() != PROVEN.keys():
        return None
    numbers, values = np.zeros(count, np.int64), [None]
    for name in found.labels:
        numbers, values = table.labelled(name)
    if len(values) > _LABELS:
        return None
    asked = table.shells, table.names, found, table.empty, table.cells, task
    outcomes = [probe.outcome(value, *asked) for value in values]
    pairs = [o if isinstance(o, probe.Outcome) else None for o in outcomes]
    if len({o.messages for o in pairs if o}) > 1:
        return None
    fields = {(o.prompt, o.chosen, o.rejected) for o in pairs if o}
    prompts = {prompt for prompt, *_ in fields}
    answers = sorted({name for _, *both in fields for name in both})
    if len(prompts) != 1 or len(answers) != 2 or not {*prompts, *answers} <= table.columns.keys():
        return None
    prompt = prompts.pop()
    structured = np.array([o is not None for o in outcomes])[numbers]
    for name in table.columns.keys() & {*found.others}:
        structured &= pc.equal(table.columns[name], table.empty).to_numpy(zero_copy_only=False)
    rows = np.array([o is not None for o in pairs])[numbers]
    texts = {name: Texts(table.columns[name]) for name in (prompt, *answers)}
    digests = {}
    for name in texts:
        role = "user" if name == prompt else "assistant"
        before, after = keys.framed(role)
        folded = texts[name].folded
        digest = xxhash.xxh3_128_digest
        digests[name] = [digest(before + text + after) for text in folded]
        if table.cells and name == prompt:  # where the header may stand again
            rows &= np.array([text != fold(name).encode() for text in folded], bool)
        if table.cells:  # where structure stands as JSON
            structured &= ~np.array([text.startswith((b"[", b"{")) for text in folded], bool)
        if table.columns[name].null_count:
            structured &= table.columns[name].is_valid().to_numpy(zero_copy_only=False)
        rows &= np.fromiter(map(len, folded), np.int64, len(folded)) > 0
    one, other = (digests[name] for name in answers)
    rows &= np.array([a != b for a, b in zip(one, other, strict=True)], bool)
    if task.limits.max_chars is not None:
        longer = np.maximum(*(texts[name].sizes for name in answers))
        rows &= texts[prompt].sizes + longer <= task.limits.max_chars
    if task.limits.excluded:
        rows &= ~_listed(table, file, task.limits.excluded)
    rows &= structured
    chosen = np.array([o is not None and o.chosen == answers[0] for o in pairs])[numbers]
    won = np.array([-1 if o is None or o.first_won is None else o.first_won for o in pairs])
    return _Plain(
        rows=rows,
        structured=structured,
        outcomes=outcomes,
        numbers=numbers,
        prompt=prompt,
        answers=tuple(answers),
        first=chosen,
        first_won=won[numbers],
        texts=texts,
        digests=digests,
    )


def _listed(table: Table, file: str, excluded: frozenset[str]) -> np.ndarray:
    numbers = (values.tolist() for values in (table.lines, table.records, table.crowded))
    places = (Place(file, line or None, *more) for line, *more in zip(*numbers, strict=True))
    return np.array([str(place) in excluded for place in places], bool)


def _kept(
    table: Table, plain: _Plain, task: block.Task, split: Split, read_again: bool
) -> parts.Content:
    """The plain rows as the content of a block."""
    rows = np.flatnonzero(plain.rows)
    prompt = plain.texts[plain.prompt]
    one, (name, other) = plain.first, plain.answers
    sizes = [plain.texts[n].sizes for n in (name, other)]
    entries, loose = _entries(plain, rows, split)
    numbers = dict.fromkeys(parts.NUMBERS, 0) | {
        "order": table.order[rows].astype(np.uint64) * parts.SLOTS,
        "line": table.lines[rows],
        "record": table.records[rows],
        "crowded": table.crowded[rows],
        "start": table.starts[rows],
        "length": table.lengths[rows],
        "again": np.where(one, 1, 2)[rows],
        "odd": _warned(table, plain, rows),
        "first_won": plain.first_won[rows],
        "prompt_size": prompt.sizes[rows],
        "chosen_size": np.where(one, *sizes)[rows],
        "rejected_size": np.where(one, *reversed(sizes))[rows],
        "in_test": (entries[:, 15] & IN_TEST) > 0,
        "loose": np.array([key or 0 for key in loose], np.uint64),
        "has_loose": np.array([key is not None for key in loose], bool),
    }
    counted = {
        wanted: np.broadcast_to(numbers[wanted], len(rows)).astype(kind)
        for wanted, kind in parts.NUMBERS.items()
    }
    messages = len(rows) > 0 and any(table.shells[name] for name in plain.texts)
    finder = LayoutFinder(messages)
    raws = None if read_again else [item.value for item in table.raws(rows)]
    layout, rest = finder.layout(task.keep), parts.Rest(raws=raws)
    again, stored = None, {}
    if table.again is not None:
        places = {column: at for at, column in enumerate(table.names)}
        tidy = tidy_keys({column: column for column in table.names})
        kept = tuple(places.get(tidy.get(tidy_key(wanted))) for wanted in task.keep)
        again = table.again(places[plain.prompt], (places[name], places[other]), kept)
    else:
        columns = [*(table.columns[field] for field in (plain.prompt, name, other)), *table.kept]
        mask = pa.array(plain.rows)
        stored = {str(at): column.filter(mask) for at, column in enumerate(columns)}
    return parts.Content(counted, {}, stored, again, layout, finder, entries.tobytes(), rest)


def _entries(plain: _Plain, rows: np.ndarray, split: Split) -> tuple[np.ndarray, list[int | None]]:
    """`settle.entry` of each row, and its prompt's loose key."""
    one, other = plain.answers
    digest, salt, tail = xxhash.xxh3_128_digest, split.salt, keys.NO_EXTRAS
    every = rows.tolist()
    prompts = [plain.digests[plain.prompt][row] for row in every]
    answers = [(plain.digests[one][row], plain.digests[other][row]) for row in every]
    lower = [a < b for a, b in answers]
    found = [
        digest(p + (a + b if low else b + a) + tail)
        for p, (a, b), low in zip(prompts, answers, lower, strict=True)
    ]
    entries = np.empty((len(every), 16), np.uint8)
    entries[:, :8] = np.frombuffer(b"".join(prompts), np.uint8).reshape(-1, 16)[:, :8]
    entries[:, 8:] = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)[:, :8]
    below = split.below.to_bytes(17, "big")
    in_test = np.array([b"\0" + digest(salt + prompt) < below for prompt in prompts], bool)
    forward = np.array(lower, bool) == plain.first[rows]
    entries[:, 15] = entries[:, 15] & 0xFC | forward * FORWARD | in_test * IN_TEST
    loose = plain.texts[plain.prompt].loose()
    return entries, [loose[row] for row in every]


def _warned(table: Table, plain: _Plain, rows: np.ndarray) -> np.ndarray:
    """The bits of each row's warnings, looked for where a hint of one stands."""
    hinted = np.zeros(len(plain.rows), bool)
    for texts in plain.texts.values():
        hinted[texts.hinted] = True
    found = np.zeros(len(rows), np.uint16)
    for at in np.flatnonzero(hinted[rows]).tolist():
        sides = (table.columns[name][int(rows[at])].as_py() for name in plain.texts)
        found[at] = parts.bits(odd.warnings(Pair(*sides)))  # whichever answer is the better
    return found

"""What became of a block of records, as Arrow files between the passes.

`PATH.pairs` holds the pairs that passed every check, `PATH.pending` what only makes pairs together
with other records, `PATH.rejects` what was rejected; all in the order of the records.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools import arrays, keys
from data_tools.checks import Limits, PairColumns, check
from data_tools.dedupe import FORWARD, IN_TEST, Split
from data_tools.keys import Column
from data_tools.record import Location, Pair, Pending, as_messages
from data_tools.schema import SIDES, Contents, dump, load
from data_tools.warnings import pair_warnings

SLOTS = 1 << 32  # results of one record, in the order of everything in a block

_WHERE = {
    "order": np.int64,  # SLOTS times the record's index in its block, plus the result's index
    "line": np.int64,  # 0 for none
    "record": np.int64,
    "shares_line": np.int8,
}
_FIGURES = {
    "first_won": np.int8,  # -1 where no order of presentation is known
    "warnings": np.uint16,  # a bit for each of PAIR_WARNINGS
    "prompt_size": np.int32,  # characters
    "chosen_size": np.int32,
    "rejected_size": np.int32,
    "in_test": np.int8,
    "near_duplicate": np.uint64,
    "has_near_duplicate": np.int8,
}
ENTRY = np.dtype([("key", "S16"), ("other", "S16"), ("value", "f8"), ("flag", "?")])
"""What grouping needs to know of a pending row: what `key` says it belongs together with, if any.

Of a LabeledComparison, `other` is the annotator, `value` the answer that won in the order of `key`
(-1 for a tie), and `flag` says whether the record shows the answers in that order. Of a
ScoredAnswer, `value` is the score and `flag` is `graded`. Of a TreeMessage, `other` is the message
before it, `value` the rank or NaN, and `flag` says whether it is an answer.
"""


@dataclass(slots=True)
class Row:
    """A result of a record, and where it comes from. Before it is written it is a pair.

    `raw` is the record as it was read. `members` are the records that make the pair together, by
    their ordinal in the whole input; `shared` lists them for a reject, as a piece of JSON.
    """

    order: int
    location: Location
    result: Pair | Pending
    kept: tuple[str | None, ...]
    raw: Any
    members: tuple[int, ...] = ()
    shared: str | None = None


@dataclass(slots=True)
class RejectRow:
    """A line of rejects.jsonl; `raw` is JSON, `made` true for a pair that was counted as made."""

    order: int
    location: Location
    reason: str
    detail: str
    raw: str
    made: bool
    shared: str | None = None


@dataclass(frozen=True)
class PairKeys:
    """What deduplication needs of the pairs of a block.

    `entries` are 16 bytes a pair: its key with flags in the last two bits. `near_duplicates` are
    the 8-byte keys of the prompts that may be in test. `excluded` are the entries of pairs that
    --exclude-rows lists, with their sources.
    """

    entries: bytes = b""
    near_duplicates: bytes = b""
    excluded: tuple[tuple[bytes, str], ...] = ()


@dataclass
class BlockFiles:
    """The files of a block, and what the driver needs to know of them."""

    path: str
    pairs: int = 0
    size: int = 0  # bytes
    contents: Contents = field(default_factory=Contents)
    keys: PairKeys | None = PairKeys()
    pending: type | None = None  # what is in PATH.pending, where it is there in place of PATH.pairs


@dataclass(frozen=True)
class Storage:
    """What the files of a block hold: the columns to `keep`, and whether records as read.

    The latter are only needed where they cannot be read again.
    """

    keep: tuple[str, ...]
    raw: bool


def write_pairs(
    path: str, rows: Sequence[Row], limits: Limits, split: Split, storage: Storage
) -> tuple[BlockFiles, list[RejectRow]]:
    """Write the rows that pass every check to PATH.pairs; the others are returned as rejects."""
    columns = _columns(rows)
    sources = [str(row.location) for row in rows] if limits.excluded else ()
    failed = check(PairColumns(*columns, sources), limits)
    rejects = [
        RejectRow(row.order, row.location, *failed[at], as_json(row.raw), True, row.shared)
        for at, row in enumerate(rows)
        if at in failed
    ]
    entries, near_duplicates = _keys(rows, columns, split)
    excluded = tuple(
        (entries[at].tobytes(), sources[at]) for at in failed if failed[at][0] == "excluded"
    )
    sound = [row for at, row in enumerate(rows) if at not in failed]
    contents = Contents.of([row.result for row in sound])
    if contents.messages != columns[0].messages:  # only pairs that failed have messages
        files, _ = write_pairs(path, sound, Limits(), split, storage)
        return replace(files, keys=replace(files.keys, excluded=excluded)), rejects
    figures = {
        "first_won": [-1 if r.result.first_won is None else r.result.first_won for r in rows],
        "warnings": pair_warnings(columns),
        **{f"{name}_size": c.sizes for (name, _), c in zip(SIDES, columns, strict=True)},
        "in_test": (entries[:, 15] & IN_TEST) > 0,
        "near_duplicate": [key or 0 for key in near_duplicates],
        "has_near_duplicate": [key is not None for key in near_duplicates],
    }
    fields = _fields(rows, columns, contents, storage)
    fields |= {
        name: arrays.numbers(np.asarray(figures[name], kind)) for name, kind in _FIGURES.items()
    }
    batch = pa.RecordBatch.from_arrays([*fields.values()], [*fields])
    kept = np.ones(len(rows), bool)
    kept[[*failed]] = False
    if failed:
        batch = batch.filter(arrays.mask(kept))
    size = _write(f"{path}.pairs", batch)
    in_test = kept & figures["in_test"] & np.array(figures["has_near_duplicate"], bool)
    near = np.array(figures["near_duplicate"], np.uint64)[in_test].tobytes()
    found = PairKeys(entries[kept].tobytes(), near, excluded)
    return BlockFiles(path, int(kept.sum()), size, contents, found), rejects


def _columns(rows: Sequence[Row]) -> list[Column]:
    """The sides of the rows; texts become messages where any side is a list."""
    sides = [[getattr(row.result, name) for row in rows] for name, _ in SIDES]
    if any(list in set(map(type, side)) for side in sides):
        sides = [
            [as_messages(side, role) for side in column]
            for column, (_, role) in zip(sides, SIDES, strict=True)
        ]
    return [Column(column, role) for column, (_, role) in zip(sides, SIDES, strict=True)]


def _keys(
    rows: Sequence[Row], columns: Sequence[Column], split: Split
) -> tuple[np.ndarray, list[int | None]]:
    """The entry of each row, and the near-duplicate key of its prompt."""
    prompt, chosen, rejected = columns
    found, flags = [], []
    digests = zip(prompt.digests, chosen.digests, rejected.digests, strict=True)
    for row, (asked, won, lost) in zip(rows, digests, strict=True):
        pair = row.result
        extras = keys.extras_key(pair.tools, pair.chat_template_kwargs, pair.annotator)
        key, forward = keys.comparison_key(asked, won, lost, extras)
        found.append(key)
        flags.append(FORWARD * forward | IN_TEST * split.in_test(asked))
    entries = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16).copy()
    entries[:, 15] = entries[:, 15] & 0xFC | np.array(flags, np.uint8)
    return entries, keys.near_duplicate_keys(prompt.whole)


def _fields(
    rows: Sequence[Row], columns: Sequence[Column], contents: Contents, storage: Storage
) -> dict[str, pa.Array]:
    """The columns of a file of pairs, without their figures."""
    schema = contents.schema(())
    fields = {name: schema.side(column) for (name, _), column in zip(SIDES, columns, strict=True)}
    if contents.tools:
        fields["tools"] = arrays.strings([row.result.tools for row in rows])
    if contents.kwargs:
        texts = [dump(row.result.chat_template_kwargs) for row in rows]
        fields["chat_template_kwargs"] = arrays.strings(texts)
    for at, name in enumerate(storage.keep):
        fields[f"keep {name}"] = arrays.strings([row.kept[at] for row in rows])
    if storage.raw:
        fields["raw"] = arrays.strings([as_json(row.raw) for row in rows])
    if any(row.members for row in rows):
        flat = np.array([member for row in rows for member in row.members], np.int64)
        lengths = [len(row.members) for row in rows]
        fields["members"] = arrays.lists(lengths, ["record"], [arrays.numbers(flat)])
        fields["shared"] = arrays.strings([row.shared for row in rows])
    return fields | _where(rows)


def _where(rows: Sequence[Row | RejectRow]) -> dict[str, pa.Array]:
    where = {
        "order": [row.order for row in rows],
        "line": [row.location.line or 0 for row in rows],
        "record": [row.location.record for row in rows],
        "shares_line": [row.location.shares_line for row in rows],
    }
    return {name: arrays.numbers(np.array(where[name], kind)) for name, kind in _WHERE.items()}


def write_pending(
    path: str, rows: Sequence[Row], entries: Sequence[tuple], storage: Storage
) -> BlockFiles:
    """Write what waits for other records to PATH.pending: its sides as pairs, and its entries."""
    columns, contents = _columns(rows), Contents.of([row.result for row in rows])
    fields = _fields(rows, columns, contents, storage)
    won = [-1 if r.result.first_won is None else r.result.first_won for r in rows]
    is_text = [
        sum(isinstance(getattr(row.result, name), str) << at for at, (name, _) in enumerate(SIDES))
        for row in rows
    ]
    fields["first_won"] = arrays.numbers(np.array(won, np.int8))
    fields["is_text"] = arrays.numbers(np.array(is_text, np.int8))  # a bit for each side
    data = pa.py_buffer(np.array(entries, ENTRY).tobytes())
    kind = pa.binary(ENTRY.itemsize)
    fields["entry"] = pa.Array.from_buffers(kind, len(entries), [None, data])
    batch = pa.RecordBatch.from_arrays([*fields.values()], [*fields])
    return BlockFiles(path, 0, _write(f"{path}.pending", batch), contents)


def entries_of(batch: pa.RecordBatch) -> np.ndarray:
    """The entry of each row of a PATH.pending file."""
    return np.frombuffer(batch.column("entry").buffers()[1], ENTRY, len(batch))


def write_rejects(path: str, rejects: Iterable[RejectRow]) -> int:
    """Write PATH.rejects in order; returns its bytes."""
    rows = sorted(rejects, key=lambda reject: reject.order)
    fields = {
        name: arrays.strings([getattr(row, name) for row in rows])
        for name in ("reason", "detail", "raw", "shared")
    }
    fields["made"] = arrays.numbers(np.array([row.made for row in rows], np.int8))
    fields |= _where(rows)
    return _write(f"{path}.rejects", pa.RecordBatch.from_arrays([*fields.values()], [*fields]))


def _write(path: str, batch: pa.RecordBatch) -> int:
    with pa.OSFile(path, "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        return file.tell()


def read(path: str) -> pa.RecordBatch:
    """A file of a block, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(path)).get_batch(0)


def numbers_of(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return arrays.to_numpy(batch.column(name))


def members_of(batch: pa.RecordBatch) -> list[tuple[int, ...]] | None:
    """The members of each pair; None where each pair is of one record."""
    if "members" not in batch.schema.names:
        return None
    return [tuple(m["record"] for m in members) for members in batch.column("members").to_pylist()]


def read_rejects(path: str, file: str) -> list[RejectRow]:
    """The rows of PATH.rejects."""
    batch = read(f"{path}.rejects")
    columns = (batch.column(name).to_pylist() for name in ("reason", "detail", "raw", "shared"))
    made = numbers_of(batch, "made").tolist()
    return [
        RejectRow(order, location, reason, detail, raw, bool(was_made), shared)
        for order, location, reason, detail, raw, shared, was_made in zip(
            numbers_of(batch, "order").tolist(), locations(batch, file), *columns, made, strict=True
        )
    ]


def locations(
    batch: pa.RecordBatch, file: str, rows: Sequence[int] | slice = slice(None)
) -> list[Location]:
    """Where the records of some rows start; ordinals count from the block's first record."""
    where = (numbers_of(batch, name)[rows].tolist() for name in ("line", "record", "shares_line"))
    return [
        Location(file, line or None, record, bool(shares))
        for line, record, shares in zip(*where, strict=True)
    ]


def pairs_of(batch: pa.RecordBatch, rows: Sequence[int], contents: Contents) -> list[Pair]:
    """Some rows of a PATH.pending file as pairs."""
    batch = batch.take(arrays.numbers(np.array(rows, np.int64)))
    as_json = [key for key, is_json in contents.message_keys.items() if is_json]
    is_text = numbers_of(batch, "is_text").tolist()
    sides = []
    for bit, (name, _) in enumerate(SIDES):
        column = batch.column(name).to_pylist()
        if contents.messages:
            column = [
                side[0]["content"] if texts & (1 << bit) else side
                for side, texts in zip(column, is_text, strict=True)
            ]
        if as_json:
            column = [
                side
                if isinstance(side, str)
                else [m | {key: load(m[key]) for key in as_json} for m in side]
                for side in column
            ]
        sides.append(column)
    none = [None] * len(batch)
    tools = batch.column("tools").to_pylist() if contents.tools else none
    kwargs = batch.column("chat_template_kwargs").to_pylist() if contents.kwargs else none
    won = [None if w < 0 else bool(w) for w in numbers_of(batch, "first_won").tolist()]
    return [
        Pair(prompt, first, second, first_won, tool, load(arguments))
        for prompt, first, second, first_won, tool, arguments in zip(
            *sides, won, tools, kwargs, strict=True
        )
    ]


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

"""What became of a block of records, in files between the passes.

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
from data_tools.checks import Limits, PairColumns, check, pair_warnings
from data_tools.dedupe import FORWARD, IN_TEST, KEY, Split
from data_tools.keys import Column
from data_tools.record import Location, Pair, Pending, Reject, as_json, as_messages
from data_tools.schema import SIDES, Schema, dump

_REJECT = ("reason", "detail", "order", "made", "shared")
_PAIR = ("prompt", "chosen", "rejected", "first_won", "tools", "chat_template_kwargs")
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
    "near_duplicate": np.uint64,  # 0 where a prompt has no key
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


@dataclass
class BlockFiles:
    """The files of a block, and what the driver needs to know of them.

    `excluded` are the keys of pairs that --exclude-rows lists, with their sources.
    """

    path: str
    pairs: int = 0
    size: int = 0  # bytes
    schema: Schema = field(default_factory=Schema)
    excluded: tuple[tuple[bytes, str], ...] = ()
    pending: type | None = None  # what is in PATH.pending, where it is there in place of PATH.pairs


def write_pairs(
    path: str,
    rows: Sequence[Row],
    limits: Limits,
    split: Split,
    keep: tuple[str, ...],
    with_raw: bool,
) -> tuple[BlockFiles, list[Reject]]:
    """Write the rows that pass every check to PATH.pairs; the others are returned as rejects.

    `keep` names the columns of --keep. Records as read are only written `with_raw`, where they
    cannot be read again.
    """
    columns = _columns(rows)
    sources = [str(row.location) for row in rows] if limits.excluded else ()
    failed = check(PairColumns(*columns, sources), limits)
    rejects = [
        Reject(row.location, *failed[at], as_json(row.raw), row.order, True, row.shared)
        for at, row in enumerate(rows)
        if at in failed
    ]
    pair_keys = _pair_keys(rows, columns, split)
    excluded = tuple(
        (pair_keys[at].tobytes(), sources[at]) for at in failed if failed[at][0] == "excluded"
    )
    sound = [row for at, row in enumerate(rows) if at not in failed] if failed else rows
    schema = Schema.of([row.result for row in sound])
    if schema.messages != columns[0].messages:  # only pairs that failed have messages
        files, _ = write_pairs(path, sound, Limits(), split, keep, with_raw)
        return replace(files, excluded=excluded), rejects
    figures = {
        "first_won": [-1 if r.result.first_won is None else r.result.first_won for r in rows],
        "warnings": pair_warnings(columns),
        **{f"{name}_size": c.sizes for (name, _), c in zip(SIDES, columns, strict=True)},
        "near_duplicate": keys.near_duplicate_keys(columns[0].whole),
    }
    fields = _fields(rows, columns, schema) | _records(rows, keep, with_raw)
    fields |= {
        name: arrays.numbers(np.array(figures[name], kind)) for name, kind in _FIGURES.items()
    }
    fields["key"] = arrays.fixed_size(pair_keys.tobytes(), KEY.itemsize)
    batch = pa.RecordBatch.from_arrays([*fields.values()], [*fields])
    if failed:
        kept = np.ones(len(rows), bool)
        kept[[*failed]] = False
        batch = batch.filter(arrays.mask(kept))
    size = _write(f"{path}.pairs", batch)
    return BlockFiles(path, len(batch), size, schema, excluded), rejects


def _columns(rows: Sequence[Row]) -> list[Column]:
    """The sides of the rows; texts become messages where any side is a list."""
    sides = [[getattr(row.result, name) for row in rows] for name, _ in SIDES]
    if any(list in set(map(type, side)) for side in sides):
        sides = [
            [as_messages(side, role) for side in column]
            for column, (_, role) in zip(sides, SIDES, strict=True)
        ]
    return [Column(column, role) for column, (_, role) in zip(sides, SIDES, strict=True)]


def _pair_keys(rows: Sequence[Row], columns: Sequence[Column], split: Split) -> np.ndarray:
    """The key of each row for deduplication, with its flags."""
    found, flags = [], []
    digests = zip(*(column.digests for column in columns), strict=True)
    for row, (asked, won, lost) in zip(rows, digests, strict=True):
        pair = row.result
        extras = keys.extras_key(pair.tools, pair.chat_template_kwargs, pair.annotator)
        key, forward = keys.comparison_key(asked, won, lost, extras)
        found.append(key)
        flags.append(FORWARD * forward | IN_TEST * split.in_test(asked))
    pair_keys = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16).copy()
    pair_keys[:, 15] = pair_keys[:, 15] & 0xFC | np.array(flags, np.uint8)
    return pair_keys


def _fields(rows: Sequence[Row], columns: Sequence[Column], schema: Schema) -> dict[str, pa.Array]:
    """The columns of pairs in a file, without what `_records` adds."""
    fields = {name: schema.side(column) for (name, _), column in zip(SIDES, columns, strict=True)}
    if schema.tools:
        fields["tools"] = arrays.strings([row.result.tools for row in rows])
    if schema.kwargs:
        texts = [dump(row.result.chat_template_kwargs) for row in rows]
        fields["chat_template_kwargs"] = arrays.strings(texts)
    if any(row.members for row in rows):
        flat = np.array([member for row in rows for member in row.members], np.int64)
        lengths = [len(row.members) for row in rows]
        fields["members"] = arrays.lists(lengths, ["record"], [arrays.numbers(flat)])
        fields["shared"] = arrays.strings([row.shared for row in rows])
    return fields


def _records(rows: Sequence[Row], keep: tuple[str, ...], with_raw: bool) -> dict[str, pa.Array]:
    """The columns that say which record a row comes from, and what is stored of it."""
    fields = {
        f"keep {name}": arrays.strings([row.kept[at] for row in rows])
        for at, name in enumerate(keep)
    }
    if with_raw:
        fields["raw"] = arrays.strings([as_json(row.raw) for row in rows])
    return fields | _where(rows)


def _where(rows: Sequence[Row]) -> dict[str, pa.Array]:
    where = {
        "order": [row.order for row in rows],
        "line": [row.location.line or 0 for row in rows],
        "record": [row.location.record for row in rows],
        "shares_line": [row.location.shares_line for row in rows],
    }
    return {name: arrays.numbers(np.array(where[name], kind)) for name, kind in _WHERE.items()}


def write_pending(
    path: str, rows: Sequence[Row], entries: Sequence[tuple], keep: tuple[str, ...], with_raw: bool
) -> BlockFiles:
    """Write what waits for other records to PATH.pending: as pairs in JSON, with its entries."""
    pairs = [as_json([getattr(row.result, name) for name in _PAIR]) for row in rows]
    entry = arrays.fixed_size(np.array(entries, ENTRY).tobytes(), ENTRY.itemsize)
    fields = {"pair": arrays.strings(pairs), "entry": entry} | _records(rows, keep, with_raw)
    batch = pa.RecordBatch.from_arrays([*fields.values()], [*fields])
    return BlockFiles(path, 0, _write(f"{path}.pending", batch))


def pairs_of(batch: pa.RecordBatch, rows: Sequence[int]) -> list[Pair]:
    """Some rows of a PATH.pending file as pairs."""
    texts = batch.column("pair")
    return [Pair(*json.loads(texts[row].as_py())) for row in rows]


def entries_of(batch: pa.RecordBatch) -> np.ndarray:
    """The entry of each row of a PATH.pending file."""
    return np.frombuffer(batch.column("entry").buffers()[1], ENTRY, len(batch))


def keys_of(path: str) -> np.ndarray:
    """The key of each row of a PATH.pairs file, as `dedupe` takes them."""
    batch = read(f"{path}.pairs")
    return np.frombuffer(batch.column("key").buffers()[1] or b"", KEY, len(batch))


def write_rejects(path: str, rejects: Iterable[Reject]) -> int:
    """Write PATH.rejects in order, two lines each: what is known of it, and the record as read.

    Returns its bytes.
    """
    with open(f"{path}.rejects", "w", encoding="utf-8") as file:
        for reject in sorted(rejects, key=lambda reject: reject.order):
            at, known = reject.location, [getattr(reject, name) for name in _REJECT]
            file.write(f"{as_json([at.line, at.record, at.shares_line, known])}\n{reject.raw}\n")
        return file.tell()


def read_rejects(path: str, file: str) -> list[Reject]:
    """The rejects of PATH.rejects; `file` is where the records come from."""
    with open(f"{path}.rejects", encoding="utf-8") as lines:
        found = [(json.loads(line), next(lines).rstrip("\n")) for line in lines]
    return [
        Reject(Location(file, *where), *known[:2], raw, *known[2:])
        for (*where, known), raw in found
    ]


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


def locations(
    batch: pa.RecordBatch, file: str, rows: Sequence[int] | slice = slice(None)
) -> list[Location]:
    """Where the records of some rows start; ordinals count from the block's first record."""
    where = (numbers_of(batch, name)[rows].tolist() for name in ("line", "record", "shares_line"))
    return [
        Location(file, line or None, record, bool(shares))
        for line, record, shares in zip(*where, strict=True)
    ]

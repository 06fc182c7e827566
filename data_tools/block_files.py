"""What became of a block of records, in files between the passes.

`PATH.pairs` holds the pairs that passed every check, `PATH.pending` what only makes pairs together
with other records, `PATH.rejects` what was rejected, the last two as JSON; all are in the order of
the records.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools import arrays, keys
from data_tools.annotators import pair_of
from data_tools.checks import Limits, PairColumns, check, pair_warnings
from data_tools.dedupe import FORWARD, IN_TEST, KEY
from data_tools.keys import Column
from data_tools.record import (
    LabeledComparison,
    Location,
    Pair,
    Reject,
    Result,
    ScoredAnswer,
    TreeMessage,
    as_json,
    as_messages,
)
from data_tools.schema import EXTRAS, SIDES, Schema, dump
from data_tools.splits import Split

_COMPARED = (LabeledComparison, ScoredAnswer)
_KINDS = {kind.__name__: kind for kind in (Pair, TreeMessage, *_COMPARED)}
_REJECT = ("reason", "detail", "raw", "made", "shared")

ENTRY = np.dtype(
    [
        *(("key", "u8"), ("other", "u8"), ("value", "f8"), ("flag", "?")),
        *(("line", "u4"), ("record", "u4"), ("shares_line", "?"), ("offset", "u4")),
    ]
)
"""What grouping needs to know of a pending row: what `key` says it belongs together with, if any.

Of a LabeledComparison, `other` is the annotator, `value` the answer that won in the order of `key`
(-1 for a tie), and `flag` says whether the record shows the answers in that order. Of a
ScoredAnswer, `value` is the score and `flag` is `graded`. Of a TreeMessage, `other` is the message
before it, `value` the rank or NaN, and `flag` says whether it is an answer. Keys are digests, 0 for
none. The other fields say where the record is, and the row in PATH.pending.
"""


@dataclass(slots=True)
class Row:
    """A result of a record, and where it comes from.

    `raw` is the record as it was read; `made` is true where the result counts as a pair that was
    made. `members` are the records that make it together, by their ordinal in the whole input;
    `shared` lists them for a reject, as a piece of JSON.
    """

    location: Location
    result: Result
    kept: tuple[str | None, ...]
    raw: Any
    made: bool = True
    members: tuple[int, ...] = ()
    shared: str | None = None
    in_test: bool = False  # by the inputs' own split of another of its records

    def reject(self, reason: str, detail: str) -> Reject:
        return Reject(self.location, reason, detail, as_json(self.raw), self.made, self.shared)


@dataclass
class BlockFiles:
    """The files of a block, and what the driver needs to know of them.

    `excluded` are the keys of pairs that --exclude-rows lists, with their sources. Where there is
    PATH.pending in place of PATH.pairs, `pending` is the kind of results in it, `entries` has an
    ENTRY for each, and `annotators` the names of those who judged, by their digests.
    """

    path: str
    pairs: int = 0
    made: int = 0  # those and the pairs among the rejects
    size: int = 0  # bytes
    schema: Schema = field(default_factory=Schema)
    excluded: tuple[tuple[bytes, str], ...] = ()
    pending: type | None = None
    entries: np.ndarray | None = None
    annotators: dict[int, str] = field(default_factory=dict)


def write_pairs(
    path: str, rows: list[Row], limits: Limits, split: Split, keep: tuple[str, ...], with_raw: bool
) -> tuple[BlockFiles, list[Reject]]:
    """Write the rows that pass every check to PATH.pairs; the others are returned as rejects.

    `keep` names the columns of --keep. Records as read are only written `with_raw`, where they
    cannot be read again.
    """
    pairs = [row.result for row in rows]
    columns = columns_of(pairs)
    sources = [str(row.location) for row in rows]  # no ordinals where blocks have lines
    failed = check(PairColumns(*columns, sources), limits)
    rejects = [row.reject(*failed[at]) for at, row in enumerate(rows) if at in failed]
    pair_keys = _pair_keys(rows, columns, split)
    excluded = tuple(
        (pair_keys[at].tobytes(), sources[at]) for at in failed if failed[at][0] == "excluded"
    )
    sound = [row for at, row in enumerate(rows) if at not in failed] if failed else rows
    schema = Schema.of([row.result for row in sound], keep)
    if schema.messages != columns[0].messages:  # only pairs that failed have messages
        files, _ = write_pairs(path, sound, Limits(), split, keep, with_raw)
        return replace(files, excluded=excluded), rejects
    fields = _fields(rows, columns, schema, with_raw)
    fields["source"] = arrays.strings(sources)
    key_buffers = [None, pa.py_buffer(pair_keys)]
    fields["key"] = pa.Array.from_buffers(pa.binary(KEY.itemsize), len(rows), key_buffers)
    batch = pa.RecordBatch.from_arrays([*fields.values()], [*fields])
    if failed:
        batch = batch.take(arrays.numbers(np.delete(np.arange(len(rows)), [*failed]), np.int64))
    with pa.OSFile(f"{path}.pairs", "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        known = {"size": file.tell(), "schema": schema, "excluded": excluded}
    return BlockFiles(path, len(batch), **known), rejects


def columns_of(pairs: Sequence[Pair]) -> list[Column]:
    """The sides of the pairs; texts become messages where any side is a list."""
    sides = [[getattr(pair, name) for pair in pairs] for name, _ in SIDES]
    if any(list in set(map(type, side)) for side in sides):
        sides = [
            [as_messages(side, role) for side in column]
            for column, (_, role) in zip(sides, SIDES, strict=True)
        ]
    return [Column(column, role) for column, (_, role) in zip(sides, SIDES, strict=True)]


def comparison_keys(pairs: Sequence[Pair], columns: Sequence[Column]) -> list[tuple[bytes, bool]]:
    """The key of each pair, whichever answer won, and whether the chosen one comes first in it."""
    digests = zip(*(column.digests for column in columns), strict=True)
    extras = (keys.extras_key(p.tools, p.chat_template_kwargs, p.annotator) for p in pairs)
    return [keys.comparison_key(*sides, own) for sides, own in zip(digests, extras, strict=True)]


def _pair_keys(rows: Sequence[Row], columns: Sequence[Column], split: Split) -> np.ndarray:
    """The key of each pair for deduplication, with its flags."""
    found, flags = [], []
    compared = comparison_keys([row.result for row in rows], columns)
    for row, prompt, (key, forward) in zip(rows, columns[0].digests, compared, strict=True):
        in_test = row.in_test or split.in_test(prompt, row.location.file, row.kept)
        found.append(key)
        flags.append(FORWARD * forward | IN_TEST * in_test)
    pair_keys = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16).copy()
    pair_keys[:, 15] = pair_keys[:, 15] & 0xFC | np.array(flags, np.uint8)
    return pair_keys


def _fields(
    rows: list[Row], columns: Sequence[Column], schema: Schema, with_raw: bool
) -> dict[str, pa.Array]:
    """The columns of PATH.pairs but for the key."""
    texts = {f"keep {name}": [row.kept[at] for row in rows] for at, name in enumerate(schema.keep)}
    for name in schema.extras:
        values = [getattr(row.result, name) for row in rows]
        texts[name] = [*map(dump, values)] if EXTRAS[name] else values
    if with_raw:
        texts["raw"] = [as_json(row.raw) for row in rows]
    if any(row.members for row in rows):
        texts["members"] = [as_json(row.members) for row in rows]
        texts["shared"] = [row.shared for row in rows]
    fields = {name: arrays.strings(values) for name, values in texts.items()}
    for (name, _), column in zip(SIDES, columns, strict=True):
        fields[name] = schema.side(column)
        fields[f"{name}_size"] = arrays.numbers(column.sizes, np.int32)
    places = [row.location for row in rows]
    first_won = [row.result.first_won for row in rows]
    return fields | {
        "line": arrays.numbers([place.line or 0 for place in places], np.int64),  # 0 for none
        "record": arrays.numbers([place.record for place in places], np.int64),
        "shares_line": arrays.numbers([place.shares_line for place in places], np.int8),
        "first_won": arrays.numbers([-1 if won is None else won for won in first_won], np.int8),
        "warnings": arrays.numbers(pair_warnings(columns), np.uint16),
        "near_duplicate": arrays.numbers(keys.near_duplicate_keys(columns[0].whole), np.uint64),
    }


def write_pending(path: str, rows: Sequence[Row]) -> BlockFiles:
    """Write rows that wait for other records to PATH.pending."""
    results, entries = [row.result for row in rows], []
    with open(f"{path}.pending", "wb") as file:
        for row, entry in zip(rows, _entries(results), strict=True):
            at = row.location
            entries.append((*entry, at.line or 0, at.record, at.shares_line, file.tell()))
            result = [getattr(row.result, name) for name in row.result.__slots__]
            where = [at.file, at.line, at.record, at.shares_line]
            known = [type(row.result).__name__, where, result, row.kept, row.raw]
            file.write(f"{as_json(known)}\n".encode())
        files = BlockFiles(path, size=file.tell(), entries=np.array(entries, ENTRY))
    (files.pending,) = {*map(type, results)} - {Pair}
    if files.pending is LabeledComparison:
        names = (name for found in results if type(found) is not Pair for name, _ in found.votes)
        files.annotators = {keys.digest_64(name.encode()): name for name in names}
    return files


def _entries(results: Sequence[Result]) -> Iterator[tuple[int, int, float, bool]]:
    """The first four fields of ENTRY for each result."""
    pairs = [_compared(result) for result in results if type(result) in _COMPARED]
    compared = iter(comparison_keys(pairs, columns_of(pairs)))
    for result in results:
        key, forward = next(compared) if type(result) in _COMPARED else (bytes(16), False)
        key = int.from_bytes(key[8:], "big")  # which depends on the prompt too
        if isinstance(result, LabeledComparison):
            ((name, won),) = result.votes  # a record that others may join has one annotator
            value = -1 if won is None else won if forward else 1 - won
            yield key, keys.digest_64(name.encode()), value, forward
        elif isinstance(result, ScoredAnswer):
            yield key, 0, result.score, result.graded
        elif isinstance(result, TreeMessage):
            ids = [
                keys.digest_64(name.encode()) if name else 0 for name in (result.key, result.parent)
            ]
            rank = math.nan if result.rank is None else result.rank
            yield *ids, rank, result.message["role"] == "assistant"
        else:
            yield 0, 0, 0.0, False


def _compared(found: LabeledComparison | ScoredAnswer) -> Pair:
    """A pair with the key of a comparison, or of a prompt."""
    if isinstance(found, LabeledComparison):
        return pair_of(found, 0)
    return Pair(found.prompt, "", "", None, found.tools, found.chat_template_kwargs)


def load_pending(places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Row]:
    """Pending rows by their places: the path of a block, and the offset in PATH.pending."""
    rows = {}
    for path, some in groupby(sorted(places), itemgetter(0)):
        with open(f"{path}.pending", "rb") as file:
            for place in some:
                file.seek(place[1])
                kind, where, result, kept, raw = json.loads(file.readline())
                rows[place] = Row(Location(*where), _KINDS[kind](*result), tuple(kept), raw)
    return rows


def keys_of(batch: pa.RecordBatch) -> np.ndarray:
    """The key of each row of a PATH.pairs file, as `dedupe` takes them."""
    return np.frombuffer(batch.column("key").buffers()[1] or b"", KEY, len(batch))


def write_rejects(path: str, rejects: Iterable[Reject]) -> int:
    """Write PATH.rejects; returns its bytes."""
    with open(f"{path}.rejects", "w", encoding="utf-8") as file:
        for reject in sorted(rejects, key=lambda reject: reject.location.record):
            at, known = reject.location, [getattr(reject, name) for name in _REJECT]
            file.write(f"{as_json([[at.file, at.line, at.record, at.shares_line], *known])}\n")
        return file.tell()


def read_rejects(path: str) -> list[Reject]:
    with open(f"{path}.rejects", encoding="utf-8") as lines:
        return [Reject(Location(*where), *known) for where, *known in map(json.loads, lines)]


def read(path: str) -> pa.RecordBatch:
    """A file of a block, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(path)).get_batch(0)


def numbers_of(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return arrays.to_numpy(batch.column(name))

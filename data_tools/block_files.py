"""What became of a block of records, in files between the passes.

`PATH.pairs` holds the pairs that passed every check, `PATH.pending` what only makes pairs together
with other records, `PATH.entries` an ENTRY for each of these, `PATH.rejects` what was rejected; all
in the order of the records.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from data_tools import arrays, keys
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

_KINDS = {kind.__name__: kind for kind in (Pair, LabeledComparison, ScoredAnswer, TreeMessage)}
_REJECT = ("reason", "detail", "made", "shared")

_NUMBERS = {
    "line": np.int64,  # 0 for none
    "record": np.int64,  # see BlockResult
    "shares_line": np.int8,
    "first_won": np.int8,  # -1 where no order of presentation is known
    "warnings": np.uint16,  # a bit for each of PAIR_WARNINGS
    "prompt_size": np.int32,  # characters
    "chosen_size": np.int32,
    "rejected_size": np.int32,
    "near_duplicate": np.uint64,  # 0 where a prompt has no key
}

ENTRY = np.dtype(
    [
        *(("key", "S16"), ("other", "S16"), ("value", "f8"), ("flag", "?")),
        *(("line", "i8"), ("record", "i8"), ("shares_line", "?"), ("offset", "i8")),
    ]
)
"""What grouping needs to know of a pending row: what `key` says it belongs together with, if any.

Of a LabeledComparison, `other` is the annotator, `value` the answer that won in the order of `key`
(-1 for a tie), and `flag` says whether the record shows the answers in that order. Of a
ScoredAnswer, `value` is the score and `flag` is `graded`. Of a TreeMessage, `other` is the message
before it, `value` the rank or NaN, and `flag` says whether it is an answer. The other fields say
where the record is, and the row in PATH.pending.
"""


@dataclass(slots=True)
class Row:
    """A result of a record, and where it comes from.

    `raw` is the record as it was read. `members` are the records that make the pair together, by
    their ordinal in the whole input; `shared` lists them for a reject, as a piece of JSON.
    """

    location: Location
    result: Result
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
    rejects = [
        Reject(row.location, *failed[at], as_json(row.raw), True, row.shared)
        for at, row in enumerate(rows)
        if at in failed
    ]
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
    fields["source"] = arrays.split_strings("\0".join(sources).encode(), len(sources))
    fields["key"] = arrays.fixed_size(pair_keys.tobytes(), KEY.itemsize)
    batch = pa.RecordBatch.from_arrays([*fields.values()], [*fields])
    if failed:
        batch = batch.take(arrays.numbers(np.delete(np.arange(len(rows)), [*failed])))
    with pa.OSFile(f"{path}.pairs", "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        return BlockFiles(path, len(batch), file.tell(), schema, excluded), rejects


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
        in_test = split.in_test(prompt, row.location.file, row.kept)
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
    numbers = {
        "line": [row.location.line or 0 for row in rows],
        "record": [row.location.record for row in rows],
        "shares_line": [row.location.shares_line for row in rows],
        "first_won": [-1 if r.result.first_won is None else r.result.first_won for r in rows],
        "warnings": pair_warnings(columns),
        "near_duplicate": keys.near_duplicate_keys(columns[0].whole),
    }
    fields = {name: arrays.strings(values) for name, values in texts.items()}
    for (name, _), column in zip(SIDES, columns, strict=True):
        fields[name] = schema.side(column)
        numbers[f"{name}_size"] = column.sizes
    return fields | {
        name: arrays.numbers(np.array(numbers[name], kind)) for name, kind in _NUMBERS.items()
    }


def write_pending(path: str, rows: Sequence[Row], entries: Sequence[tuple]) -> BlockFiles:
    """Write what waits for other records; `entries` are the first four fields of ENTRY."""
    found = []
    with open(f"{path}.pending", "wb") as file:
        for row, entry in zip(rows, entries, strict=True):
            at = row.location
            found.append((*entry, at.line or 0, at.record, at.shares_line, file.tell()))
            result = [getattr(row.result, name) for name in row.result.__slots__]
            where = [at.file, at.line, at.record, at.shares_line]
            known = [type(row.result).__name__, where, result, row.kept, row.raw]
            file.write(f"{as_json(known)}\n".encode())
        size = file.tell()
    np.array(found, ENTRY).tofile(f"{path}.entries")
    return BlockFiles(path, 0, size)


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
    """Write PATH.rejects in the order of the records, two lines each: what is known, the record.

    Returns its bytes.
    """
    with open(f"{path}.rejects", "w", encoding="utf-8") as file:
        for reject in sorted(rejects, key=lambda reject: reject.location.record):
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


def read(path: str) -> pa.RecordBatch:
    """A file of a block, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(path)).get_batch(0)


def numbers_of(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return arrays.to_numpy(batch.column(name))


def members_of(batch: pa.RecordBatch) -> list[tuple[int, ...]] | None:
    """The members of each pair; None where each pair is of one record."""
    if "members" not in batch.schema.names:
        return None
    return [tuple(json.loads(members)) for members in batch.column("members").to_pylist()]

"""Pairs to files: Arrow shards that `datasets.load_from_disk` opens, Parquet or JSON Lines."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import xxhash

from data_tools import targets
from data_tools.dedupe import SPLITS
from data_tools.record import Reject, as_json
from data_tools.schema import EXTRAS, SIDES, Schema, load

_BATCH = 1000  # rows a record batch, as `datasets` writes them


@dataclass(frozen=True)
class Shard:
    """The files of a shard: `PATH.SPLIT` of each split with its digest, and `PATH.rejects`."""

    path: str
    digests: dict[str, str]


class ShardWriter:
    """Writes the files of one shard; without a path nothing is written."""

    def __init__(self, path: str | None, schema: Schema, kind: str):
        self._path, self._schema, self._kind = path, schema, kind
        self._open = contextlib.ExitStack()
        self._write: dict[str, Callable[[pa.Table], Any]] = {}
        self._rejects = self._file("rejects") if path else None

    def _file(self, name: str):
        return self._open.enter_context(open(f"{self._path}.{name}", "wb"))

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, failure: type | None, *_: object) -> None:
        with contextlib.suppress(*(OSError, ValueError) if failure else ()):
            self._open.close()

    def keep(self, split: str, rows: pa.Table) -> None:
        if split not in self._write:
            store = _STORES.get(self._kind) or partial(_json_lines, target=self._kind)
            self._write[split] = store(self._file(split), self._schema, self._open)
        self._write[split](rows)

    def reject(self, reject: Reject) -> None:
        if self._rejects is not None:
            self._rejects.write(_reject_line(reject).encode())

    def finish(self) -> Shard:
        """What was written, once every file is closed."""
        digests = {}
        for split in self._write:
            with pa.memory_map(f"{self._path}.{split}") as file:
                digests[split] = xxhash.xxh3_64_hexdigest(file.read_buffer())
        return Shard(self._path, digests)


def _reject_line(reject: Reject) -> str:
    """A line of rejects.jsonl; `shared` names all records that share the reject."""
    location = reject.location
    shared = f", {reject.shared}" if reject.shared else ""
    return (
        f'{{"file": {as_json(location.file)}, "line": {location.line or "null"}, '
        f'"record": {location.record}{shared}, "reason": "{reject.reason}", '
        f'"detail": {as_json(reject.detail)}, "raw": {reject.raw}}}\n'
    )


def finish(directory: str, kind: str, schema: Schema, shards: Sequence[Shard]) -> None:
    """Make the dataset of the files of its shards."""
    splits = [s for s in SPLITS if any(s in shard.digests for shard in shards)]
    for split in splits:
        found = [shard for shard in shards if split in shard.digests]
        paths = [f"{shard.path}.{split}" for shard in found]
        stem = os.path.join(directory, split)
        if kind in targets.TARGETS:
            _join(paths, f"{stem}.jsonl")
        elif kind == "arrow":
            os.makedirs(stem)
            names = _number(paths, os.path.join(stem, "data"), kind)
            _describe(stem, split, schema, names, "".join(s.digests[split] for s in found))
        elif len(paths) > 1:
            _number(paths, stem, kind)
        else:
            os.rename(*paths, f"{stem}.{kind}")
    if kind == "arrow" and splits:
        _write_json(os.path.join(directory, "dataset_dict.json"), {"splits": splits})
    if kind == "llamafactory" and splits:
        info = targets.dataset_info(splits, "tools" in schema.extras)
        _write_json(os.path.join(directory, "dataset_info.json"), info)
    rejects = [f"{shard.path}.rejects" for shard in shards]
    _join(rejects, os.path.join(directory, "rejects.jsonl"))


def _number(paths: Sequence[str], stem: str, kind: str) -> list[str]:
    """Move the files of a split to numbered names, which are returned."""
    moved = [f"{stem}-{n:05d}-of-{len(paths):05d}.{kind}" for n in range(len(paths))]
    for path, target in zip(paths, moved, strict=True):
        os.rename(path, target)
    return [os.path.basename(path) for path in moved]


def _join(paths: Sequence[str], target: str) -> None:
    """Make one file of several, which are removed."""
    with open(target, "wb") as out:
        for path in paths:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
            os.remove(path)


def _describe(folder: str, split: str, schema: Schema, names: list[str], digests: str) -> None:
    """Write what `datasets.load_from_disk` reads next to the Arrow files of a split."""
    info = dict.fromkeys(("citation", "description", "features", "homepage", "license"), "")
    info["features"] = schema.features()
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": xxhash.xxh3_64_hexdigest(digests.encode()),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    _write_json(os.path.join(folder, "dataset_info.json"), info)
    _write_json(os.path.join(folder, "state.json"), state)


def _write_json(path: str, value: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def _arrow(file: Any, schema: Schema, stack: contextlib.ExitStack) -> Callable:
    """A function that writes rows to a file as `load_from_disk` maps it."""
    writer = stack.enter_context(pa.ipc.new_stream(file, schema.arrow()))
    return partial(writer.write_table, max_chunksize=_BATCH)


def _parquet(file: Any, schema: Schema, stack: contextlib.ExitStack) -> Callable:
    import pyarrow.parquet as pq

    return stack.enter_context(pq.ParquetWriter(file, schema.arrow())).write_table


def _json_lines(
    file: Any, schema: Schema, _: contextlib.ExitStack, target: str | None = None
) -> Callable:
    """A function that writes rows as lines, in which JSON is no text but itself."""
    json_columns = [name for name in schema.extras if EXTRAS[name]]

    def write(rows: pa.Table) -> None:
        for row in rows.to_pylist():
            row |= {name: load(row[name]) for name in json_columns}
            for name, _ in SIDES if schema.json_keys else ():
                row[name] = [m | {k: load(m[k]) for k in schema.json_keys} for m in row[name]]
            line = targets.as_target(target, row) if target else row
            file.write(f"{as_json(line)}\n".encode())

    return write


_STORES = {"arrow": _arrow, "parquet": _parquet, "jsonl": _json_lines}

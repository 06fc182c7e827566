"""Pairs to files: Arrow shards that `datasets.load_from_disk` opens, Parquet or JSON Lines."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import xxhash

from data_tools.record import Reject, as_json
from data_tools.schema import SIDES, Schema, load

_BATCH = 1000  # rows a record batch, as `datasets` writes them


@dataclass(frozen=True)
class Shard:
    """One file of a split, and the digest of its bytes."""

    path: str
    digest: str


class ShardWriter:
    """Writes one shard of each split and the rejects; without a directory nothing is written."""

    def __init__(self, directory: str | None, name: str, schema: Schema, kind: str):
        self._directory, self._name, self._schema, self._kind = directory, name, schema, kind
        self._open = contextlib.ExitStack()
        self._paths: dict[str, str] = {}
        self._write: dict[str, Callable[[pa.Table], Any]] = {}
        self._rejects = self._rejects_path = None
        if directory:
            self._rejects_path = os.path.join(directory, f"rejects-{name}.jsonl")
            file = open(self._rejects_path, "w", encoding="utf-8")  # noqa: SIM115 - closed
            self._rejects = self._open.enter_context(file)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files that a failure left open."""
        with contextlib.suppress(OSError, ValueError):
            self._open.close()

    def keep(self, split: str, rows: pa.Table) -> None:
        if split not in self._write:
            path = os.path.join(self._directory, f"{split}-{self._name}.{self._kind}")
            self._paths[split] = path
            self._write[split] = _STORES[self._kind](path, self._schema, self._open)
        self._write[split](rows)

    def reject(self, reject: Reject) -> None:
        if self._rejects is not None:
            self._rejects.write(_reject_line(reject))

    def finish(self) -> tuple[dict[str, Shard], str | None]:
        """Close every file; returns the shard of each split, and the path of the rejects."""
        self._open.close()
        shards = {split: Shard(path, _digest(path)) for split, path in self._paths.items()}
        return shards, self._rejects_path


def _reject_line(reject: Reject) -> str:
    """A line of rejects.jsonl; `shared` names all records that share the reject."""
    location = reject.location
    shared = f", {reject.shared}" if reject.shared else ""
    return (
        f'{{"file": {as_json(location.file)}, "line": {location.line or "null"}, '
        f'"record": {location.record}{shared}, "reason": "{reject.reason}", '
        f'"detail": {as_json(reject.detail)}, "raw": {reject.raw}}}\n'
    )


def _digest(path: str) -> str:
    found = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            found.update(data)
    return found.hexdigest()


def finish(
    directory: str, kind: str, schema: Schema, shards: Sequence[Mapping[str, Shard]]
) -> None:
    """Give the shards their names in the dataset."""
    splits = []
    for split in ("train", "test"):
        found = [some[split] for some in shards if split in some]
        if found:
            splits.append(split)
            _name(directory, split, kind, schema, found)
    if splits and kind == "arrow":
        write_json(os.path.join(directory, "dataset_dict.json"), {"splits": splits})


def append_rejects(directory: str, path: str) -> None:
    """Append the rejects of the next shard to rejects.jsonl."""
    whole = os.path.join(directory, "rejects.jsonl")
    with open(path, "rb") as file, open(whole, "ab") as out:
        shutil.copyfileobj(file, out, 1 << 20)
    os.remove(path)


def _name(directory: str, split: str, kind: str, schema: Schema, found: list[Shard]) -> None:
    folder, stem = directory, split
    if kind == "arrow":
        folder, stem = os.path.join(directory, split), "data"
        os.makedirs(folder)
    names = [f"{stem}-{n:05d}-of-{len(found):05d}.{kind}" for n in range(len(found))]
    if kind != "arrow" and len(found) == 1:
        names = [f"{split}.{kind}"]
    for name, shard in zip(names, found, strict=True):
        os.rename(shard.path, os.path.join(folder, name))
    if kind != "arrow":
        return
    info = dict.fromkeys(("citation", "description", "features", "homepage", "license"), "")
    info["features"] = schema.features()
    digests = "".join(shard.digest for shard in found)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": xxhash.xxh3_64_hexdigest(digests.encode()),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    write_json(os.path.join(folder, "dataset_info.json"), info)
    write_json(os.path.join(folder, "state.json"), state)


def _arrow(path: str, schema: Schema, stack: contextlib.ExitStack) -> Callable:
    """A function that writes rows to one file as `load_from_disk` maps it."""
    file = stack.enter_context(pa.OSFile(path, "wb"))
    writer = stack.enter_context(pa.ipc.new_stream(file, schema.arrow()))
    return partial(writer.write_table, max_chunksize=_BATCH)


def _parquet(path: str, schema: Schema, stack: contextlib.ExitStack) -> Callable:
    import pyarrow.parquet as pq

    file = stack.enter_context(pa.OSFile(path, "wb"))
    return stack.enter_context(pq.ParquetWriter(file, schema.arrow())).write_table


def _json_lines(path: str, schema: Schema, stack: contextlib.ExitStack) -> Callable:
    """A function that writes rows as lines, in which JSON is no text but itself."""
    file = stack.enter_context(open(path, "w", encoding="utf-8"))  # noqa: SIM115 - by the stack
    json_keys = [key for key, is_json in schema.message_keys.items() if is_json]

    def write(rows: pa.Table) -> None:
        for row in rows.to_pylist():
            if schema.kwargs:
                row["chat_template_kwargs"] = load(row["chat_template_kwargs"])
            for name, _ in SIDES if json_keys else ():
                row[name] = [m | {key: load(m[key]) for key in json_keys} for m in row[name]]
            file.write(as_json(row) + "\n")

    return write


_STORES = {"arrow": _arrow, "parquet": _parquet, "jsonl": _json_lines}


def write_json(path: str, value: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")

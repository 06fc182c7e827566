"""Pairs to files: Arrow shards as `datasets.load_from_disk` opens them, Parquet or JSON Lines."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa
import xxhash

from data_tools.layout import SIDES, Layout, load
from data_tools.parts import Rejected

_BATCH = 1000  # rows a record batch, as `datasets` itself writes them
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:?\d\d(:?\d\d(\.\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?")


@dataclass(frozen=True)
class Shard:
    """One file of a split: where it is, what its bytes hash to, and what a reader must know."""

    path: str
    digest: str
    dates: dict[tuple[str, str | None], bool]  # columns whose every text looks like a date


class ShardSink:
    """One shard of each split and its rejects; without a directory everything is only counted."""

    def __init__(self, directory: str | None, number: int, layout: Layout, kind: str):
        self._directory, self._number, self._layout, self._kind = directory, number, layout, kind
        self._stores: dict[str, Any] = {}
        self._rejects = self._rejects_path = None
        self._aside = f".{uuid4().hex}"  # of files under way; the same task may be at it elsewhere
        if directory:
            self._rejects_path = os.path.join(directory, f"rejects-{number:05d}.jsonl")
            aside = self._rejects_path + self._aside
            self._rejects = open(aside, "w", encoding="utf-8")  # noqa: SIM115 - closed

    def __enter__(self) -> "ShardSink":
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the files; after a failure they are not complete, and not wanted."""
        for file in (self._rejects, *self._stores.values()):
            with contextlib.suppress(OSError, ValueError):
                if file is not None:
                    file.close()

    def keep(self, split: str, rows: pa.Table) -> None:
        if split not in self._stores:
            path = os.path.join(self._directory, f"{split}-{self._number:05d}.{self._kind}")
            self._stores[split] = _STORES[self._kind](path + self._aside, self._layout)
        self._stores[split].write(rows)

    def reject(self, rejected: Rejected) -> None:
        """One line; `places` are those of all records that share the fault, the first among them.

        Where they stand in several files, their ordinals alone would not find them.
        """
        if self._rejects is None:
            return
        place, places, fault = rejected.place, rejected.places, rejected.fault
        line = {"file": place.file, "line": place.line, "record": place.record}
        if len(places) > 1:
            line["records"] = [other.record for other in places]
            if len({other.file for other in places}) > 1:
                line["sources"] = [str(other) for other in places]
        line |= {"reason": fault.reason, "detail": fault.detail, "raw": rejected.raw}
        self._rejects.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> tuple[dict[str, Shard], str | None]:
        """Finish every file, each whole before it has its name."""
        if self._rejects is not None:
            self._rejects.close()
            os.replace(self._rejects_path + self._aside, self._rejects_path)
        shards = {}
        for split, store in self._stores.items():
            dates, path = store.close(), store.path.removesuffix(self._aside)
            shards[split] = Shard(path, _digest(store.path), dates)
            os.replace(store.path, path)
        return shards, self._rejects_path


def _digest(path: str) -> str:
    found, buffer = xxhash.xxh3_64(), bytearray(1 << 20)
    with open(path, "rb") as file:
        while count := file.readinto(buffer):
            found.update(memoryview(buffer)[:count])
    return found.hexdigest()


def finish(
    directory: str,
    kind: str,
    layout: Layout,
    shards: Sequence[Mapping[str, Shard]],
) -> list[str]:
    """Bring the shards under their names in the dataset; returns notes for a reader."""
    notes, splits = [], []
    for split in ("train", "test"):
        found = [some[split] for some in shards if split in some]
        if found:
            splits.append(split)
            _name(directory, split, kind, layout, found)
            notes += _dates(found, f"{split}.{kind}")
    if splits and kind == "arrow":
        write_json(os.path.join(directory, "dataset_dict.json"), {"splits": splits})
    return notes


def append_rejects(directory: str, path: str) -> None:
    """Bring the rejects of the next shard into the file of all."""
    whole = os.path.join(directory, "rejects.jsonl")
    if not os.path.exists(whole):
        os.rename(path, whole)
        return
    with open(path, "rb") as file, open(whole, "ab") as out:
        shutil.copyfileobj(file, out, 1 << 20)
    os.remove(path)


def _name(directory: str, split: str, kind: str, layout: Layout, found: list[Shard]) -> None:
    if kind != "arrow":
        one = len(found) == 1
        for number, shard in enumerate(found):
            name = split if one else f"{split}-{number:05d}-of-{len(found):05d}"
            os.rename(shard.path, os.path.join(directory, f"{name}.{kind}"))
        return
    folder, names = os.path.join(directory, split), []
    os.makedirs(folder)
    for number, shard in enumerate(found):
        names.append(f"data-{number:05d}-of-{len(found):05d}.arrow")
        os.rename(shard.path, os.path.join(folder, names[-1]))
    info = {
        "citation": "",
        "description": "",
        "features": layout.features(),
        "homepage": "",
        "license": "",
    }
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


def _dates(found: list[Shard], name: str) -> list[str]:
    columns = [place for place in found[0].dates if all(place in s.dates for s in found)]
    return [
        f"every {place[1] or place[0]} of {name} looks like a date, which datasets.load_dataset "
        "would turn into a timestamp; --to arrow keeps it text"
        for place in columns
        if any(shard.dates[place] for shard in found)
    ]


class _Arrow:
    """A file as `load_from_disk` maps it."""

    def __init__(self, path: str, layout: Layout):
        self.path = path
        self.file = open(path, "wb")  # noqa: SIM115 - open across tables, closed in close()
        self.writer = pa.ipc.new_stream(self.file, layout.schema())

    def write(self, rows: pa.Table) -> None:
        self.writer.write_table(rows, max_chunksize=_BATCH)

    def close(self) -> dict:
        self.writer.close()
        self.file.close()
        return {}


class _Parquet:
    """One Parquet file."""

    def __init__(self, path: str, layout: Layout):
        import pyarrow.parquet as pq

        self.path = path
        self.file = open(path, "wb")  # noqa: SIM115 - open across tables, closed in close()
        self.writer = pq.ParquetWriter(self.file, layout.schema())

    def write(self, rows: pa.Table) -> None:
        self.writer.write_table(rows)

    def close(self) -> dict:
        self.writer.close()
        self.file.close()
        return {}


class _JsonLines:
    """One JSON Lines file; values that are stored as JSON elsewhere stand here as themselves."""

    def __init__(self, path: str, layout: Layout):
        self.path = path
        self.file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self.json_keys = [key for key, as_json in layout.message_keys.items() if as_json]
        keys = [key for key in layout.message_keys if key not in self.json_keys]
        places = [(name, key) for name, _ in SIDES for key in (keys if layout.messages else [None])]
        places += [(name, None) for name in layout.keep]
        self.dates = dict.fromkeys(places, False)  # whether there is a text; all look like dates
        self.kwargs = layout.kwargs

    def write(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            self.file.write(json.dumps(self._parsed(row), ensure_ascii=False) + "\n")
            for name, key in list(self.dates):
                texts = [row[name]] if key is None else [message[key] for message in row[name]]
                texts = [text for text in texts if text is not None]
                if all(map(_DATE.fullmatch, texts)):
                    self.dates[name, key] |= bool(texts)
                else:
                    del self.dates[name, key]

    def _parsed(self, row: dict) -> dict:
        if self.kwargs:
            row = row | {"chat_template_kwargs": load(row["chat_template_kwargs"])}
        for name, _ in SIDES if self.json_keys else ():
            row = row | {
                name: [m | {key: load(m[key]) for key in self.json_keys} for m in row[name]]
            }
        return row

    def close(self) -> dict:
        self.file.close()
        return self.dates


_STORES = {"arrow": _Arrow, "parquet": _Parquet, "jsonl": _JsonLines}
STORES = tuple(_STORES)


def write_json(path: str, value: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")

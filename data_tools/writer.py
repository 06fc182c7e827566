"""Pairs to files: Arrow shards as `datasets.load_from_disk` opens them, Parquet or JSON Lines."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from data_tools.record import Fault, Message, Pair, Place
from data_tools.side import as_messages

_BATCH = 1000  # rows a record batch, as `datasets` itself writes them
_SHARD = 500_000_000  # bytes
_STRING = {"dtype": "string", "_type": "Value"}
_JSON = {"_type": "Json"}
_SIDES = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))


@dataclass(frozen=True)
class Layout:
    """The columns of a dataset: text or messages, which message keys, which extras.

    `message_keys` maps a key to whether it is stored as JSON. Arrow would merge the fields of
    tool calls over all rows; as JSON they come back as they went in.
    """

    messages: bool
    message_keys: dict[str, bool]
    tools: bool
    kwargs: bool
    keep: tuple[str, ...] = ()

    def features(self) -> dict[str, Any]:
        """The columns in the words of `datasets`' own dataset_info.json."""
        message = {key: _JSON if as_json else _STRING for key, as_json in self.message_keys.items()}
        side = {"feature": message, "_type": "List"} if self.messages else _STRING
        columns = {name: side for name, _ in _SIDES} | {"source": _STRING}
        columns |= {"tools": _STRING} if self.tools else {}
        columns |= {"chat_template_kwargs": _JSON} if self.kwargs else {}
        return columns | {name: _STRING for name in self.keep}

    def schema(self) -> pa.Schema:
        """The same as an Arrow schema, with the metadata that `datasets` looks for."""
        features = self.features()
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema([(name, _arrow(kind)) for name, kind in features.items()], metadata)

    def row(self, pair: Pair, source: str, kept: Sequence[str | None]) -> dict[str, Any]:
        """One pair as the values of its columns; text becomes messages where the dataset is so."""
        row: dict[str, Any] = {}
        for name, role in _SIDES:
            side = getattr(pair, name)
            row[name] = self._turns(as_messages(side, role)) if self.messages else side
        row["source"] = source
        if self.tools:
            row["tools"] = pair.tools
        if self.kwargs:
            row["chat_template_kwargs"] = _dump(pair.chat_template_kwargs)
        return row | dict(zip(self.keep, kept, strict=True))

    def _turns(self, messages: list[Message]) -> list[dict[str, Any]]:
        return [
            {
                key: _dump(message.get(key)) if as_json else message.get(key)
                for key, as_json in self.message_keys.items()
            }
            for message in messages
        ]


class LayoutFinder:
    """Learns from every pair that is made which layout holds them all."""

    def __init__(self):
        self._messages = self._tools = self._kwargs = False
        self._keys: dict[str, bool] = {}

    def add(self, pair: Pair) -> None:
        self._tools |= pair.tools is not None
        self._kwargs |= pair.chat_template_kwargs is not None
        for side in (pair.prompt, pair.chosen, pair.rejected):
            if isinstance(side, list):
                self._messages = True
                for message in side:
                    for key, value in message.items():
                        if key not in ("role", "content"):
                            text = isinstance(value, str | None) and key != "tool_calls"
                            self._keys[key] = self._keys.get(key, False) or not text

    def layout(self, keep: tuple[str, ...]) -> Layout:
        keys = {"role": False, "content": False} | dict(sorted(self._keys.items()))
        return Layout(self._messages, keys, self._tools, self._kwargs, keep)


def _arrow(kind: dict) -> pa.DataType:
    if kind == _JSON:
        return pa.json_()
    if kind == _STRING:
        return pa.string()
    fields = [(name, _arrow(part)) for name, part in kind["feature"].items()]
    return pa.list_(pa.struct(fields))


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


class SplitWriter:
    """One split, written in batches; one without rows leaves nothing behind."""

    def __init__(self, directory: str, split: str, layout: Layout, kind: str):
        self._schema = layout.schema()
        self._store = _STORES[kind](directory, split, layout)
        self._rows: list[dict] = []

    def add(self, row: dict) -> None:
        self._rows.append(row)
        if len(self._rows) == _BATCH:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._store.close()

    def _flush(self) -> None:
        arrays = []
        for column in self._schema:
            values = [row[column.name] for row in self._rows]
            arrays.append(pa.array(values, _storage(column.type)).cast(column.type))
        self._store.write(pa.record_batch(arrays, schema=self._schema), self._rows)
        self._rows = []


class Sink:
    """The files of a dataset in the making; without a directory everything is only counted."""

    def __init__(self, directory: str | None, layout: Layout, kind: str):
        self._directory, self._layout, self._kind = directory, layout, kind
        self._splits: dict[str, SplitWriter] = {}
        self._rejects = None
        if directory:
            path = os.path.join(directory, "rejects.jsonl")
            self._rejects = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed in close()

    def keep(self, split: str, pair: Pair, source: str, kept: Sequence[str | None]) -> None:
        if self._directory is None:
            return
        if split not in self._splits:
            self._splits[split] = SplitWriter(self._directory, split, self._layout, self._kind)
        self._splits[split].add(self._layout.row(pair, source, kept))

    def reject(self, place: Place, fault: Fault, raw: Any) -> None:
        if self._rejects is not None:
            line = {"file": place.file, "line": place.line, "record": place.record}
            line |= {"reason": fault.reason, "detail": fault.detail, "raw": raw}
            self._rejects.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> None:
        if self._rejects is not None:
            self._rejects.close()
        for split in self._splits.values():
            split.close()
        if self._splits and self._kind == "arrow":
            names = [name for name in ("train", "test") if name in self._splits]
            write_json(os.path.join(self._directory, "dataset_dict.json"), {"splits": names})


class _Arrow:
    """`SPLIT/data-*.arrow` with the two JSON files that `load_from_disk` reads beside them."""

    def __init__(self, directory: str, split: str, layout: Layout):
        self.folder, self.split, self.layout = os.path.join(directory, split), split, layout
        self.shards: list[str] = []
        self.file = self.writer = None
        self.hash = xxhash.xxh3_64()

    def write(self, batch: pa.RecordBatch, rows: list[dict]) -> None:
        if self.file is not None and self.file.tell() > _SHARD:
            self._end_shard()
        if self.file is None:
            os.makedirs(self.folder, exist_ok=True)
            path = os.path.join(self.folder, f"data-{len(self.shards):05d}.arrow")
            self.shards.append(path)
            self.file = open(path, "wb")  # noqa: SIM115 - open across batches, closed in close()
            self.writer = pa.ipc.new_stream(self.file, batch.schema)
        self.writer.write_batch(batch)

    def _end_shard(self) -> None:
        self.writer.close()
        self.file.close()
        self.file = None

    def close(self) -> None:
        if not self.shards:
            return
        self._end_shard()
        names = []
        for number, path in enumerate(self.shards):
            with open(path, "rb") as shard:
                while piece := shard.read(1 << 20):
                    self.hash.update(piece)
            names.append(f"data-{number:05d}-of-{len(self.shards):05d}.arrow")
            os.rename(path, os.path.join(self.folder, names[-1]))
        info = {
            "citation": "",
            "description": "",
            "features": self.layout.features(),
            "homepage": "",
            "license": "",
        }
        state = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": self.hash.hexdigest(),
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": self.split,
        }
        write_json(os.path.join(self.folder, "dataset_info.json"), info)
        write_json(os.path.join(self.folder, "state.json"), state)


class _Parquet:
    """`SPLIT.parquet`."""

    def __init__(self, directory: str, split: str, layout: Layout):
        self.path, self.writer = os.path.join(directory, f"{split}.parquet"), None

    def write(self, batch: pa.RecordBatch, rows: list[dict]) -> None:
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, batch.schema)
        self.writer.write_batch(batch)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class _JsonLines:
    """`SPLIT.jsonl`; values that are stored as JSON elsewhere stand here as themselves."""

    def __init__(self, directory: str, split: str, layout: Layout):
        self.path, self.file = os.path.join(directory, f"{split}.jsonl"), None
        self.json_keys = [key for key, as_json in layout.message_keys.items() if as_json]
        self.kwargs = layout.kwargs

    def write(self, batch: pa.RecordBatch, rows: list[dict]) -> None:
        if self.file is None:
            self.file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115 - closed in close()
        for row in rows:
            self.file.write(json.dumps(self._parsed(row), ensure_ascii=False) + "\n")

    def _parsed(self, row: dict) -> dict:
        if self.kwargs:
            row = row | {"chat_template_kwargs": _load(row["chat_template_kwargs"])}
        for name, _ in _SIDES if self.json_keys else ():
            row = row | {
                name: [m | {key: _load(m[key]) for key in self.json_keys} for m in row[name]]
            }
        return row

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


_STORES = {"arrow": _Arrow, "parquet": _Parquet, "jsonl": _JsonLines}
STORES = tuple(_STORES)


def _storage(kind: pa.DataType) -> pa.DataType:
    """The type with JSON as the plain string that it is stored as."""
    if isinstance(kind, pa.JsonType):
        return kind.storage_type
    if pa.types.is_list(kind):
        return pa.list_(_storage(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _storage(field.type)) for field in kind])
    return kind


def write_json(path: str, value: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")

"""The columns of a dataset: texts or messages, which other columns, and their Arrow types."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import Any

import pyarrow as pa

from data_tools import arrays
from data_tools.keys import Column
from data_tools.record import Pair

SIDES = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
"""The columns of a pair's sides, and who speaks where a side is a text."""

_STRING = {"dtype": "string", "_type": "Value"}
_JSON = {"_type": "Json"}
_CARD_TYPES = {"Value": "string", "Json": "json"}


@dataclass
class Contents:
    """What some pairs contain: messages, and which keys of theirs; tools; template arguments.

    `message_keys` maps the keys other than role and content to whether they are stored as JSON,
    since Arrow would merge the fields of tool calls over all rows.
    """

    messages: bool = False
    tools: bool = False
    kwargs: bool = False
    message_keys: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "Contents":
        found = cls(
            tools=any([pair.tools is not None for pair in pairs]),
            kwargs=any([pair.chat_template_kwargs is not None for pair in pairs]),
        )
        for name, _ in SIDES:
            sides = [side for side in map(attrgetter(name), pairs) if not isinstance(side, str)]
            found.messages = found.messages or bool(sides)
            for message in [m for side in sides for m in side if len(m) > 2]:
                found._add_keys(
                    (key, key == "tool_calls" or not isinstance(value, str | None))
                    for key, value in message.items()
                    if key not in ("role", "content")
                )
        return found

    def _add_keys(self, keys: Iterable[tuple[str, bool]]) -> None:
        for key, as_json in keys:
            self.message_keys[key] = self.message_keys.get(key, False) or as_json

    def merge(self, other: "Contents") -> None:
        self.messages |= other.messages
        self.tools |= other.tools
        self.kwargs |= other.kwargs
        self._add_keys(other.message_keys.items())

    def schema(self, keep: tuple[str, ...]) -> "Schema":
        keys = {"role": False, "content": False} | dict(sorted(self.message_keys.items()))
        return Schema(self.messages, keys, self.tools, self.kwargs, keep)


@dataclass(frozen=True)
class Schema:
    """The columns of a dataset; `message_keys` includes role and content."""

    messages: bool
    message_keys: dict[str, bool]
    tools: bool
    kwargs: bool
    keep: tuple[str, ...] = ()

    @property
    def extras(self) -> tuple[str, ...]:
        """The columns of tools and template arguments, as far as there are any."""
        tools = ("tools",) if self.tools else ()
        return (*tools, "chat_template_kwargs") if self.kwargs else tools

    def features(self) -> dict[str, Any]:
        """The columns as `datasets` describes them in dataset_info.json."""
        message = {key: _JSON if as_json else _STRING for key, as_json in self.message_keys.items()}
        side = {"feature": message, "_type": "List"} if self.messages else _STRING
        columns = {name: side for name, _ in SIDES} | {"source": _STRING}
        columns |= {"tools": _STRING} if self.tools else {}
        columns |= {"chat_template_kwargs": _JSON} if self.kwargs else {}
        return columns | {name: _STRING for name in self.keep}

    def card_block(self) -> str:
        """The same as the `dataset_info` block of a dataset card, for files without types."""
        lines = ["dataset_info:", "  features:"]
        for name, kind in self.features().items():
            lines.append(f"  - name: {json.dumps(name)}")
            if kind["_type"] != "List":
                lines.append(f"    dtype: {_CARD_TYPES[kind['_type']]}")
                continue
            lines.append("    list:")
            for key, part in kind["feature"].items():
                dtype = _CARD_TYPES[part["_type"]]
                lines += [f"    - name: {json.dumps(key)}", f"      dtype: {dtype}"]
        return "\n".join(lines)

    def arrow(self) -> pa.Schema:
        """The same as an Arrow schema, with the metadata that `datasets` reads."""
        features = self.features()
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema([(name, _arrow(kind)) for name, kind in features.items()], metadata)

    def side(self, column: Column) -> pa.Array:
        """A column of sides as it is stored in a block file, where JSON is plain text."""
        texts = column.texts
        if not self.messages:
            return arrays.split_strings(texts.data, len(texts.texts))
        flat = column.flat
        fields = []
        for key, as_json in self.message_keys.items():
            values = [message.get(key) for message in flat]
            if key != "content":
                fields.append(arrays.strings([*map(dump, values)] if as_json else values))
                continue
            valid = [value is not None for value in values] if None in values else None
            fields.append(arrays.split_strings(texts.data, len(flat), valid))
        return arrays.lists([*map(len, column.sides)], [*self.message_keys], fields)

    def convert_side(self, column: pa.Array, before: "Schema", role: str) -> pa.Array:
        """A column of sides that `before` stored, as this schema, which includes it, stores it."""
        if not self.messages or (before.messages and self.message_keys == before.message_keys):
            return column
        if not before.messages:
            found = {"role": arrays.strings([role] * len(column)), "content": column}
            lengths = [1] * len(column)
        else:
            bounds = arrays.to_numpy(column.offsets).tolist()
            lengths = [stop - start for start, stop in pairwise(bounds)]
            values = column.values.slice(bounds[0], bounds[-1] - bounds[0])
            found = {key: values.field(key) for key in before.message_keys}
            for key, as_json in before.message_keys.items():
                if self.message_keys[key] and not as_json:
                    found[key] = arrays.strings([*map(dump, found[key].to_pylist())])
        missing = arrays.strings([None] * len(found["role"]))
        fields = [found.get(key, missing) for key in self.message_keys]
        return arrays.lists(lengths, [*self.message_keys], fields)

    def table(self, columns: Sequence[pa.Array]) -> pa.Table:
        """Columns in this schema's order as a table of its types."""
        schema = self.arrow()
        typed = [column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)]
        return pa.Table.from_arrays(typed, schema=schema)


def _keys(message: dict) -> Iterator[tuple[str, bool]]:
    """The keys other than role and content, and whether their values are stored as JSON."""
    for key, value in message.items():
        if key not in ("role", "content"):
            yield key, key == "tool_calls" or not isinstance(value, str | None)


def _arrow(kind: dict) -> pa.DataType:
    if kind["_type"] == "List":
        fields = [(name, _arrow(part)) for name, part in kind["feature"].items()]
        return pa.list_(pa.struct(fields))
    return pa.json_() if kind == _JSON else pa.string()


def load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)

"""The columns of a dataset: text or messages, which extras, and their types in Arrow's words."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from data_tools.record import Pair, Side
from data_tools.side import as_messages

SIDES = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
_STRING = {"dtype": "string", "_type": "Value"}
_JSON = {"_type": "Json"}


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

    @property
    def extras(self) -> tuple[str, ...]:
        """The columns of extras, where there are any."""
        kinds = {"tools": self.tools, "chat_template_kwargs": self.kwargs}
        return tuple(name for name, there in kinds.items() if there)

    def features(self) -> dict[str, Any]:
        """The columns in the words of `datasets`' own dataset_info.json."""
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
            if "feature" not in kind:
                lines.append(f"    dtype: {_card_type(kind)}")
                continue
            lines.append("    list:")
            for key, part in kind["feature"].items():
                lines += [f"    - name: {json.dumps(key)}", f"      dtype: {_card_type(part)}"]
        return "\n".join(lines)

    def schema(self) -> pa.Schema:
        """The same as an Arrow schema, with the metadata that `datasets` looks for."""
        features = self.features()
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema([(name, _arrow(kind)) for name, kind in features.items()], metadata)

    def array(self, sides: Sequence[Side], role: str) -> pa.Array:
        """Sides of pairs as a column; text becomes messages where the dataset is so.

        What is stored as JSON is its plain text here.
        """
        if not self.messages:
            return pa.array(sides, pa.string())
        sides = [as_messages(side, role) for side in sides]
        flat = [message for side in sides for message in side]
        children = []
        for key, as_json in self.message_keys.items():
            values = [message.get(key) for message in flat]
            children.append(pa.array(map(dump, values) if as_json else values, pa.string()))
        return _lists(list(accumulate(map(len, sides), initial=0)), [*self.message_keys], children)

    def fit(self, column: pa.Array, before: "Layout", role: str) -> pa.Array:
        """A column that `before` made, as this layout, which holds all that it does, would."""
        known = before.messages and self.message_keys == before.message_keys
        if known or not self.messages:
            return column
        if not before.messages:
            offsets = range(len(column) + 1)
            found = {"role": pa.repeat(pa.scalar(role), len(column)), "content": column}
        else:
            offsets, values = column.offsets, column.values
            found = {key: values.field(key) for key in before.message_keys}
            for key, as_json in before.message_keys.items():
                if self.message_keys[key] and not as_json:
                    found[key] = pa.array(map(dump, found[key].to_pylist()), pa.string())
        nothing = pa.nulls(len(found["role"]), pa.string())
        children = [found.get(key, nothing) for key in self.message_keys]
        return _lists(offsets, [*self.message_keys], children)

    def stored(self, columns: Sequence[pa.Array]) -> pa.Table:
        """Columns as a table of this layout's schema, JSON known as such."""
        schema = self.schema()
        typed = [column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)]
        return pa.Table.from_arrays(typed, schema=schema)


def _lists(offsets, names: list[str], children: list[pa.Array]) -> pa.Array:
    if not isinstance(offsets, pa.Array):
        offsets = pa.array(offsets, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(children, names))


class LayoutFinder:
    """Learns from every pair that is made which layout holds them all."""

    def __init__(self, messages: bool = False):
        self._messages, self._tools, self._kwargs = messages, False, False
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

    def merge(self, other: "LayoutFinder") -> None:
        """Learn all that another one has."""
        self._messages |= other._messages
        self._tools |= other._tools
        self._kwargs |= other._kwargs
        for key, as_json in other._keys.items():
            self._keys[key] = self._keys.get(key, False) or as_json

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


def _card_type(kind: dict) -> str:
    return "json" if kind == _JSON else "string"


def load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)

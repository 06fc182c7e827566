"""The columns of a dataset: texts or messages, which other columns, and their Arrow types."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
class Schema:
    """What some pairs hold: messages or texts, which keys of messages, which other columns.

    `message_keys` maps the keys other than role and content to whether they are stored as JSON,
    since Arrow would merge the fields of tool calls over all rows. `keep` are columns of --keep.
    """

    messages: bool = False
    message_keys: dict[str, bool] = field(default_factory=dict)
    tools: bool = False
    kwargs: bool = False
    keep: tuple[str, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "Schema":
        found = cls(
            tools=any([pair.tools is not None for pair in pairs]),
            kwargs=any([pair.chat_template_kwargs is not None for pair in pairs]),
        )
        for name, _ in SIDES:
            sides = [getattr(pair, name) for pair in pairs]
            sides = [side for side in sides if not isinstance(side, str)]
            found.messages = found.messages or bool(sides)
            for message in [m for side in sides for m in side if len(m) > 2]:
                for key, value in message.items():
                    if key not in ("role", "content"):
                        is_text = key != "tool_calls" and isinstance(value, str | None)
                        found._add_key(key, not is_text)
        return found

    def _add_key(self, key: str, as_json: bool) -> None:
        self.message_keys[key] = self.message_keys.get(key, False) or as_json

    def merge(self, other: "Schema") -> None:
        """Include what other pairs hold."""
        self.messages |= other.messages
        self.tools |= other.tools
        self.kwargs |= other.kwargs
        for key, as_json in other.message_keys.items():
            self._add_key(key, as_json)

    @property
    def all_keys(self) -> dict[str, bool]:
        """The keys of messages in the order of the columns; see `message_keys`."""
        return {"role": False, "content": False} | dict(sorted(self.message_keys.items()))

    @property
    def extras(self) -> tuple[str, ...]:
        """The columns of tools and template arguments, as far as there are any."""
        tools = ("tools",) if self.tools else ()
        return (*tools, "chat_template_kwargs") if self.kwargs else tools

    def features(self) -> dict[str, Any]:
        """The columns as `datasets` describes them in dataset_info.json."""
        message = {key: _JSON if as_json else _STRING for key, as_json in self.all_keys.items()}
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
        if not self.messages:
            return arrays.split_strings(column.data, len(column.texts))
        flat, fields = column.flat, []
        for key, as_json in self.all_keys.items():
            values = [message.get(key) for message in flat]
            if key != "content":
                fields.append(arrays.strings([*map(dump, values)] if as_json else values))
                continue
            valid = [value is not None for value in values] if None in values else None
            fields.append(arrays.split_strings(column.data, len(flat), valid))
        return arrays.lists([*map(len, column.sides)], [*self.all_keys], fields)

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
            found = {key: values.field(key) for key in before.all_keys}
            for key, as_json in before.message_keys.items():
                if self.message_keys[key] and not as_json:
                    found[key] = arrays.strings([*map(dump, found[key].to_pylist())])
        missing = arrays.strings([None] * len(found["role"]))
        fields = [found.get(key, missing) for key in self.all_keys]
        return arrays.lists(lengths, [*self.all_keys], fields)


def _arrow(kind: dict) -> pa.DataType:
    if kind["_type"] == "List":
        fields = [(name, _arrow(part)) for name, part in kind["feature"].items()]
        return pa.list_(pa.struct(fields))
    return pa.json_() if kind == _JSON else pa.string()


def load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)

"""The columns of a dataset: texts or messages, which other columns, and their Arrow types."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from data_tools import arrays
from data_tools.keys import Column
from data_tools.record import Pair

SIDES = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
"""The columns of a pair's sides, and who speaks where a side is a text."""

EXTRAS = {"tools": False, "chat_template_kwargs": True}
"""The columns of a dataset where any pair has them, and whether they are stored as JSON."""

_STRING = {"dtype": "string", "_type": "Value"}
_JSON = {"_type": "Json"}


@dataclass
class Schema:
    """What some pairs hold: messages or texts, which keys of messages, which other columns.

    `more_keys` are those of messages besides role and content, of which `json_keys` are stored as
    JSON, since Arrow would merge the fields of tool calls over all rows. `extras` are of EXTRAS,
    `keep` are columns of --keep.
    """

    messages: bool = False
    more_keys: set[str] = field(default_factory=set)
    json_keys: set[str] = field(default_factory=set)
    extras: set[str] = field(default_factory=set)
    keep: tuple[str, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[Pair], keep: tuple[str, ...]) -> "Schema":
        found = cls(keep=keep)
        for name in EXTRAS:
            if any([getattr(pair, name) is not None for pair in pairs]):
                found.extras.add(name)
        for name, _ in SIDES:
            sides = [getattr(pair, name) for pair in pairs]
            sides = [side for side in sides if not isinstance(side, str)]
            found.messages |= bool(sides)
            for message in [m for side in sides for m in side if len(m) > 2]:
                more = message.keys() - {"role", "content"}
                found.more_keys |= more
                for key in more:
                    if key == "tool_calls" or not isinstance(message[key], str | None):
                        found.json_keys.add(key)
        return found

    def merge(self, other: "Schema") -> None:
        """Include what other pairs hold."""
        self.messages |= other.messages
        self.more_keys |= other.more_keys
        self.json_keys |= other.json_keys
        self.extras |= other.extras

    @property
    def message_keys(self) -> list[str]:
        """The keys of messages in the order of the columns."""
        return ["role", "content", *sorted(self.more_keys)]

    def features(self) -> dict[str, Any]:
        """The columns as `datasets` describes them in dataset_info.json."""
        message = {k: _JSON if k in self.json_keys else _STRING for k in self.message_keys}
        side = {"feature": message, "_type": "List"} if self.messages else _STRING
        columns = {name: side for name, _ in SIDES} | {"source": _STRING}
        for name, as_json in EXTRAS.items():
            if name in self.extras:
                columns[name] = _JSON if as_json else _STRING
        return columns | {name: _STRING for name in self.keep}

    def card_block(self) -> str:
        """The same as YAML in the head of a dataset card, for files without types."""
        return "\n".join(["dataset_info:", "  features:", *_card_lines(self.features(), "  ")])

    def arrow(self) -> pa.Schema:
        """The same as an Arrow schema, with the metadata that `datasets` reads."""
        features = self.features()
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return pa.schema([(name, _arrow(kind)) for name, kind in features.items()], metadata)

    def side(self, column: Column) -> pa.Array:
        """A column of sides as it is stored in a block file, where JSON is plain text."""
        if not self.messages:
            return arrays.strings(column.texts)
        fields = []
        for key in self.message_keys:
            values = [message.get(key) for message in column.flat]
            texts = [*map(dump, values)] if key in self.json_keys else values
            fields.append(arrays.strings(texts))
        return arrays.lists(map(len, column.sides), self.message_keys, fields)

    def convert_side(self, column: pa.Array, before: "Schema", role: str) -> pa.Array:
        """A column of sides that `before` stored, as this schema, which includes it, stores it."""
        own, theirs = ((s.messages, s.more_keys, s.json_keys) for s in (self, before))
        if not self.messages or own == theirs:
            return column
        if not before.messages:
            found = {"role": arrays.strings([role] * len(column)), "content": column}
            lengths = [1] * len(column)
        else:
            lengths, values = arrays.to_numpy(column.value_lengths()), column.flatten()
            found = {key: values.field(key) for key in before.message_keys}
            for key in before.more_keys & self.json_keys - before.json_keys:
                found[key] = arrays.strings([*map(dump, found[key].to_pylist())])
        missing = arrays.strings([None] * len(found["role"]))
        fields = [found.get(key, missing) for key in self.message_keys]
        return arrays.lists(lengths, self.message_keys, fields)


def _card_lines(features: dict[str, dict], indent: str) -> Iterator[str]:
    for name, kind in features.items():
        # YAML has no surrogate pairs, which JSON writes for characters above U+FFFF.
        shown = "".join(f"\\U{ord(c):08x}" if c > "\uffff" else json.dumps(c)[1:-1] for c in name)
        yield f'{indent}- name: "{shown}"'
        if kind["_type"] == "List":
            yield f"{indent}  list:"
            yield from _card_lines(kind["feature"], indent + "  ")
        else:
            yield f"{indent}  dtype: {'json' if kind == _JSON else 'string'}"


def _arrow(kind: dict) -> pa.DataType:
    if kind["_type"] == "List":
        fields = [(name, _arrow(part)) for name, part in kind["feature"].items()]
        return pa.list_(pa.struct(fields))
    return pa.json_() if kind == _JSON else pa.string()


def load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)

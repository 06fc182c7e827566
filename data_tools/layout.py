"""The columns of a dataset: text or messages, which extras, and their types in Arrow's words."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_tools.record import Message, Pair
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

    def row(self, pair: Pair, source: str, kept: Sequence[str | None]) -> dict[str, Any]:
        """One pair as the values of its columns; text becomes messages where the dataset is so."""
        row: dict[str, Any] = {}
        for name, role in SIDES:
            side = getattr(pair, name)
            row[name] = self._turns(as_messages(side, role)) if self.messages else side
        row["source"] = source
        if self.tools:
            row["tools"] = pair.tools
        if self.kwargs:
            row["chat_template_kwargs"] = dump(pair.chat_template_kwargs)
        return row | dict(zip(self.keep, kept, strict=True))

    def _turns(self, messages: list[Message]) -> list[dict[str, Any]]:
        return [
            {
                key: dump(message.get(key)) if as_json else message.get(key)
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


def _card_type(kind: dict) -> str:
    return "json" if kind == _JSON else "string"


def load(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def dump(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The type with JSON as the plain string that it is stored as."""
    if isinstance(kind, pa.JsonType):
        return kind.storage_type
    if pa.types.is_list(kind):
        return pa.list_(storage_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, storage_type(field.type)) for field in kind])
    return kind

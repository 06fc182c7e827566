"""The columns of one split, held to what TRL assumes of every row and checks on the first alone."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from dpo_wrap.errors import DataError

SIDES = ("prompt", "chosen", "rejected")
BATCH = 5000
# What a column next to the sides holds, the sides that may have its texts too, and how to fix it.
CONTEXT = {
    "system": (
        "system texts",
        ("prompt",),
        "write each split with to_json and convert the files: python -m data_tools.convert FILES "
        '--map prompt=prompt chosen=chosen rejected=rejected "system={name}"',
    ),
    "turns": ("earlier turns", SIDES, "put them into prompt, which may be a list of messages"),
    "media": ("media", (), "remove the rows that need it, as training reads text alone"),
    "context": ("context", ("prompt",), "put it into prompt"),
}


@dataclass(frozen=True)
class Kind:
    """What the sides of a split's rows are."""

    conversational: bool
    tools: bool
    """Whether any row brings definitions of tools."""
    calls: bool
    """Whether any message may call one."""


def check_columns(rows: Dataset, path: str, split: str) -> Kind:
    """The kind of a split whose every row can be trained on. Raises DataError where some cannot."""
    missing = [name for name in SIDES if name not in rows.column_names]
    if missing:
        raise DataError(
            f"{path}: the {split} split has no column {' or '.join(map(repr, missing))} (it has "
            f"{', '.join(rows.column_names)}); convert the raw data: python -m data_tools.convert, "
            "with --map where its names are others"
        )
    schema = rows.with_format("arrow").features.arrow_schema
    kinds = {name: _kind(schema.field(name).type) for name in SIDES}
    if set(kinds.values()) not in ({"text"}, {"messages"}):
        described = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        raise DataError(
            f"{path}: prompt, chosen and rejected must be all text or all messages, but "
            f"{described}; convert the raw data: python -m data_tools.convert"
        )
    conversational = kinds["prompt"] == "messages"
    faults = list(_faults(rows, conversational))
    if faults:
        first = "; ".join(f"row {row} of {split}: {text}" for row, text in faults[:3])
        more = f"; and {len(faults) - 3} more rows" * (len(faults) > 3)
        raise DataError(f"{path}: {first}{more}; convert the raw data, which finds all such rows")
    if not conversational and len(rows) and _answers_repeat_prompt(rows):
        raise DataError(
            f"{path}: every answer begins with its prompt, which would be trained on twice; "
            "convert the raw data: python -m data_tools.convert"
        )
    return Kind(conversational, _has_tools(rows), _has_calls(rows))


def check_context(
    rows: Dataset, path: str, split: str, kind_of: Callable[[str], str | None]
) -> None:
    """Raise DataError for a column that training ignores although the model should see its values.

    `kind_of` says by the name of a column which key of CONTEXT it is.
    """
    for name in rows.column_names:
        if (kind := kind_of(name)) is None:
            continue
        what, sides, fix = CONTEXT[kind]
        for number, row in enumerate(_records(rows, [name, *sides])):
            seen = _words(" ".join(text for side in sides for text in _texts(row[side])))
            if all(_words(text) in seen for text in _texts(row[name])):
                continue
            raise DataError(
                f"{path}: the column {name!r} has {what} that the model would not see (row "
                f"{number} of {split}); {fix.format(name=name)}; or remove the column: "
                f"dataset.remove_columns({name!r})"
            )


def _words(text: str) -> str:
    """The text without its punctuation and line breaks, a blank at either end."""
    return re.sub(r"\W+", " ", f" {text} ")


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, of a message its content alone; none in what is empty."""
    if isinstance(value, dict):
        contents = [value[key] for key in ("content", "value") if key in value]
        value = contents or list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif value:
        yield str(value)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        if pa.types.is_struct(inner) and _is_message({part.name: part.type for part in inner}):
            return "messages"
    return f"{kind}" if len(f"{kind}") < 60 else "something else"


def _is_message(parts: dict[str, pa.DataType]) -> bool:
    return all(name in parts and _kind(parts[name]) == "text" for name in ("role", "content"))


def _faults(rows: Dataset, conversational: bool) -> Iterator[tuple[int, str]]:
    """(row, what is wrong) for every row that TRL would choke on or train wrongly on."""
    find = _message_fault if conversational else _text_fault
    start = 0
    for table in rows.select_columns(list(SIDES)).with_format("arrow").iter(batch_size=BATCH):
        if conversational or _blank(table):
            for offset, row in enumerate(table.to_pylist()):
                if fault := find(row):
                    yield start + offset, fault
        start += len(table)


def _blank(table: pa.Table) -> bool:
    """Whether any text of the batch is null or white space; the common answer is no, and quick."""
    for name in SIDES:
        column = table.column(name)
        if column.null_count or pc.any(pc.equal(pc.utf8_trim_whitespace(column), "")).as_py():
            return True
    return False


def _text_fault(row: dict[str, Any]) -> str | None:
    for name in SIDES:
        if row[name] is None or not row[name].strip():
            return f"the {name} is {'null' if row[name] is None else 'empty'}"
    return None


def _message_fault(row: dict[str, Any]) -> str | None:
    for name in SIDES:
        messages = row[name]
        if not messages:
            return f"the {name} has no messages"
        for message in messages:
            if message is None or not message["role"]:
                return f"the {name} has a message without a role"
            if message["content"] is None and not message.get("tool_calls"):
                return f"the {name} has a message without content"
        if not any((m["content"] or "").strip() or m.get("tool_calls") for m in messages):
            return f"the {name} is empty"
    for name in ("chosen", "rejected"):
        if row[name][0]["role"] != "assistant":
            return f"the {name} answer begins with a turn of {row[name][0]['role']}"
    return None


def _answers_repeat_prompt(rows: Dataset) -> bool:
    answers = ((row["prompt"], row[name]) for row in _records(rows, SIDES) for name in SIDES[1:])
    return all(answer.startswith(prompt) for prompt, answer in answers)


def _records(rows: Dataset, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows, a few at a time, as what is stored: an image is bytes or a path."""
    for table in rows.select_columns([*names]).with_format("arrow").iter(batch_size=100):
        yield from table.to_pylist()


def _some(column: pa.ChunkedArray) -> bool:
    return column.null_count < len(column)


def _has_tools(rows: Dataset) -> bool:
    return "tools" in rows.column_names and _some(rows.data.column("tools"))


def _has_calls(rows: Dataset) -> bool:
    types = (rows.with_format("arrow").features.arrow_schema.field(name).type for name in SIDES)
    return any(
        "tool_calls" in {part.name for part in kind.value_type}
        for kind in types
        if hasattr(kind, "value_type")
    )

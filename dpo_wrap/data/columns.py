"""Check the columns of a split: TRL looks at the first row only, and ignores unknown columns."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from dpo_wrap.errors import DataError

SIDES = ("prompt", "chosen", "rejected")
BATCH = 100
EMPTY = (None, "", [], {}, "[]", "{}", "null")
"""Values that say nothing, also as JSON."""
CONVERT = "python -m data_tools.convert"
CONTEXT = {
    "system": (
        "system texts",
        ("prompt",),
        f"write each split with to_json and convert the files: {CONVERT} FILES "
        '--map prompt=prompt chosen=chosen rejected=rejected "system={name}"',
    ),
    "turns": ("earlier turns", SIDES, "put them into prompt, which may be a list of messages"),
    "media": ("media", (), "remove the rows that need it, because training reads text only"),
    "context": ("context", ("prompt",), "put it into prompt"),
}
"""By what a column holds: its description, the sides that may repeat its texts, and the fix."""


def check_columns(rows: Dataset, path: str, split: str) -> str:
    """Whether a split's pairs are "text" or "messages". Raises DataError for unusable rows."""
    missing = [name for name in SIDES if name not in rows.column_names]
    if missing:
        raise DataError(
            f"{path}: the {split} split has no column {' or '.join(map(repr, missing))} (it has "
            f"{', '.join(rows.column_names)}); convert the raw data: {CONVERT}, with --map if its "
            "columns have other names"
        )
    types = {name: _describe(field) for name, field in _arrow_types(rows).items() if name in SIDES}
    if set(types.values()) not in ({"text"}, {"messages"}):
        described = ", ".join(f"{name} is {types[name]}" for name in SIDES)
        raise DataError(
            f"{path}: prompt, chosen and rejected must be all text or all messages, but "
            f"{described}; convert the raw data: {CONVERT}"
        )
    found = enumerate(map(_row_error, _records(rows, SIDES)))
    if errors := [(row, error) for row, error in found if error]:
        row, error = errors[0]
        more = f" (and {len(errors) - 1} more rows are unusable)" if len(errors) > 1 else ""
        raise DataError(
            f"{path}: row {row} of {split}: {error}{more}; convert the raw data, which reports "
            "all such rows"
        )
    if types["prompt"] == "text" and len(rows) and _answers_repeat_prompt(rows):
        raise DataError(
            f"{path}: every answer begins with its prompt, which would be trained on twice; "
            f"convert the raw data: {CONVERT}"
        )
    return types["prompt"]


def check_context(
    rows: Dataset, path: str, split: str, kind_of: Callable[[str], str | None]
) -> None:
    """Raise DataError for a column that training ignores although the model should see its values.

    `kind_of` maps a column's name to a key of CONTEXT, or to None.
    """
    for name in rows.column_names:
        if (kind := kind_of(name)) is None:
            continue
        what, sides, fix = CONTEXT[kind]
        for number, row in enumerate(_records(rows, [name, *sides])):
            seen = _words(" ".join(text for side in sides for text in _texts(row[side])))
            if any(_words(text) not in seen for text in _texts(row[name])):
                raise DataError(
                    f"{path}: the column {name!r} has {what} that the model would not see (row "
                    f"{number} of {split}); {fix.format(name=name)}; or remove the column: "
                    f"dataset.remove_columns({name!r})"
                )


def count_fields(rows: Dataset) -> Counter[tuple[str, str]]:
    """How many messages have a value, by (field, role), for all fields but role and content.

    Definitions of tools are counted in rows, as ("tools", "").
    """
    types, counts = _arrow_types(rows), Counter()
    sides = [name for name in SIDES if {*_message_fields(types[name])} - {"role", "content"}]
    names = [*sides, *({"tools"} & {*types})]
    for row in _records(rows, names) if names else ():
        counts["tools", ""] += row.get("tools") not in EMPTY
        for message in (message for side in sides for message in row[side]):
            filled = {name for name, value in message.items() if value not in EMPTY}
            counts.update((name, message["role"]) for name in filled - {"role", "content"})
    return +counts


def _arrow_types(rows: Dataset) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in rows.features.arrow_schema}


def _message_fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    """The fields of the structs in a list, by name; empty for another type."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not listed or not pa.types.is_struct(kind.value_type):
        return {}
    return {field.name: field.type for field in kind.value_type}


def _describe(kind: pa.DataType) -> str:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    fields = _message_fields(kind)
    if all(name in fields and _describe(fields[name]) == "text" for name in ("role", "content")):
        return "messages"
    return str(kind) if len(str(kind)) < 60 else "something else"


def _row_error(row: dict[str, Any]) -> str | None:
    """Why TRL could not train on a row, or None."""
    for name in SIDES:
        value = row[name]
        if value is None:
            return f"the {name} is null"
        if isinstance(value, str):
            if not value.strip():
                return f"the {name} is empty"
            continue
        for message in value:
            if message is None or not message["role"]:
                return f"the {name} has a message without a role"
            if message["content"] is None and not message.get("tool_calls"):
                return f"the {name} has a message without content"
        if not any((m["content"] or "").strip() or m.get("tool_calls") for m in value):
            return f"the {name} is empty"
        if name != "prompt" and value[0]["role"] != "assistant":
            return f"the {name} answer begins with a message of {value[0]['role']}"
    return None


def _answers_repeat_prompt(rows: Dataset) -> bool:
    records = _records(rows, SIDES)
    return all(row[name].startswith(row["prompt"]) for row in records for name in SIDES[1:])


def _words(text: str) -> str:
    """The text without punctuation and line breaks, with a blank at either end."""
    return re.sub(r"\W+", " ", f" {text} ")


def _texts(value: Any) -> Iterator[str]:
    """The texts in a nested value; of a message only its content."""
    if isinstance(value, dict):
        contents = [value[key] for key in ("content", "value") if key in value]
        value = contents or list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif value:
        yield str(value)


def _records(rows: Dataset, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows as stored, a few at a time: an image is bytes or a path, not decoded."""
    for table in rows.select_columns([*names]).with_format("arrow").iter(batch_size=BATCH):
        yield from table.to_pylist()

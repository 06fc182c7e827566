"""Every known format, by name."""

from collections.abc import Callable

from data_tools.formats import (
    battles,
    dialogues,
    label_studio,
    nested_table,
    plans,
    questions,
    table,
    trees,
)
from data_tools.formats.format import Format, descriptions
from data_tools.formats.rows import as_format

_FORMATS = (
    *(as_format(row, plans.plan) for row in (*table.ROWS, *nested_table.ROWS)),
    *dialogues.FORMATS,
    *battles.FORMATS,
    *trees.FORMATS,
    *questions.FORMATS,
    *label_studio.FORMATS,
)
_ORDER = [*descriptions()]  # in which --list-formats and the documents show them

FORMATS: dict[str, Format] = {
    format.name: format for format in sorted(_FORMATS, key=lambda format: _ORDER.index(format.name))
}


def examples() -> dict[str, list[dict]]:
    """For each format a record that makes a pair, and one that is rejected."""
    return {name: descriptions()[name]["examples"] for name in FORMATS}


def fitting(record: dict, view: Callable[[Format], dict] | None = None) -> list[str]:
    """The names of the formats that a record fits.

    A general format gives way to others, unless the record has a label of the general one that
    none of them reads. `view` gives the record as a format sees it, where that differs.
    """
    names = [
        name for name, format in FORMATS.items() if format.matches(view(format) if view else record)
    ]
    special = [name for name in names if "general" not in FORMATS[name].traits]
    if not special:
        return names
    return [name for name in names if name in special or _has_other_label(record, name, special)]


def _has_other_label(record: dict, general: str, special: list[str]) -> bool:
    label = {field for field in FORMATS[general].labels.owns or () if field in record}
    others = [FORMATS[name].labels.owns for name in special]
    return bool(label) and all(owned is not None and not label & {*owned} for owned in others)

"""Formats that the user describes: --map names the column of each field."""

from collections.abc import Mapping

from data_tools.formats.format import Format, tidy_name
from data_tools.formats.plans import as_format
from data_tools.formats.rows import Row
from data_tools.record import ConvertError

MAPPED = ("prompt", "chosen", "rejected", "a", "b", "label", "system", "annotator")


def mapped(columns: Mapping[str, str]) -> Format:
    """The format that --map describes, FIELD to COLUMN. Raises ConvertError (status 2)."""
    columns = {name: tidy_name(column) for name, column in columns.items()}
    if unknown := [name for name in columns if name not in MAPPED]:
        raise ConvertError(
            f"--map {unknown[0]}={columns[unknown[0]]}: unknown field {unknown[0]!r}; "
            f"known are {', '.join(MAPPED)}"
        )
    answers = ("chosen", "rejected")
    if columns.keys() & {"a", "b", "label", "annotator"}:
        answers = ("a", "b")
        if columns.keys() & {"chosen", "rejected"} or not {"a", "b", "label"} <= columns.keys():
            raise ConvertError(
                "--map: map chosen and rejected, which name the winner themselves, or else a, b "
                "and label, all three, and perhaps annotator"
            )
    names = {name: name for name in ("prompt", *answers, "system")} | columns
    used = [*names.values()]
    if twice := [column for column in used if used.count(column) > 1]:
        raise ConvertError(f"--map: the column {twice[0]} cannot be two fields at once")
    row = Row(
        names["prompt"],
        ", ".join(names[name] for name in answers),
        label=names.get("label", ""),
        annotator=names.get("annotator", ""),
        system=names["system"],
    )
    return as_format("mapped", row)

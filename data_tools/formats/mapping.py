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
    labelled = columns.keys() & {"a", "b", "label"}
    if labelled and columns.keys() & {"chosen", "rejected"}:
        raise ConvertError(
            "--map: chosen and rejected name the winner themselves, a and b need a label; map "
            "one kind"
        )
    if labelled and len(labelled) < 3:
        missing = ", ".join(sorted({"a", "b", "label"} - labelled))
        raise ConvertError(f"--map: labelled pairs need a, b and label; {missing} is not mapped")
    if "annotator" in columns and not labelled:
        raise ConvertError("--map: annotator goes with a, b and label; map these too")
    fields = ("prompt", "a", "b", "label") if labelled else ("prompt", "chosen", "rejected")
    names = {name: name for name in (*fields, "system")} | columns
    used = [*names.values()]
    if twice := [column for column in used if used.count(column) > 1]:
        raise ConvertError(f"--map: the column {twice[0]} cannot be two fields at once")
    row = Row(
        names["prompt"],
        f"{names[fields[1]]}, {names[fields[2]]}",
        label=names.get("label", ""),
        annotator=names.get("annotator", ""),
        system=names["system"],
    )
    return as_format("mapped", row)

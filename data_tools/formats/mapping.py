"""Formats that the user describes: --map names the column of each field."""

from collections.abc import Mapping

from data_tools.formats.format import Format, tidy_name
from data_tools.formats.plans import plan
from data_tools.formats.rows import Answers, Around, Row, as_format
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
    labelled, won = columns.keys() & {"a", "b", "label"}, columns.keys() & {"chosen", "rejected"}
    if labelled and won:
        raise ConvertError(
            "--map: chosen and rejected name the winner themselves, a and b need a label; map "
            "one kind"
        )
    names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "system": "system"}
    names |= columns
    if labelled and len(labelled) < 3:
        missing = ", ".join(sorted({"a", "b", "label"} - labelled))
        raise ConvertError(f"--map: labelled pairs need a, b and label; {missing} is not mapped")
    if "annotator" in columns and not labelled:
        raise ConvertError("--map: annotator goes with a, b and label; map these too")
    kind = ("a", "b", "label") if labelled else ("chosen", "rejected")
    used = [names[name] for name in ("prompt", *kind, "system", "annotator") if name in names]
    if twice := [column for column in used if used.count(column) > 1]:
        raise ConvertError(f"--map: the column {twice[0]} cannot be two fields at once")
    answers = Answers(
        f"{names[kind[0]]}, {names[kind[1]]}",
        label=names["label"] if labelled else "",
        annotator=names.get("annotator", ""),
    )
    around = Around(system=(names["system"],))
    return as_format(Row("mapped", names["prompt"], answers, around), plan)

"""--map: what the user says of the columns, as a row and as fields that are made of columns."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.formats import label
from data_tools.formats.format import Format
from data_tools.formats.paths import JsonCell, parse_literal
from data_tools.formats.plans import as_format
from data_tools.formats.rows import Row
from data_tools.record import ConvertError, as_json, tidy_name

_RATED, _RANKED = ("ranked", "rated"), ("ranked",)
_LAYOUTS = (  # the answers, what says who won, how that is decoded, and the traits of the format
    (("chosen", "rejected"), (), None, ()),
    (("a", "b"), ("label",), None, ()),
    (("a", "b"), ("score_a", "score_b"), None, _RATED),
    (("a", "b"), ("rank_a", "rank_b"), label.rank, _RANKED),
    (("a", "b"), ("ranking",), label.order, _RANKED),
    (("responses",), ("label",), None, ()),
    (("responses",), ("scores",), None, _RATED),
    (("responses",), ("ranks",), label.rank, _RANKED),
    (("responses",), ("ranking",), label.order, _RANKED),
    (("response",), ("score",), None, _RATED),
)
_AROUND = ("prompt", "system", "history", "tools")
_ANY = [name for answers, how, _, _ in _LAYOUTS for name in (*answers, *how)]
_ANY += ["annotator", *(stem + letter for stem in ("", "score_", "rank_") for letter in "cd")]
FIELDS = tuple(dict.fromkeys((*_AROUND, *_ANY)))
"""The fields that --map may name the columns of."""

_TEMPLATE = re.compile(r"\{([^{}]*)\}")
_STEP = re.compile(r"[^.\[\]]+|\[\d*\]")


def mapped(columns: Mapping[str, str]) -> Format:
    """The format that --map describes, FIELD to COLUMN. Raises ConvertError (status 2).

    A column is a field of the row under its own name. What is made of columns, and what is read
    under one name only, is a field with the name that --map has for it.
    """
    if unknown := [name for name in columns if name not in FIELDS]:
        raise ConvertError(
            f"--map {unknown[0]}={columns[unknown[0]]}: unknown field {unknown[0]!r}; "
            f"known are {', '.join(FIELDS)}, swapped"
        )
    answers, how, decode, traits = _layout([name for name in columns if name in _ANY])
    columns = {name: name for name in ("prompt", *answers)} | dict(columns)
    if twice := [column for column in columns.values() if [*columns.values()].count(column) > 1]:
        raise ConvertError(f"--map: the column {twice[0]} cannot be two fields at once")
    fields, made = {}, {}
    for name, column in columns.items():
        fields[name] = tidy_name(column)
        if name in ("system", "history", "tools") or re.search(r"[.,|{}\[\]]", column):
            fields[name], made[name] = name, column
    judges = [tidy_name(name) for name in columns.get("label", "").split(",")]
    if len(judges) > 1:
        del made["label"]
        fields["label"] = re.compile("|".join(map(re.escape, judges)))
    in_list = "[]" if "responses" in columns else ""
    scores = "" if "label" in columns else _joined(how, fields)
    row = Row(
        fields["prompt"],
        _joined(answers, fields) + in_list,
        label=fields.get("label", ""),
        scores=scores and scores + ("" if "ranking" in columns else in_list),
        decode=decode,
        annotator=fields.get("annotator", ""),
        system=fields.get("system", ""),
        traits=traits,
    )
    return as_format("mapped", row, made)


def _layout(given: Sequence[str]) -> tuple:
    """The layout that has all of these fields. Raises ConvertError."""
    fitting = [layout for layout in _LAYOUTS if {*given} <= {*_all(layout[0] + layout[1])}]
    for layout in fitting:
        answers, how = layout[:2]
        if not how or {*answers, *how} <= {*given}:
            return layout
    if not fitting:
        raise ConvertError(
            f"--map {' '.join(given)}: name the answers in one way: chosen and rejected; a and b "
            "with label, ranking, scores or ranks; responses with one of these; or response with "
            "score"
        )
    needed = [[name for name in layout[0] + layout[1] if name not in given] for layout in fitting]
    missing = " or ".join(" and ".join(names) for names in needed)
    raise ConvertError(f"--map {' '.join(given)}: also map {missing}")


def _all(names: Sequence[str]) -> list[str]:
    """The fields of a layout with those that it may have."""
    more = [name[:-1] + letter for name in names if name[-2:] in ("b", "_b") for letter in "cd"]
    return [*names, *more, *(["annotator"] if "label" in names else [])]


def _joined(names: Sequence[str], fields: Mapping[str, str]) -> str:
    return ", ".join(fields[name] for name in _all(names) if name in fields)


def columns_of(column: str) -> list[str]:
    """The columns that a COLUMN of --map is made of."""
    parts = _TEMPLATE.findall(column) if "{" in column else [column]
    return [tidy_name(_STEP.findall(part)[0]) for part in parts if part.strip()]


def value_at(record: dict, column: str) -> Any:
    """The value at a path, or the text that a template makes of columns; None where one is missing.

    `[]` gives the list of what every entry has there.
    """
    if "{" not in column:
        return record[column] if column in record else _follow(record, _STEP.findall(column))
    values = {name: value_at(record, name) for name in _TEMPLATE.findall(column) if name.strip()}
    if None in values.values():
        return None
    text = column.replace("\\n", "\n")
    texts = {name: v if isinstance(v, str) else as_json(v) for name, v in values.items()}
    return _TEMPLATE.sub(lambda found: texts.get(found[1], ""), text)


def _follow(value: Any, steps: list[str]) -> Any:
    for at, step in enumerate(steps):
        value = parse_literal(value) if isinstance(value, JsonCell) else value
        if step == "[]" and isinstance(value, list):
            return [_follow(entry, steps[at + 1 :]) for entry in value]
        if step[0] == "[":
            number = int(step[1:-1] or -1)
            value = value[number] if isinstance(value, list) and 0 <= number < len(value) else None
        else:
            name = step if at else tidy_name(step)
            value = value.get(name) if isinstance(value, dict) else None
    return value

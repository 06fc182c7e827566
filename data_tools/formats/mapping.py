"""--map: what the user says of the columns, as a row and as fields that are made of columns."""

import re
import shlex
from collections.abc import Container, Mapping, Sequence

from data_tools.column_kinds import kind_of
from data_tools.formats import label, paths, table
from data_tools.formats.format import Format, tidy_names
from data_tools.formats.paths import Column
from data_tools.formats.plans import as_format
from data_tools.formats.rows import Row, resolve
from data_tools.record import ConvertError, tidy_name

_ANSWERS = ("chosen", "rejected", "a", "b", "c", "d", "responses", "response")
_AB, _RATED, _RANKED = "a b c? d? ", ("ranked", "rated"), ("ranked",)
_LAYOUTS = {  # fields, some optional, to how the scores are decoded, and the traits of the format
    "chosen rejected annotator?": (None, ()),
    _AB + "label annotator?": (None, ()),
    _AB + "score_a score_b score_c? score_d?": (None, _RATED),
    _AB + "rank_a rank_b rank_c? rank_d?": (label.rank, _RANKED),
    _AB + "ranking": (label.order, _RANKED),
    "responses label annotator?": (None, ()),
    "responses scores": (None, _RATED),
    "responses ranks": (label.rank, _RANKED),
    "responses ranking": (label.order, _RANKED),
    "response score": (None, _RATED),
}
_AROUND = ("prompt", "system", "history", "tools")
_JUDGED = " ".join(_LAYOUTS).replace("?", "").split()
FIELDS = (*dict.fromkeys((*_AROUND, *_JUDGED)), "swapped")
"""The fields that --map may name the columns of."""


def mapped_columns(given: Mapping[str, str], known: Container[str]) -> dict[str, Column]:
    """What --map gives, FIELD to COLUMN, with a tuple for the tidy names of `known` columns.

    Raises ConvertError (status 2) for what is neither known nor a path or template.
    """
    found: dict[str, Column] = {}
    for name, text in given.items():
        if name not in FIELDS:
            raise ConvertError(
                f"--map {name}={text}: unknown field {name!r}; known are {', '.join(FIELDS)}"
            )
        names = (tidy_name(text),)
        if name == "label" and names[0] not in known:
            names = tuple(map(tidy_name, text.split(",")))
        is_path = not all(part in known for part in names)
        found[name] = text if is_path else names
        if not text and name in ("prompt", "swapped"):  # neither is read
            found[name] = ""
        elif not text or (is_path and not paths.is_valid(text)):
            detail = "there is no such column, and it is no path or template"
            raise ConvertError(f"--map {name}={text}: {detail}")
    return found


def mapped(columns: Mapping[str, Column]) -> Format:
    """The format that --map describes, FIELD to COLUMN. Raises ConvertError (status 2).

    A column is a field of the row under its own name. What is made of columns, and what is read
    under one name only, is a field that no column is named like, or that hides such a column.
    """
    layout = _layout([name for name in columns if name in _JUDGED])
    decode, traits = _LAYOUTS[layout]
    own = ("prompt", "chosen", "rejected") if "chosen" in layout else ("prompt",)
    columns = {name: (name,) for name in own} | dict(columns)
    judges = columns.get("label", "")
    needs = {"history": "prompt"} | {f"{kind}_{x}": x for kind in ("score", "rank") for x in "cd"}
    for given, wanted in needs.items():
        if columns.get(given) and not columns.get(wanted):
            raise ConvertError(f"--map {given}: also map {wanted}")
    if isinstance(judges, tuple) and judges[1:] and "annotator" in columns:
        raise ConvertError("--map: several label columns are annotators; do not map annotator")
    given = [*filter(None, columns.values())]
    if twice := [column for column in given if given.count(column) > 1]:
        raise ConvertError(f"--map: the column {''.join(twice[0])} cannot be two fields at once")
    names = [name for name in layout.replace("?", "").split() if name in columns]
    answers = [name for name in names if name in _ANSWERS]
    words = _telling({name: columns[name] for name in answers})
    fields, made = {}, {}
    for name, column in columns.items():
        is_plain = isinstance(column, tuple) and not re.search(r"[.,|{}\[\]]| or ", column[0])
        is_plain = is_plain and kind_of(column[0]) not in ("system", "turns")
        fields[name] = "".join(column[:1])
        if name in _AROUND[1:]:
            fields[name], made[name] = name, column
        elif column and not is_plain:
            fields[name] = f"--map {words.get(name, name)}"
            made[fields[name]] = column
    used = {name for column in given for name in paths.columns_of(column)}
    made |= {name: ("",) for name in used - made.keys() if kind_of(name) in ("system", "turns")}
    if isinstance(judges, tuple) and judges[1:]:
        made.pop("--map label", None)
        fields["label"] = re.compile("|".join(map(re.escape, judges)))
    scores = [name for name in names if name.startswith(("score", "rank"))]
    in_list = "[]" if "responses" in names else ""
    row = Row(
        fields["prompt"],
        ", ".join(fields[name] + in_list for name in answers),
        label=fields.get("label", ""),
        scores=", ".join(fields[name] + in_list * (name != "ranking") for name in scores),
        decode=decode,
        annotator=fields.get("annotator", ""),
        system=fields.get("system", ""),
        traits=traits,
    )
    return as_format("mapped", row, made)


def _telling(answers: Mapping[str, Column]) -> dict[str, str]:
    """The one part of each answer's path that tells it apart, by which labels name the answer."""
    parts = [[*paths.steps(c)] if isinstance(c, str) else [c[0]] for c in answers.values()]
    while all(part[1:] for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    words = [part[0] for part in parts]
    is_clear = len({*words}) == len(words)
    named = zip(answers, words, strict=True)
    return {name: word for name, word in named if is_clear and re.fullmatch(r"\w+", word)}


def as_option(columns: Mapping[str, str]) -> str:
    """The option --map, FIELD to COLUMN, for a shell."""
    return f"--map {shlex.join(f'{name}={column}' for name, column in columns.items())}"


def columns_read(name: str, own: Sequence[str]) -> dict[str, str] | None:
    """What --map would say to read a record as a format does, by its `name` and `own` columns.

    None where the format reads more than columns.
    """
    row = table.ROWS.get(name)
    names = tidy_names(tuple(own), small=row is not None and "any_case" in row.traits)
    found = row and resolve(row, tuple(names))
    if not found or re.search(r"[.\[]", " ".join((found.prompt, *found.answers))):
        return None
    fields = {"prompt": found.prompt}
    if found.labels:
        fields |= dict(zip("abcd", found.answers, strict=False))
        fields |= {"label": found.labels[0], "annotator": found.annotator}
    elif len(found.answers) == 1:
        fields |= {"response": found.answers[0], "score": found.scores[0]}
    elif found.scores:
        return None
    else:
        fields |= dict(zip(("chosen", "rejected"), found.answers, strict=True))
    read = {name: names[column] for name, column in fields.items() if column in names}
    return read if row.prompt else {"prompt": ""} | read


def _layout(given: Sequence[str]) -> str:
    """The layout that has all of these fields. Raises ConvertError."""
    fitting = [text for text in _LAYOUTS if {*given} <= {*text.replace("?", "").split()}]
    missing = []
    for text in fitting:
        needed = [name for name in text.split() if not name.endswith("?") and name not in given]
        if not needed or text.startswith("chosen rejected"):
            return text
        missing.append(" and ".join(needed))
    if not fitting and "annotator" in given and _layout([n for n in given if n != "annotator"]):
        raise ConvertError(
            "--map annotator: scores, ranks and orders of several annotators are not joined; "
            "remove it, or map who won: chosen and rejected, or a label"
        )
    if not fitting:
        raise ConvertError(
            f"--map {' '.join(given)}: name the answers in one way: chosen and rejected; a and b "
            "with label, ranking, scores or ranks; responses with one of these; or response with "
            "score"
        )
    raise ConvertError(f"--map {' '.join(given)}: also map {' or '.join(missing)}")

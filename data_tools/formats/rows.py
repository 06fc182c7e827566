"""What a row of the table of formats says, and what it finds in a set of field names.

Where a row names several fields for one thing, a record must have exactly one of them: with two it
would not be known which is meant.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from data_tools.formats import paths
from data_tools.formats.dialogues import check_side
from data_tools.record import Side


@dataclass(frozen=True, eq=False)
class Row:
    """One format by its fields or paths; for `,` and `|` see `alternatives`.

    `prompt` is empty where the answers are whole dialogues; `read` takes it and where it is. Of the
    `answers`, in the order shown, `label` names the better one, a pattern where each of its fields
    is one annotator's label, or else the higher of the `scores` does, or else the first won. One
    answer alone is compared with those of other records. `decode` defines the label's numbers, or
    reads a score. `system` is the field of the system text, else any of `sides.SYSTEMS` is. A
    record that `only_if` rejects is of another format. Besides those of `Format`, there is a trait
    `input`: the text of that field goes below an `instruction`.
    """

    prompt: str
    answers: str
    label: str | re.Pattern = ""
    scores: str = ""
    decode: Callable | None = None
    annotator: str = ""
    read: Callable[[object, str], Side] = check_side
    system: str = ""
    only_if: Callable[[dict], bool] | None = None
    traits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a row finds in a set of field names.

    The paths are those of the first alternative that it has, of the answers up to the last that is
    present. `ambiguity` says which two fields could both be meant; it is empty where none could.
    """

    prompt: str
    answers: tuple[str, ...]
    labels: list[str]
    scores: list[str]
    annotator: str | None
    ambiguity: str
    is_complete: bool


def alternatives(text: str) -> list[list[str]]:
    """The alternatives `a | b` of an entry; a record has all the paths `c, d` of one."""
    return [alternative.split(", ") for alternative in text.split(" | ")] if text else []


def every(text: str) -> list[str]:
    """All paths of an entry."""
    return re.split(r" \| |, | or ", text) if text else []


@lru_cache(10_000)
def resolve(row: Row, names: tuple[str, ...]) -> Found:
    """What the row finds in a record with these field names."""

    def present(entry: str) -> list[list[str]]:
        """The alternatives whose paths a record has; answers after the second may be absent."""
        return [
            alternative
            for alternative in alternatives(entry)
            if all(paths.is_in(path, names) for path in alternative[:2])
        ]

    prompts, families, scores = map(present, (row.prompt, row.answers, row.scores))
    if ["instruction"] in prompts and ["input"] in prompts:
        prompts.remove(["input"])
    if isinstance(row.label, str):
        labels = present(row.label)
    else:  # annotator2 before annotator10
        judges = sorted(filter(row.label.fullmatch, names), key=lambda name: (len(name), name))
        labels = [judges] if judges else []
    found = (families, prompts, labels, scores)
    wanted = [True, bool(row.prompt), bool(row.label), bool(row.scores)]
    both = [f"{entry[0][0]} and {entry[1][0]} could both be meant" for entry in found if entry[1:]]
    family = (families or alternatives(row.answers))[0]
    shown = [at for at, path in enumerate(family, start=1) if paths.is_in(path, names)]
    return Found(
        prompt=(prompts or alternatives(row.prompt) or [[""]])[0][0],
        answers=tuple(family[: max([2, *shown])]),
        labels=labels[0] if labels else [],
        scores=(scores or alternatives(row.scores) or [[]])[0],
        annotator=next((name for name in every(row.annotator) if name in names), None),
        ambiguity=f"{both[0]}; name the right one with --map" if both else "",
        is_complete=[len(entry) for entry in found] == wanted,
    )

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


def one_of(text: str) -> list[str]:
    """The paths of which a record has one: `prompt | question`."""
    return text.split(" | ") if text else []


def all_of(text: str) -> list[str]:
    """The paths of which a record has all: `answer_a, answer_b`."""
    return text.split(", ") if text else []


def every(text: str) -> list[str]:
    """All paths of an entry."""
    return [path for alternative in one_of(text) for path in all_of(alternative)]


@dataclass(frozen=True)
class Around:
    """How a prompt is read, and where the rest of the dialogue is.

    `read` takes the prompt and where it is in the record. The text of the field `context` goes
    below an `instruction`, `history` holds earlier turns as [question, answer] pairs, `extras` is
    an object that may hold the tools. The first of the paths `system` counts that is not null.
    """

    read: Callable[[object, str], Side] = check_side
    context: str | None = None
    history: str | None = None
    system: str = "system"
    extras: str | None = None

    @property
    def paths(self) -> list[str]:
        others = self.context, self.history, self.extras
        return [*filter(None, others), *all_of(self.system)]


@dataclass(frozen=True, eq=False)
class Row:
    """One format by its fields or paths; for `,` and `|` see `all_of` and `one_of`.

    `prompt` is empty where the answers are whole dialogues. Of the `answers`, in the order shown,
    `label` names the better one, a pattern where each of its fields is one annotator's label, or
    else the higher of the `scores` does, or else the first won. One answer alone is compared with
    those of other records. `decode` defines the label's numbers, or reads a score. A record with a
    field of `unless` is of another format, as is one that `only_if` rejects; for `traits` see
    `Format`.
    """

    prompt: str
    answers: str
    label: str | re.Pattern = ""
    scores: str = ""
    decode: Callable | None = None
    annotator: str = ""
    around: Around = Around()
    unless: tuple[str, ...] = ()
    only_if: Callable[[dict], bool] | None = None
    traits: frozenset[str] = frozenset()

    @property
    def families(self) -> list[list[str]]:
        return [all_of(family) for family in one_of(self.answers)]

    @property
    def is_single(self) -> bool:
        return len(self.families[0]) == 1 and "[]" not in self.answers

    @property
    def score_paths(self) -> list[list[str]]:
        return [all_of(family) for family in one_of(self.scores)]


@dataclass(frozen=True)
class Found:
    """What a row finds in a set of field names.

    `prompts`, `labels` and `scores` are those of the row's that the record has, of a pattern
    annotator2 before annotator10; `answers` are the paths of the answers up to the last that is
    present. `ambiguity` says which two fields could both be meant; it is empty where none could.
    """

    prompts: list[str]
    answers: tuple[str, ...]
    labels: list[str]
    scores: list[str]
    ambiguity: str
    is_complete: bool


@lru_cache(10_000)
def resolve(row: Row, names: tuple[str, ...]) -> Found:
    """What the row finds in a record with these field names."""
    prompts = [path for path in one_of(row.prompt) if paths.is_in(path, names)]
    if "instruction" in prompts and row.around.context in prompts:
        prompts.remove(row.around.context)
    families = [f for f in row.families if all(paths.is_in(path, names) for path in f[:2])]
    scores = [f for f in row.score_paths if all(paths.is_in(path, names) for path in f)]
    if isinstance(row.label, str):
        labels = [name for name in one_of(row.label) if name in names]
        meant = labels
    else:
        labels = sorted(filter(row.label.fullmatch, names), key=lambda name: (len(name), name))
        meant = labels[:1]  # all of them are
    family = (families or row.families)[0]
    present = [at for at, path in enumerate(family, start=1) if paths.is_in(path, names)]
    choices = [[f[0] for f in families], prompts, meant, [f[0] for f in scores]]
    wanted = [True, bool(row.prompt), bool(row.label), bool(row.scores)]
    two = next((choice for choice in choices if len(choice) > 1), None)
    return Found(
        prompts=prompts,
        answers=tuple(family[: max([2, *present])]),
        labels=labels,
        scores=(scores or row.score_paths or [[]])[0],
        ambiguity=f"{two[0]} and {two[1]} could both be meant; name the right one with --map"
        if two
        else "",
        is_complete=[len(choice) for choice in choices] == wanted
        and not any(name in names for name in row.unless),
    )

"""Formats that are rows of a table: the paths of the prompt, the answers and the judgement.

`table` and `nested_table` hold the rows, this file turns a row into a format, and `plans` reads its
records. Where a row names several fields for one thing, a record must have exactly one of them:
with two it would not be known which is meant.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial

from data_tools.formats import label as labels
from data_tools.formats import paths
from data_tools.formats.dialogues import MESSAGES, Dialect
from data_tools.formats.format import Format, JsonFields, Labels, Plan, ReadOptions

RANKED, RATED = frozenset({"ranked"}), frozenset({"ranked", "rated"})


def one_of(text: str) -> list[str]:
    """The paths of which a record has one: `prompt | question`."""
    return text.split(" | ") if text else []


def all_of(text: str) -> list[str]:
    """The paths of which a record has all: `answer_a, answer_b`."""
    return text.split(", ") if text else []


@dataclass(frozen=True)
class Answers:
    """The answers of a format, and how the better one is known.

    `shown` are the paths of the answers in the order shown, `scores` those of their scores, `label`
    and `annotator` fields; for `,` and `|` see `all_of` and `one_of`. Without a label, scores or
    judges, the first answer is the better one; of a single answer, the label is its score.
    `numbers` defines the label's numbers, `judges` matches fields that are each one annotator's
    label, `score` reads a score, the higher the better.
    """

    shown: str
    label: str = ""
    numbers: labels.Numbers | None = None
    judges: re.Pattern | None = None
    annotator: str = ""
    scores: str = ""
    score: Callable[[object, str], float] = labels.score

    @property
    def families(self) -> list[list[str]]:
        return [all_of(family) for family in one_of(self.shown)]

    @property
    def is_single(self) -> bool:
        """Whether a record holds one answer, to be compared with those of other records."""
        return len(self.families[0]) == 1 and not self.scores

    @property
    def paths(self) -> list[str]:
        return [path for family in self.families for path in family]


@dataclass(frozen=True)
class Around:
    """Where the rest of the dialogue is.

    `context` is a field whose text goes below an `instruction`, `history` holds earlier turns as
    [question, answer] pairs, `extras` is an object that may hold the tools. The first path of
    `system` counts that is not null.
    """

    context: str | None = None
    history: str | None = None
    system: tuple[str, ...] = ("system",)
    extras: str | None = None

    @property
    def paths(self) -> list[str]:
        return [path for path in (self.context, self.history, self.extras, *self.system) if path]


@dataclass(frozen=True)
class Row:
    """One format; for `traits` see `Format`.

    `prompt` are the paths of the prompt (`prompt | question`: a record has one of them), none where
    the answers are whole dialogues. A record with a field of `unless` is of another format, as is
    one that `only_if` rejects.
    """

    name: str
    prompt: str
    answers: Answers
    around: Around = Around()
    dialect: Dialect = MESSAGES
    unless: tuple[str, ...] = ()
    only_if: Callable[[dict], bool] | None = None
    traits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """What a row finds in a set of field names.

    `own` is the record's field for each name; `prompts`, `families` and `labels` are those of the
    row's that the record has, `judges` the fields that are one annotator's label each, annotator2
    before annotator10. `answers` are the paths of the answers up to the last that is present.
    """

    own: dict[str, str]
    prompts: list[str]
    families: list[list[str]]
    labels: list[str]
    judges: list[str]
    answers: tuple[str, ...]
    is_complete: bool

    @property
    def ambiguity(self) -> str:
        """Which two fields could both be meant; empty where none."""
        for found in ([family[0] for family in self.families], self.prompts, self.labels):
            if len(found) > 1:
                return (
                    f"{found[0]} and {found[1]} could both be meant; name the right one with --map"
                )
        return ""


def resolve(row: Row, names: tuple[str, ...]) -> Found:
    """What the row finds. Capitals make no difference to a general row (`Prompt`, `Response A`)."""
    found = _resolve(row, {name: name for name in names})
    if "general" in row.traits and not found.is_complete:
        folded = _resolve(row, {name.casefold(): name for name in names})
        if len(folded.own) == len(names) and folded.is_complete:
            return folded
    return found


def _resolve(row: Row, own: dict[str, str]) -> Found:
    answers = row.answers
    prompts = [path for path in one_of(row.prompt) if paths.is_in(path, own)]
    if len(prompts) > 1 and row.around.context in prompts and "instruction" in prompts:
        prompts.remove(row.around.context)
    families = [
        family for family in answers.families if all(paths.is_in(path, own) for path in family[:2])
    ]
    labels = [name for name in one_of(answers.label) if name in own]
    judges = [name for name in own if answers.judges and answers.judges.fullmatch(name)]
    family = families[0] if families else answers.families[0]
    present = [at for at, path in enumerate(family, start=1) if paths.is_in(path, own)]
    shown = tuple(family[: max([2, *present])])
    is_complete = (
        len(prompts) == (1 if row.prompt else 0)
        and len(families) == 1
        and len(labels) == (1 if answers.label else 0)
        and (bool(judges) or answers.judges is None)
        and all(paths.is_in(path, own) for path in all_of(answers.scores))
        and not any(name in own for name in row.unless)
    )
    judges.sort(key=lambda name: (len(name), name))
    return Found(own, prompts, families, labels, judges, shown, is_complete)


def collision(row: Row, names: Iterable[str]) -> str:
    """The two fields that could both be meant in an otherwise complete record; empty if none."""
    found = _resolve(row, {name.casefold(): name for name in names})
    return found.ambiguity if found.families and found.labels else ""


def as_format(row: Row, plan: Callable[[Row, tuple[str, ...], ReadOptions], Plan]) -> Format:
    """The row as a format whose records `plan` reads."""
    answers, around = row.answers, row.around
    find = lru_cache(1000)(partial(resolve, row))
    objects = _fields_of_objects(answers)

    def matches(record: dict) -> bool:
        if not find(tuple(record)).is_complete:
            return False
        if not all(_holds(record[field], names) for field, names in objects.items()):
            return False
        return row.only_if is None or row.only_if(record)

    def value(record: dict) -> object:
        found = find(tuple(record))
        name = next(iter(found.labels or found.judges), None)
        return None if name is None else record[found.own[name]]

    has_label = bool(answers.label or answers.judges) and not answers.is_single
    has_label = has_label and "refused" not in row.traits
    sides = (*one_of(row.prompt), *answers.paths)
    structured = [path for path in (*sides, *all_of(answers.scores)) if "." in path or "[" in path]
    structured += [path for path in around.paths if path not in ("system", around.context)]
    structured += one_of(row.prompt) if row.dialect.prompt_is_json else []
    return Format(
        name=row.name,
        matches=matches,
        plan=partial(plan, row),
        labels=Labels(
            values=value if has_label else None,
            numbered=answers.numbers is not None,
            owns=tuple(one_of(answers.label)),
        ),
        json_fields=JsonFields(
            structured=tuple(field for path in structured for field in paths.fields(path)),
            dialogues=tuple(field for path in sides for field in paths.fields(path)),
        ),
        traits=row.traits,
    )


def _fields_of_objects(answers: Answers) -> dict[str, set[str]]:
    """The lists of objects that a format is known by, and the fields of these objects."""
    found: dict[str, set[str]] = {}
    for path in (*answers.paths, *all_of(answers.scores)):
        name, _, field = path.partition("[].")
        if field:
            found.setdefault(name, set()).add(field)
    return found


def _holds(value: object, names: set[str]) -> bool:
    """Whether the value is a list with an object that has all these fields."""
    return isinstance(value, list) and any(
        isinstance(entry, dict) and names <= entry.keys() for entry in value
    )

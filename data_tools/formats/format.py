"""What a format is: the fields that identify it, and how its records become pairs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files

from data_tools.formats.paths import Column
from data_tools.record import Result, tidy_name


@dataclass(frozen=True)
class ReadOptions:
    """What a format cannot learn from one record: the user's options, and the sample's look."""

    label: Mapping[str, int | None] | None = None
    """What the values of the label mean, by --label: see `label.parse_label`."""
    answers_repeat_prompt: bool = False
    pairs: str = "best-worst"
    min_margin: float = 0.0
    swapped: Column = ""
    """The field that is true where the answers were shown the other way round, by --map."""
    steady: Mapping[str, str] = field(default_factory=dict)
    """Unread columns that may say that answers were swapped, with the value they all have."""
    answers_are_transcripts: bool = False
    parsed: frozenset[str] = frozenset()
    """Fields whose texts are all messages, as JSON or as Python writes them."""
    split: str = ""
    """The field that names the split of a record, by --keep-splits."""
    question: str | None = None
    """The question whose answers name the winner, where a format leaves it open."""


@dataclass(frozen=True)
class Plan:
    """How the records with one set of field names are read, worked out once for all of them.

    `results` takes such a record and raises BadRecord; `reads` are the fields that it looks at.
    """

    results: Callable[[dict], list[Result]]
    reads: frozenset[str]


@dataclass(frozen=True, eq=False)
class Format:
    """One format of raw preference data.

    `matches` decides by the field names of a record and, where formats share names, by the type
    of its values. `label` are the fields of a label that --label may define, None where there is
    no such label; `questions` gives the questions of a record that name an answer. `traits`:
    `general` (gives way to a format that fits more closely), `any_case` (capitals in field names
    make no difference), `ranked` (--pairs applies) and `rated` (--min-margin applies). `made` are
    fields that are made of others, see `paths.value_at`.
    """

    name: str
    matches: Callable[[dict], bool]
    plan: Callable[[tuple[str, ...], ReadOptions], Plan]
    label: tuple[str, ...] | None = None
    questions: Callable[[dict, ReadOptions], list[str]] | None = None
    traits: tuple[str, ...] = ()
    made: Mapping[str, Column] = field(default_factory=dict)

    @property
    def about(self) -> dict:
        """What people read: a `sentence`, its `fields`, the label's `polarity` and `examples`.

        The polarity says which value of the label, or which rank or score, means that an answer
        won. Of the two examples, the first makes a pair and the second is rejected.
        """
        return entries()[self.name]


@cache
def entries() -> dict[str, dict]:
    """What formats.json says of every format, by name; for `row` see `table`."""
    text = files(__package__).joinpath("formats.json").read_text(encoding="utf-8")
    return json.loads(text)


def reading(
    results: Callable[[dict, ReadOptions], list[Result]], *fields: str
) -> Callable[[tuple[str, ...], ReadOptions], Plan]:
    """The `plan` of a format that reads the same `fields` whatever else a record has."""

    def plan(names: tuple[str, ...], options: ReadOptions) -> Plan:
        return Plan(partial(results, options=options), frozenset(fields))

    return plan


def tidy_names(names: tuple[str, ...], small: bool = False) -> dict[str, str]:
    """Each field name by its tidy form (`response 1` is `response_1`); as is where two collide.

    With `small`, the tidy forms are in small letters, unless two of these collide.
    """
    tidy = {tidy_name(name): name for name in names}
    if len(tidy) < len(names):
        tidy = {name: name for name in names}
    lowered = {name.casefold(): own for name, own in tidy.items()} if small else {}
    return lowered if len(lowered) == len(names) else tidy

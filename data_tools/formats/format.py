"""What a format is: the fields that identify it, and how its records become pairs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files

from data_tools.record import ConvertError, Result


@dataclass(frozen=True)
class Label:
    """The label values of `--label`, as text; the booleans of JSON are `true` and `false`."""

    first: str
    second: str
    tie: str | None = None


@dataclass(frozen=True)
class ReadOptions:
    """What a format cannot learn from one record: the user's options, and the sample's look."""

    label: Label | None = None
    answers_repeat_prompt: bool = False
    pairs: str = "best-worst"
    min_margin: float = 0.0
    question: str | None = None
    """The question whose answers name the winner, where a format leaves it open."""


@dataclass(frozen=True)
class Plan:
    """How the records with one set of field names are read, worked out once for all of them.

    `results` takes such a record and raises BadRecord; `reads` are the fields that it looks at.
    """

    results: Callable[[dict], list[Result]]
    reads: frozenset[str]


@dataclass(frozen=True)
class Labels:
    """The label of a format's records, and what its values mean.

    `values` gives a record's label, which `--label` may explain. `numbered` is true where the
    format defines what its numbers mean. `questions` gives the questions of a record that name an
    answer. `owns` are the label's fields: a record with another label as well is ambiguous.
    """

    values: Callable[[dict], object] | None = None
    numbered: bool = False
    questions: Callable[[dict, ReadOptions], frozenset[str]] | None = None
    owns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class JsonFields:
    """The fields that hold JSON in the cells of a table.

    `structured` fields may hold any JSON, `dialogues` hold either text or messages.
    """

    structured: tuple[str, ...] = ()
    dialogues: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format of raw preference data.

    `matches` decides by the field names of a record and, where formats share names, by the type
    of its values. `traits`: `general` (gives way to a format that fits more closely), `ranked`
    (--pairs applies), `rated` (--min-margin applies) and `refused` (cannot be converted).
    descriptions.json tells people about it.
    """

    name: str
    matches: Callable[[dict], bool]
    plan: Callable[[tuple[str, ...], ReadOptions], Plan]
    labels: Labels = Labels()
    json_fields: JsonFields = JsonFields()
    traits: frozenset[str] = frozenset()

    @property
    def any_case(self) -> bool:
        """Whether capitals in field names make no difference."""
        return "general" in self.traits

    @property
    def sentence(self) -> str:
        return descriptions()[self.name]["sentence"]

    @property
    def fields(self) -> str:
        return descriptions()[self.name]["fields"]

    @property
    def polarity(self) -> str:
        """Which value of the label, or which rank or score, means that an answer won."""
        return descriptions()[self.name]["polarity"]


@cache
def descriptions() -> dict[str, dict]:
    """What people read about each format, with a record that makes a pair and one that does not."""
    text = files(__package__).joinpath("descriptions.json").read_text(encoding="utf-8")
    return json.loads(text)


def reading(
    results: Callable[[dict, ReadOptions], list[Result]], *fields: str
) -> Callable[[tuple[str, ...], ReadOptions], Plan]:
    """The `plan` of a format that reads the same `fields` whatever else a record has."""

    def plan(names: tuple[str, ...], options: ReadOptions) -> Plan:
        return Plan(partial(results, options=options), frozenset(fields))

    return plan


def parse_label(text: str) -> Label:
    """Parse `first=X,second=Y[,tie=Z]` of --label. Raises ConvertError (status 2)."""
    words = [part.partition("=") for part in text.split(",")]
    parts = {name.strip(): value.strip() for name, _, value in words}
    known = {"first", "second"} <= set(parts) <= {"first", "second", "tie"}
    if not known or len(parts) < len(words) or not all(parts.values()):
        raise ConvertError(
            f"--label {text}: write --label first=X,second=Y or first=X,second=Y,tie=Z, where X, Y "
            "and Z are values of the label column"
        )
    if len({value.casefold() for value in parts.values()}) < len(parts):
        raise ConvertError(f"--label {text}: one value cannot mean two outcomes")
    return Label(**parts)


def tidy_name(name: str) -> str:
    """The field name without white space around it, and with underscores for any inside."""
    return "_".join(name.split())


def tidy_names(names: tuple[str, ...]) -> dict[str, str]:
    """Each field name by its tidy form (`response 1` is `response_1`); as is where two collide."""
    tidy = {tidy_name(name): name for name in names}
    return tidy if len(tidy) == len(names) else {name: name for name in names}

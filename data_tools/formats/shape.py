"""What a format is: its signature, its polarity, and how one record becomes pairs."""

from collections.abc import Callable
from dataclasses import dataclass

from data_tools.record import ConvertError, Fault, Pair, Part


@dataclass(frozen=True)
class Label:
    """What the user said that label values mean, as text; JSON booleans are `true`, `false`."""

    first: str
    second: str
    tie: str | None = None


@dataclass(frozen=True)
class Meaning:
    """What a format cannot know from one record: the user's options, or the look of the sample."""

    label: Label | None = None
    answers_repeat_prompt: bool = False
    pairs: str = "best-worst"
    min_margin: float = 0.0
    question: str | None = None


Found = list[Pair | Part | Fault] | Fault


@dataclass(frozen=True)
class Plain:
    """The fields of a flat shape by what their values can change, in small letters.

    `texts` are taken over as they are, `labels` say who won; any of `others` may make something
    else of the record, unless it is empty. What a field of no kind holds changes nothing.
    """

    texts: frozenset[str]
    labels: frozenset[str]
    others: frozenset[str]


@dataclass(frozen=True)
class Format:
    """One shape of raw preference data.

    `matches` judges a record by its field names (and, where names are shared, the kind of its
    values); `pairs` gives what one record holds, or the fault that it has as a whole. `passing`
    and `failing` are records that show both. A `general` shape stands back where another fits.
    In a table's cells, `structured` fields may hold any JSON, `dialogues` text or messages.
    """

    name: str
    fields: str
    polarity: str
    sentence: str
    matches: Callable[[dict], bool]
    pairs: Callable[[dict, Meaning], Found]
    passing: dict
    failing: dict
    labels: Callable[[dict], object] | None = None  # its label, which --label may explain
    numbered: bool = False  # whether the label's numbers mean something by themselves
    prompts: tuple[str, ...] = ()  # the fields that it reads a prompt from, where it is flat
    # The votes of a record's own annotators, who have judged even where an answer is at fault.
    votes: Callable[[dict, Meaning], tuple[tuple[str, int | None], ...]] | None = None
    # The fields or questions of a record that name an answer, where the shape leaves them open.
    questions: Callable[[dict, Meaning], frozenset[str]] | None = None
    owns: tuple[str, ...] | None = None  # its label's fields; another label beside is a question
    general: bool = False
    structured: tuple[str, ...] = ()
    dialogues: tuple[str, ...] = ()
    ranked: bool = False  # whether --pairs has something to choose
    rated: bool = False  # whether --min-margin has
    plain: "Plain | None" = None  # where a record may be a plain one
    refused: str = ""  # why no record of this shape can be converted


def parse_label(text: str) -> Label:
    """`first=X,second=Y[,tie=Z]` of --label. Raises ConvertError (status 2) with the mend."""
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


def tidy_key(key: str) -> str:
    """The name without white space around it, and with an underscore for any inside it."""
    return "_".join(key.split())


def tidy_keys(record: dict) -> dict:
    """The record with tidy names (`response 1` is `response_1`), unless two would meet."""
    tidy = {tidy_key(key): value for key, value in record.items()}
    return tidy if len(tidy) == len(record) else record

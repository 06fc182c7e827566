"""What a format is: its signature, its polarity, and how one record becomes pairs."""

from collections.abc import Callable
from dataclasses import dataclass

from data_tools.record import ConvertError, Fault, Pair


@dataclass(frozen=True)
class Label:
    """What the user said that label values mean, as text; JSON booleans are `true`, `false`."""

    first: str
    second: str
    tie: str | None = None


@dataclass(frozen=True)
class Meaning:
    """What a format cannot know from one record: the user's label, or the look of the sample."""

    label: Label | None = None
    answers_repeat_prompt: bool = False


@dataclass(frozen=True)
class Format:
    """One shape of raw preference data.

    `matches` judges a record by its field names (and, where names are shared, the kind of its
    values); `pairs` gives the pairs of one record or the fault that it has. `passing` and
    `failing` are records that show both.
    """

    name: str
    fields: str
    polarity: str
    sentence: str
    matches: Callable[[dict], bool]
    pairs: Callable[[dict, Meaning], list[Pair] | Fault]
    passing: dict
    failing: dict
    labels: Callable[[dict], object] | None = None  # the label value, where the shape has one


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


def tidy_keys(record: dict) -> dict:
    """The record with white space around its keys taken off, unless two keys would meet."""
    if all(key == key.strip() for key in record):
        return record
    tidy = {key.strip(): value for key, value in record.items()}
    return tidy if len(tidy) == len(record) else record

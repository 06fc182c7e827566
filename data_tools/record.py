"""The nouns that every room shares: where a record stands, a pair, a fault, and a refusal."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# A reject has one reason: the first that applies, in this order.
REASONS = (
    "bad_encoding",
    "nul_byte",
    "bad_json",
    "ragged_row",
    "wrong_type",
    "missing_field",
    "cancelled_annotation",
    "null_label",
    "unknown_label",
    "tie",
    "disagreement",
    "unpaired",
    "history_mismatch",
    "bad_roles",
    "empty_prompt",
    "empty_response",
    "identical_pair",
    "overlong",
    "excluded",
    "contradictory",
    "duplicate",
)

Message = dict[str, Any]
Side = str | list[Message]


class ConvertError(Exception):
    """Why nothing can be converted, in one sentence with place and mend, and an exit status."""

    def __init__(self, message: str, status: int = 2):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record starts: `line` is 1-based (None in files without lines), `record` too.

    `crowded` says that another record starts on that line, which then finds neither again.
    """

    file: str
    line: int | None
    record: int
    crowded: bool = False

    def __str__(self) -> str:
        if self.line is None or self.crowded:
            return f"{self.file}#{self.record}"
        return f"{self.file}:{self.line}"

    def moved(self, lines: int, records: int) -> "Place":
        """The place further on, where it was counted from somewhere within the file."""
        line = None if self.line is None else self.line + lines
        return Place(self.file, line, self.record + records, self.crowded)


@dataclass(frozen=True, slots=True)
class Raw:
    """One record as its file holds it; `value` is a dict unless the file is odd.

    `cells` says that its values are the cells of a table, where structure can only stand as JSON.
    """

    place: Place
    value: Any
    cells: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a record or a pair: a code of `REASONS` and one sentence with the mend."""

    reason: str
    detail: str
    comparison: tuple[bytes, bool] | None = None
    """Of a pair that was excluded: its key and which way it went, to know its repeats by."""

    def __post_init__(self):
        assert self.reason in REASONS, self.reason


@dataclass(frozen=True, slots=True)
class Reject:
    """A fault at its place, with the record as it was read."""

    place: Place
    fault: Fault
    raw: Any


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison: the answer that won and the one that lost, to one prompt.

    Each side is text, or a list of messages (`role`, `content`, ...). `first_won` tells whether
    the winner stood first in the record, None where the shape has no order of presentation.
    `tools` is a JSON string, `chat_template_kwargs` any JSON object. `annotator` is set where
    every judgement is its own pair.
    """

    prompt: Side
    chosen: Side
    rejected: Side
    first_won: bool | None = None
    tools: str | None = None
    chat_template_kwargs: dict | None = field(default=None)
    annotator: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison with the judgements that a record holds of it, before they are counted.

    `votes` are (annotator, outcome): 0 where the first answer won, 1 the second, None a tie.
    `across` says that other records may hold further judgements of the same comparison.
    """

    prompt: Side
    first: Side
    second: Side
    votes: tuple[tuple[str, int | None], ...]
    tools: str | None = None
    chat_template_kwargs: dict | None = None
    across: bool = False


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer alone, to be compared with the answers to the same prompt in other records.

    The higher `score` is the better; `graded` tells a rating from a mere yes or no.
    """

    prompt: Side
    answer: Side
    score: float
    graded: bool
    tools: str | None = None
    chat_template_kwargs: dict | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a tree whose other messages are in other records; rank 0 is the best."""

    key: str
    parent: str | None
    message: Message
    rank: float | None


Part = Judged | Rated | Turn


def first_fault(parts: Iterable[object]) -> Fault | None:
    """The fault among the parts that stands first in the order of reasons; None without any."""
    faults = [part for part in parts if isinstance(part, Fault)]
    return min(faults, key=lambda fault: REASONS.index(fault.reason), default=None)


def clip(text: object, limit: int = 60) -> str:
    """A value quoted for a message, shortened in the display alone."""
    shown = repr(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"

"""The data that every module shares: records and their locations, pairs, rejects and errors."""

import json
from dataclasses import dataclass
from typing import Any

_REASONS = (
    "bad_encoding nul_byte bad_json ragged_row wrong_type missing_field cancelled_annotation "
    "null_label unknown_label tie disagreement unpaired history_mismatch bad_roles empty_prompt "
    "empty_response identical_pair overlong excluded leaked contradictory duplicate"
)
REASONS = tuple(_REASONS.split())
"""Why a record or a pair is rejected; the report lists the codes in this order."""

as_json = json.JSONEncoder(ensure_ascii=False).encode

Message = dict[str, Any]
Side = str | list[Message]
"""One side of a pair: a text, or a list of messages with `role`, `content` and perhaps more."""


class ConvertError(Exception):
    """Why nothing can be converted: one sentence with the place and the fix, and an exit status.

    `report` has the figures, where the inputs were read.
    """

    def __init__(self, message: str, status: int = 2, report: Any = None):
        super().__init__(message)
        self.status, self.report = status, report


class BadRecord(Exception):  # noqa: N818 - named for what it describes
    """What is wrong with a record or a pair: a code of `REASONS`, and one sentence with the fix.

    `votes` count for the agreement of annotators even where an answer is unusable.
    """

    def __init__(self, reason: str, detail: str, votes: tuple = ()):
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason, self.detail, self.votes = reason, detail, votes

    def copy(self) -> "BadRecord":
        """The same without the frames that it was raised through, which hold a whole block."""
        return BadRecord(self.reason, self.detail, self.votes)


@dataclass(slots=True)
class Location:
    """Where a record starts: `line` and `record` count from 1; `line` is None without lines.

    `shares_line` is true where another record starts on the same line.
    """

    file: str
    line: int | None
    record: int
    shares_line: bool = False

    def __str__(self) -> str:
        if self.line is None or self.shares_line:
            return f"{self.file}#{self.record}"
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class Record:
    """One record as its file holds it; `cells` of a table are texts that may hold JSON."""

    location: Location
    value: Any
    cells: bool = False


@dataclass(slots=True)
class Reject:
    """Why the record at a location makes no pair, or one of its pairs is not kept.

    `raw` is the record as it was read, in JSON. `made` is true for a pair that was counted as made.
    `shared` lists the records that share the reject, as a piece of JSON.
    """

    location: Location
    reason: str
    detail: str
    raw: str
    made: bool = False
    shared: str | None = None


@dataclass(slots=True)
class Pair:
    """One comparison: the answer that won and the one that lost, to one prompt.

    `first_won` is true where the winner was shown first, None where no order is known. `tools` is
    JSON. `annotator` is set where every judgement makes a pair of its own.
    """

    prompt: Side
    chosen: Side
    rejected: Side
    first_won: bool | None = None
    tools: str | None = None
    chat_template_kwargs: dict | None = None
    annotator: str | None = None


Vote = tuple[str, int | None]
"""An annotator's name, and the position of the answer that won (0 or 1), None for a tie."""


@dataclass(slots=True)
class LabeledComparison:
    """Two answers in the order shown, with the votes that a record holds on them.

    `across_records` is true where other records may hold further votes on the same comparison,
    `is_ordered` is false where the order shown is not known.
    """

    prompt: Side
    first: Side
    second: Side
    votes: tuple[Vote, ...]
    tools: str | None = None
    chat_template_kwargs: dict | None = None
    across_records: bool = False
    is_ordered: bool = True


@dataclass(slots=True)
class ScoredAnswer:
    """One rated answer, to be compared with the answers to the same prompt in other records.

    The higher `score` is better. `graded` is false where the score only means good (1) or bad (0).
    """

    prompt: Side
    answer: Side
    score: float
    graded: bool
    tools: str | None = None
    chat_template_kwargs: dict | None = None


@dataclass(slots=True)
class TreeMessage:
    """One message of a tree whose other messages are in other records; rank 0 is the best."""

    key: str
    parent: str | None
    message: Message
    rank: float | None


Result = Pair | LabeledComparison | ScoredAnswer | TreeMessage | BadRecord
"""What one comparison of a record comes to; a BadRecord explains why it makes no pair."""


def as_messages(side: Side, role: str) -> list[Message]:
    """A text as one message of `role`; messages as they are."""
    return [{"role": role, "content": side}] if isinstance(side, str) else side


def clip(value: object, limit: int = 60) -> str:
    """A value quoted for a message, shortened to `limit` characters."""
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def tidy_name(name: str) -> str:
    """The field name without white space around it, and with underscores for any inside."""
    return "_".join(name.split())


def visible(text: str) -> str:
    """The text with control and other invisible characters as escapes, for a terminal or a page."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

"""What a flat record with these fields and this label becomes, asked of the shape itself.

Each field holds a text of its own in place of a real one, and where these texts come out tells
which field is the prompt and which answer won. So the lane says nothing that a shape says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_tools import block
from data_tools.formats.shape import tidy_key, tidy_keys
from data_tools.record import Fault, Pair, Place, Raw

_NOWHERE = Place("", None, 1)


@dataclass(frozen=True)
class Outcome:
    """The fields whose texts are the sides of the one pair, and whether the first answer won."""

    prompt: str
    chosen: str
    rejected: str
    first_won: bool | None
    messages: bool


@dataclass(frozen=True)
class Kinds:
    """The fields of some records: those of texts, of a label, and those that must be empty."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    others: tuple[str, ...]


def may_be_plain(task: block.Task) -> bool:
    """Whether any record of the task's shape is one pair of its own texts as they are."""
    return task.shape.plain is not None and not task.meaning.answers_repeat_prompt


def kinds(names: Sequence[str], task: block.Task) -> Kinds | None:
    """What each field is to the task's shape; None where no record of it is ever plain."""
    if not may_be_plain(task):
        return None
    plain = task.shape.plain
    read = {name: tidy_key(name).casefold() for name in names}
    others = [n for n in names if read[n] in plain.others or read[n] in block.MEDIA]
    labels = [n for n in names if read[n] in plain.labels and n not in others]
    # A field may be a label in one record and an answer in another: chosen, say.
    if any(read[name] in plain.texts for name in (*others, *labels)):
        others = [name for name in others if read[name] not in plain.texts]
        labels = [name for name in labels if read[name] not in plain.texts]
    texts = tuple(name for name in names if read[name] in plain.texts)
    return Kinds(texts, tuple(labels), tuple(others)) if len(labels) < 2 else None


def shell(value: Any) -> str | None:
    """The role of the one message that a side is; None for one that is a text, or anything else."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else None
    role = one.get("role") if isinstance(one, dict) else None
    return role if isinstance(role, str) else None


def outcome(
    label: Any,
    shells: Mapping[str, str | None],
    names: Sequence[str],
    found: Kinds,
    empty: str | None,
    cells: bool,
    task: block.Task,
) -> Outcome | Fault | None:
    """What a record with this label comes to where its texts are sound, a fault too.

    None where it is not one pair of its texts. `shells` has the roles of fields that are messages,
    `empty` is what the fields hold that must be empty.
    """
    record = {name: f"text {number}" for number, name in enumerate(names)}
    where = {text: name for name, text in record.items()}
    for name, role in shells.items():
        if role is not None:
            record[name] = [{"role": role, "content": record[name]}]
    record |= dict.fromkeys(found.others, empty) | dict.fromkeys(found.labels, label)
    parts = block.parts_of(Raw(_NOWHERE, record, cells), task)
    if isinstance(parts, Fault) and task.shape.matches(tidy_keys(record)):
        return parts
    pair = parts[0] if isinstance(parts, list) and len(parts) == 1 else None
    if not isinstance(pair, Pair):
        return None
    extras = (pair.tools, pair.chat_template_kwargs, pair.annotator)
    sides = (pair.prompt, pair.chosen, pair.rejected)
    messages = isinstance(pair.prompt, list)
    if messages:
        roles = ("user", "assistant", "assistant")
        sides = [_content(side, role) for side, role in zip(sides, roles, strict=True)]
    if extras != (None, None, None) or not all(isinstance(side, str) for side in sides):
        return None
    fields = [where.get(side) for side in sides]
    if None in fields or {*fields} & {*found.labels, *found.others}:
        return None
    return Outcome(*fields, pair.first_won, messages)


def _content(side: Any, role: str) -> str | None:
    """The text of a side that is one message of a role and nothing else."""
    if len(side) != 1 or side[0].keys() != {"role", "content"} or side[0]["role"] != role:
        return None
    return side[0]["content"]

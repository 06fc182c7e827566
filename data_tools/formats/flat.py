"""Flat shapes as rows of one table: which field holds what, and what its label values mean.

A new flat shape is a new row. Where a row names several fields for one thing, a record must
have exactly one of them: a second one would be lost or confused with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from data_tools.formats.dialogue import (
    check_side,
    check_system,
    check_tools,
    join_sides,
    with_system,
)
from data_tools.formats.shape import Format, Label, Meaning
from data_tools.record import ConvertError, Fault, Pair, Side, clip
from data_tools.side import as_messages


@dataclass(frozen=True)
class Row:
    """One flat shape: either `chosen` and `rejected` are fields, or `answers` and a `label`."""

    name: str
    sentence: str
    prompt: tuple[str, ...]
    chosen: str = ""
    rejected: str = ""
    answers: tuple[tuple[str, ...], ...] = ()  # families of fields, each in the order shown
    label: tuple[str, ...] = ()
    system: str = "system"
    passing: Mapping = None
    failing: Mapping = None


def _family(stem: str, ends: str) -> tuple[str, ...]:
    return tuple(f"{stem}{end}" for end in ends)


ROWS = (
    Row(
        name="preference",
        sentence="A prompt, the better and the worse answer; TRL's own columns, text or messages.",
        prompt=("prompt",),
        chosen="chosen",
        rejected="rejected",
        passing={"prompt": "Is tea a herb?", "chosen": "A shrub's leaf.", "rejected": "No idea."},
        failing={"prompt": "Is tea a herb?", "chosen": "A shrub's leaf.", "rejected": None},
    ),
    Row(
        name="labelled-pairs",
        sentence="A prompt, two to four answers in the order shown, and a label naming the winner.",
        prompt=("prompt", "question", "instruction", "query", "input"),
        answers=(
            _family("response_", "abcd"),
            _family("response_", "1234"),
            _family("response", "1234"),
            _family("answer_", "abcd"),
            _family("answer_", "1234"),
            _family("answer", "1234"),
            _family("output_", "abcd"),
            _family("output_", "1234"),
        ),
        label=(
            "preference",
            "preferred",
            "preferred_response",
            "winner",
            "chosen",
            "human_chosen",
            "label",
        ),
        passing={
            "prompt": "Is tea a herb?",
            "response_a": "No idea.",
            "response_b": "A shrub's leaf.",
            "preference": "response_b",
        },
        failing={
            "prompt": "Is tea a herb?",
            "response_a": "No idea.",
            "response_b": "A shrub's leaf.",
            "preference": "the long one",
        },
    ),
)

_TIES = frozenset(
    {"tie", "tied", "draw", "equal", "same", "both", "neither", "no_preference"}
    | {"bothbad", "both_bad", "both_good", "tie_bothbad", "tie_(bothbad)"}
)
_NULLS = frozenset({"", "none", "null", "nan", "na", "n/a"})
_ORDINALS = (("first", "left"), ("second", "right"), ("third",), ("fourth",))
_NOUNS = ("response", "answer", "output", "model", "option", "assistant")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\Z", re.IGNORECASE)


def is_bare(value: object) -> bool:
    """Whether a label is a number or boolean, which says nothing of who won without a key."""
    if isinstance(value, bool | int | float):
        return True
    if not isinstance(value, str):
        return False
    return bool(_NUMBER.match(value.strip())) or value.strip().casefold() in ("true", "false")


def mapped(columns: Mapping[str, str]) -> Format:
    """The format that --map describes, FIELD to COLUMN. Raises ConvertError (status 2)."""
    known = ("prompt", "chosen", "rejected", "a", "b", "label", "system")
    if unknown := [name for name in columns if name not in known]:
        raise ConvertError(
            f"--map {unknown[0]}={columns[unknown[0]]}: unknown field {unknown[0]!r}; "
            f"known are {', '.join(known)}"
        )
    labelled, paired = columns.keys() & {"a", "b", "label"}, columns.keys() & {"chosen", "rejected"}
    if labelled and paired:
        raise ConvertError(
            "--map: chosen and rejected say who won, a, b and label ask for it; map one kind"
        )
    base = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "system": "system"}
    names = base | dict(columns)
    if labelled and len(labelled) < 3:
        missing = ", ".join(sorted({"a", "b", "label"} - labelled))
        raise ConvertError(f"--map: labelled pairs need a, b and label; {missing} is not mapped")
    kind = ("a", "b", "label") if labelled else ("chosen", "rejected")
    used = [names[name] for name in ("prompt", *kind, "system")]
    if twice := [column for column in used if used.count(column) > 1]:
        raise ConvertError(f"--map: the column {twice[0]} cannot be two fields at once")
    row = Row(
        name="mapped",
        sentence="The columns that --map names.",
        prompt=(names["prompt"],),
        chosen="" if labelled else names["chosen"],
        rejected="" if labelled else names["rejected"],
        answers=((names["a"], names["b"]),) if labelled else (),
        label=(names["label"],) if labelled else (),
        system=names["system"],
    )
    return as_format(row)


def as_format(row: Row) -> Format:
    """The row as a format, its signature and its reading derived from its fields."""
    if row.chosen:
        fields = f"{row.prompt[0]}, {row.chosen}, {row.rejected}, {row.system}?"
        polarity = f"{row.chosen} won"
    else:
        families = " | ".join(f"{f[0]}, {f[1]} (to {f[-1]})" for f in row.answers)
        fields = f"{' | '.join(row.prompt)}; {families}; {' | '.join(row.label)}; {row.system}?"
        polarity = "the label's word (A, response_a, first, left, tie ...); numbers need --label"
    return Format(
        name=row.name,
        fields=fields,
        polarity=polarity,
        sentence=row.sentence,
        matches=lambda record: _matches(row, record),
        pairs=lambda record, meaning: _pairs(row, record, meaning),
        passing=dict(row.passing or {}),
        failing=dict(row.failing or {}),
        labels=(lambda record: record.get(_present(row.label, record))) if row.label else None,
    )


def _matches(row: Row, record: dict) -> bool:
    if sum(name in record for name in row.prompt) != 1:
        return False
    if row.chosen:
        return row.chosen in record and row.rejected in record
    families = [f for f in row.answers if f[0] in record and f[1] in record]
    return len(families) == 1 and sum(name in record for name in row.label) == 1


def _present(names: tuple[str, ...], record: dict) -> str:
    return next((name for name in names if name in record), names[0])


def _pairs(row: Row, record: dict, meaning: Meaning) -> list[Pair] | Fault:
    if row.chosen:
        names, winner = (row.chosen, row.rejected), 0
    else:
        names = _answers(row, record)
        winner = _winner(record.get(_present(row.label, record)), names, meaning.label)
    field = _present(row.prompt, record)
    prompt = check_side(record.get(field), field)
    answers = {
        position: check_side(record.get(name), name)
        for position, name in enumerate(names)
        if position < 2 or position == winner or record.get(name) not in (None, "")
    }
    system, tools = check_system(record, row.system), check_tools(record)
    parts = (_twofold(row, record), prompt, *answers.values(), system, tools)
    faults = [part for part in parts if isinstance(part, Fault)]
    if faults:
        return min(faults, key=lambda fault: fault.reason != "wrong_type")
    if isinstance(winner, Fault):
        return winner
    pairs = []
    for loser in answers:
        if loser == winner:
            continue
        joined = _join(prompt, answers[winner], answers[loser], system, meaning)
        if isinstance(joined, Fault):
            return joined
        pairs.append(Pair(*joined, None if row.chosen else winner == 0, *tools))
    return pairs


def _twofold(row: Row, record: dict) -> Fault | None:
    """Where a record has two fields for one thing: neither is taken for the other."""
    families = [family[0] for family in row.answers if {*family[:2]} <= record.keys()]
    fields = ([name for name in names if name in record] for names in (row.prompt, row.label))
    for found in (families, *fields):
        if len(found) > 1:
            detail = f"{found[0]} and {found[1]} could both be meant; name the right one with --map"
            return Fault("wrong_type", detail)
    return None


def _answers(row: Row, record: dict) -> tuple[str, ...]:
    """The answer fields, each at its place in its family; one after the second may be absent."""
    family = next((f for f in row.answers if f[0] in record and f[1] in record), row.answers[0])
    return family[: max([2, *(i for i, name in enumerate(family, start=1) if name in record)])]


def _join(prompt: Side, chosen: Side, rejected: Side, system: str | None, meaning: Meaning):
    if meaning.answers_repeat_prompt and isinstance(prompt, str):
        texts = isinstance(chosen, str) and isinstance(rejected, str)
        if texts and not (chosen.startswith(prompt) and rejected.startswith(prompt)):
            return Fault(
                "history_mismatch",
                "the answers of this file begin with their prompt, one of these does not; "
                "mend the record",
            )
        if texts:
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    joined = join_sides(prompt, chosen, rejected)
    if isinstance(joined, Fault) or not system:
        return joined
    prompt, chosen, rejected = joined
    prompt = with_system(as_messages(prompt, "user"), system)
    return prompt, as_messages(chosen, "assistant"), as_messages(rejected, "assistant")


def _winner(value: object, names: tuple[str, ...], label: Label | None) -> int | Fault:
    """The position of the answer that won, by the user's key or by the word itself."""
    text = _as_text(value)
    meanings = {label.first: 0, label.second: 1, label.tie: "tie"} if label else {}
    outcome = next((o for key, o in meanings.items() if key and key.casefold() == text), None)
    if value is None or (outcome is None and text in _NULLS):
        return Fault("null_label", "there is no judgement; label the record or leave it out")
    if label is not None:
        known = ", ".join(key for key in meanings if key)
    elif is_bare(value):
        return Fault(
            "unknown_label",
            f"the label {clip(value)} is a bare number or boolean; say what it means with --label",
        )
    else:
        word = _word(str(value))
        outcome = "tie" if word in _TIES else _words(names).get(word)
        known = f"{names[0]}, {names[1]}, A, B, first, second, tie"
    if outcome is None:
        return Fault(
            "unknown_label",
            f"the label {clip(value)} names no answer; known are {known}, or map it with --label",
        )
    if outcome == "tie":
        return Fault("tie", f"the label {clip(value)} says that neither answer is better")
    return outcome


def _words(names: tuple[str, ...]) -> dict[str, int]:
    """Every word that names an answer by its field, letter, order or side.

    Fields mapped in another order than their names say answer to these names alone, and fields
    whose names cannot be told apart to none: a word that could mean either means nothing.
    """
    own = {_word(name): position for position, name in enumerate(names)}
    if len(own) < len(names):
        return {}
    words = {}
    for position, name in enumerate(names):
        letter, number = "abcd"[position], str(position + 1)
        words |= {word: position for word in (letter, *_ORDINALS[position])}
        ends = (letter, number) if name[-1:].isdigit() else (letter,)
        words |= {f"{noun}_{end}": position for noun in _NOUNS for end in ends}
    if any(words.get(word, position) != position for word, position in own.items()):
        return own
    return words | own


def _word(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip().casefold())


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).casefold()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip().casefold()

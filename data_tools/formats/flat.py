"""Flat shapes: one field for the prompt, one for each answer, perhaps one for who won.

`table.ROWS` says which field holds what; here is how a row reads a record. Where a row names
several fields for one thing, a record must have exactly one of them: a second one would be lost
or confused with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from data_tools.formats import label as labels
from data_tools.formats.dialogue import check_side, check_system, check_tools
from data_tools.formats.listed import paired
from data_tools.formats.shape import Format, Found, Meaning, Plain, tidy_key
from data_tools.record import ConvertError, Fault, Judged, Side, clip, first_fault
from data_tools.side import as_messages


@dataclass(frozen=True)
class Row:
    """One flat shape: either `chosen` and `rejected` are fields, or `answers` and a `label`."""

    name: str
    sentence: str
    prompt: tuple[str, ...]
    context: str = ""  # a field that goes on with an `instruction`, below it
    history: str = ""  # earlier turns as [question, answer] pairs
    system: str = "system"
    chosen: str = ""
    rejected: str = ""
    answers: tuple[tuple[str, ...], ...] = ()  # families of fields, each in the order shown
    label: tuple[str, ...] = ()
    numbers: labels.Numbers | None = None  # what the label's numbers mean, where it has its own
    judges: re.Pattern | None = None  # fields each of which is one annotator's label
    annotator: tuple[str, ...] = ()  # fields that name who judged
    polarity: str = ""
    unless: tuple[str, ...] = ()  # fields that only another shape has
    beside: str = ""  # a field that must be there too, unless the answers are messages
    general: bool = False
    passing: Mapping = None
    failing: Mapping = None


MAPPED = ("prompt", "chosen", "rejected", "a", "b", "label", "system", "annotator")


def mapped(columns: Mapping[str, str]) -> Format:
    """The format that --map describes, FIELD to COLUMN. Raises ConvertError (status 2)."""
    columns = {name: tidy_key(column) for name, column in columns.items()}
    if unknown := [name for name in columns if name not in MAPPED]:
        raise ConvertError(
            f"--map {unknown[0]}={columns[unknown[0]]}: unknown field {unknown[0]!r}; "
            f"known are {', '.join(MAPPED)}"
        )
    labelled, won = columns.keys() & {"a", "b", "label"}, columns.keys() & {"chosen", "rejected"}
    if labelled and won:
        raise ConvertError(
            "--map: chosen and rejected say who won, a, b and label ask for it; map one kind"
        )
    base = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "system": "system"}
    names = base | dict(columns)
    if labelled and len(labelled) < 3:
        missing = ", ".join(sorted({"a", "b", "label"} - labelled))
        raise ConvertError(f"--map: labelled pairs need a, b and label; {missing} is not mapped")
    if "annotator" in columns and not labelled:
        raise ConvertError("--map: annotator goes with a, b and label; map these too")
    kind = ("a", "b", "label") if labelled else ("chosen", "rejected")
    used = [names[name] for name in ("prompt", *kind, "system", "annotator") if name in names]
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
        annotator=(names["annotator"],) if "annotator" in names else (),
    )
    return as_format(row)


def as_format(row: Row) -> Format:
    """The row as a format, its signature and its reading derived from its fields."""
    words = "the label's word (A, response_a, first, left, tie ...); numbers need --label"
    answers = [name for family in row.answers for name in family]

    def label(record: dict) -> object:
        record = _view(row, record)
        fields = row.label or tuple(_judges(row, record)) or ("",)
        return record.get(_present(fields, record))

    return Format(
        name=row.name,
        fields=_fields(row),
        polarity=row.polarity or (words if row.answers else f"{row.chosen} won"),
        sentence=row.sentence,
        matches=lambda record: _matches(row, _view(row, record)),
        pairs=lambda record, meaning: _pairs(row, _view(row, record), meaning),
        passing=dict(row.passing or {}),
        failing=dict(row.failing or {}),
        labels=label if row.answers else None,
        numbered=row.numbers is not None,
        prompts=(*row.prompt, row.context),
        votes=(lambda record, meaning: _ballot(row, record, meaning)) if row.judges else None,
        owns=row.label,
        general=row.general,
        structured=(row.history,) if row.history else (),
        dialogues=(*row.prompt, *((row.chosen, row.rejected) if row.chosen else answers)),
        plain=None if row.judges else _plain(row),
    )


def _plain(row: Row) -> Plain:
    answers = {row.chosen, row.rejected} if row.chosen else {n for f in row.answers for n in f}
    others = {row.context, row.history, row.system, *row.annotator, "tools", "chat_template_kwargs"}
    kinds = {*row.prompt, *answers}, {*row.label}, others - {""}
    return Plain(*(frozenset(name.casefold() for name in kind) for kind in kinds))


def _view(row: Row, record: dict) -> dict:
    """The record as the row reads it: a general one is not particular about capitals.

    People head their columns `Prompt` and `Response A`; names that a published shape owns are
    taken as they are.
    """
    if not row.general or _matches(row, record):
        return record
    small = {name.casefold(): value for name, value in record.items()}
    return small if len(small) == len(record) and _matches(row, small) else record


def _fields(row: Row) -> str:
    parts = [" | ".join(row.prompt) + (f" (+ {row.context}?)" if row.context else "")]
    if row.chosen:
        parts += [row.chosen, row.rejected]
    else:
        ends = (f" (to {family[-1]})" if len(family) > 2 else "" for family in row.answers)
        parts.append(
            " | ".join(f"{f[0]}, {f[1]}{end}" for f, end in zip(row.answers, ends, strict=True))
        )
        parts.append(" | ".join(row.label) or "annotator1, annotator2 ...")
    optional = [*([row.history] if row.history else []), row.system, *row.annotator[:1]]
    return "; ".join(parts) + "".join(f"; {name}?" for name in optional)


def prompts(row: Row, record: dict) -> list[str]:
    """The fields that could be the prompt; an instruction's context is none of its own."""
    found = [name for name in row.prompt if name in record]
    if row.context in found and len(found) > 1 and "instruction" in found:
        found.remove(row.context)
    return found


def _matches(row: Row, record: dict) -> bool:
    if len(prompts(row, record)) != 1 or any(name in record for name in row.unless):
        return False
    if row.beside and not (row.beside in record or isinstance(record.get(row.answers[0][0]), list)):
        return False
    if row.chosen:
        return row.chosen in record and row.rejected in record
    families = [f for f in row.answers if f[0] in record and f[1] in record]
    judged = _judges(row, record) if row.judges else [n for n in row.label if n in record]
    return len(families) == 1 and (len(judged) == 1 or bool(row.judges and judged))


def _judges(row: Row, record: dict) -> list[str]:
    return sorted(
        (name for name in record if row.judges.fullmatch(name)), key=lambda n: (len(n), n)
    )


def _present(names: tuple[str, ...], record: dict) -> str:
    return next((name for name in names if name in record), names[0])


def _pairs(row: Row, record: dict, meaning: Meaning) -> Found:
    names = (row.chosen, row.rejected) if row.chosen else _answers(row, record)
    votes = [] if row.chosen else _votes(row, record, names, meaning)
    winners = {outcome for _, _, outcome in votes if isinstance(outcome, int)}
    prompt = _prompt(row, record)
    answers = {
        position: check_side(record.get(name), name)
        for position, name in enumerate(names)
        if position < 2 or position in winners or record.get(name) not in (None, "")
    }
    system, tools = check_system(record, row.system), check_tools(record)
    parts = (_twofold(row, record), prompt, *answers.values(), system, tools)
    if fault := first_fault(parts):
        return fault
    if row.chosen:
        pair = paired(prompt, answers[0], answers[1], None, *tools, system)
        return pair if isinstance(pair, Fault) else [pair]
    return _judged(row, votes, prompt, answers, system, tools)


def _judged(
    row: Row,
    votes: list[tuple[str | None, object, int | None | Fault]],
    prompt: Side,
    answers: dict[int, Side | Fault],
    system: str | None,
    tools: tuple,
) -> Found:
    """The comparisons that were judged: the winner with each other answer, a tie of two."""
    unknown = [o for _, _, o in votes if isinstance(o, Fault) and o.reason != "null_label"]
    given = [(name, value, o) for name, value, o in votes if not isinstance(o, Fault)]
    if unknown or not given:
        return unknown[0] if unknown else votes[0][2]
    winners = {outcome for *_, outcome in given} - {None}
    name, value, winner = given[0]
    if name is None:
        if winner is None:
            return labels.tied(value)
        found = []
        for loser in sorted(answers.keys() - {winner}):
            sides = answers[winner], answers[loser]
            found.append(paired(prompt, *sides, winner < loser, *tools, system))
        return found
    across = row.judges is None
    winner = min(winners, default=0) if across else 0
    found = []
    for other in sorted(answers.keys() - {winner}) if across else [1]:
        first, second = sorted((winner, other))
        pair = paired(prompt, answers[first], answers[second], None, *tools, system)
        if isinstance(pair, Fault):
            found.append(pair)
            continue
        ballot = tuple((who, o if o is None else int(o != first)) for who, _, o in given)
        found.append(Judged(pair.prompt, pair.chosen, pair.rejected, ballot, *tools, across))
    return found


def _votes(row: Row, record: dict, names: tuple[str, ...], meaning: Meaning) -> list[tuple]:
    """(annotator, value, outcome or fault) of every judgement that the record holds.

    The annotator is None where records name none, and empty where only this one does not.
    """
    if row.judges:
        columns = [(name, record.get(name)) for name in _judges(row, record)]
        columns = columns or [("", None)]
    else:
        named = [record[name] for name in row.annotator if name in record]
        who = labels.annotator(named[0]) if named else None
        columns = [(who, record.get(_present(row.label, record)))]
    return [
        (name, value, labels.outcome(value, names, meaning.label, row.numbers))
        for name, value in columns
    ]


def _ballot(row: Row, record: dict, meaning: Meaning) -> tuple[tuple[str, int | None], ...]:
    votes = _votes(row, record, _answers(row, record), meaning)
    return tuple((name, outcome) for name, _, outcome in votes if not isinstance(outcome, Fault))


def _prompt(row: Row, record: dict) -> Side | Fault:
    """The prompt, its context below it and its history before it."""
    found = prompts(row, record)
    name = found[0] if found else row.prompt[0]
    prompt = check_side(record.get(name), name)
    more = record.get(row.context) if row.context and name == "instruction" else None
    if isinstance(prompt, Fault):
        return prompt
    if more not in (None, ""):
        if not isinstance(more, str) or not isinstance(prompt, str):
            return Fault("wrong_type", f"{row.context} is {clip(more)}; it must be text")
        prompt = f"{prompt}\n{more}" if prompt else more
    earlier = record.get(row.history) if row.history else None
    if earlier in (None, "", []):
        return prompt
    turns = earlier if isinstance(earlier, list) else [earlier]
    if not all(_is_exchange(turn) for turn in turns):
        return Fault(
            "wrong_type",
            f"{row.history} is {clip(earlier)}; it must be a list of [question, answer]",
        )
    asked = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return asked + as_messages(prompt, "user")


def _is_exchange(turn: object) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(t, str) for t in turn)


def collision(row: Row, record: dict) -> str:
    """What keeps a record from being read: two fields for one thing. Empty where that is not so."""
    names = {name.casefold(): value for name, value in record.items()}
    fault = _twofold(row, names)
    whole = fault and any({*f[:2]} <= names.keys() for f in row.answers)
    return fault.detail if whole and any(name in names for name in row.label) else ""


def _twofold(row: Row, record: dict) -> Fault | None:
    """Where a record has two fields for one thing: neither is taken for the other."""
    families = [family[0] for family in row.answers if {*family[:2]} <= record.keys()]
    fields = [prompts(row, record), [name for name in row.label if name in record]]
    for found in (families, *fields):
        if len(found) > 1:
            detail = f"{found[0]} and {found[1]} could both be meant; name the right one with --map"
            return Fault("wrong_type", detail)
    return None


def _answers(row: Row, record: dict) -> tuple[str, ...]:
    """The answer fields, each at its place in its family; one after the second may be absent."""
    family = next((f for f in row.answers if f[0] in record and f[1] in record), row.answers[0])
    return family[: max([2, *(i for i, name in enumerate(family, start=1) if name in record)])]

"""Exports of annotation tools: the answers of annotators to one or several questions on a record.

The prompt and the answers are fields with the names of the table's labelled pairs; of the questions
one names the winner. Argilla's export is here, Label Studio's are in a file of their own.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from data_tools.formats import label, paths, plans, rows, sides, table
from data_tools.formats.format import Format, Plan, ReadOptions
from data_tools.record import BadRecord, Result

ROW = replace(table.ROWS["labelled-pairs"], label="", annotator="")

DIALOGUES = (*rows.every(ROW.prompt), *rows.every(ROW.answers))
FIELDS = frozenset((*DIALOGUES, *sides.EXTRAS))
"""The fields of prompts, answers, system texts and tools."""

Votes = list[tuple[str, object]]
"""(annotator, meaning) of the answers to a question: what it means, or the BadRecord of a fault."""


@dataclass(frozen=True)
class Export:
    """The fields of a record, and the judgements that it holds by question.

    `cancelled` is true where an annotator withdrew an answer, `across_records` where other records
    may hold answers on the same fields.
    """

    data: dict
    votes: dict[str, Votes]
    cancelled: bool = False
    across_records: bool = False


def export_format(
    name: str,
    read: Callable[[dict, ReadOptions], Export],
    reads: Callable[[str], bool],
    row: rows.Row = ROW,
    compare: Callable[..., list[Result]] | None = None,
    **more: object,
) -> Format:
    """The format of an export that `read` returns; `reads` accepts the fields that it looks at.

    `row` describes the prompt and the answers. `compare` takes what `sides.compare`, which is used
    otherwise, does, but the options in the last place. `more` are other fields of `Format`.
    """
    reader_of = lru_cache(1000)(partial(plans.reader, row))

    def results(record: dict, options: ReadOptions) -> list[Result]:
        export = read(record, options)
        votes = _judgements(export, options)
        sides_of = reader_of(tuple(export.data))
        prompt, answers, extras = sides_of(export.data, [won for _, won in votes])
        if compare:
            return compare(prompt, answers, votes, extras, options)
        return sides.compare(prompt, answers, votes, extras, export.across_records)

    def plan(names: tuple[str, ...], options: ReadOptions) -> Plan:
        return Plan(partial(results, options=options), frozenset(filter(reads, names)))

    def questions(record: dict, options: ReadOptions) -> frozenset[str]:
        """The questions that name a winner."""
        with suppress(BadRecord):
            return frozenset(_naming(read(record, options).votes))
        return frozenset()

    return Format(name, plan=plan, label=None if compare else (), questions=questions, **more)


def resolve(data: dict) -> rows.Found:
    """Which of these fields are the prompt and the answers."""
    return rows.resolve(ROW, tuple(data))


def vote(who: str, decode: Callable[..., object], *value: object) -> Votes:
    """The annotator and what the value means by `decode`; empty where that is no judgement."""
    meaning = sides.attempt(decode, *value)
    is_null = isinstance(meaning, BadRecord) and meaning.reason == "null_label"
    return [] if is_null else [(who, meaning)]


def winner(data: dict, options: ReadOptions) -> Callable[[object], int | None]:
    """What gives the position of the answer that a value names. Raises BadRecord."""
    return partial(label.outcome, names=resolve(data).answers, label=options.label)


def _judgements(export: Export, options: ReadOptions) -> Votes:
    """The votes on the one question that names the winner. Raises BadRecord."""
    names = export.votes if options.question is None else [options.question]
    given = {name: votes for name in names if (votes := export.votes.get(name))}
    if not given and export.cancelled:
        detail = "every annotation of the record was cancelled or discarded; label it or remove it"
        raise BadRecord("cancelled_annotation", detail)
    if not given:
        raise BadRecord("null_label", label.NO_JUDGEMENT)
    named = _naming(given)
    if len(named) > 1:
        detail = f"{named[0]} and {named[1]} both name an answer; remove the one not meant"
        raise BadRecord("wrong_type", detail)
    if not named and len(given) > 1:
        detail = f"no judgement names an answer (looked at {', '.join(given)}); fix the labels or "
        raise BadRecord("unknown_label", detail + "define them with --label")
    found = given[(named or [*given])[0]]
    for _, meaning in found:
        if isinstance(meaning, BadRecord):
            raise meaning
    return found


def _naming(votes: dict[str, Votes]) -> list[str]:
    """The questions of which an answer names a winner."""
    return [
        question
        for question, given in votes.items()
        if not all(isinstance(meaning, BadRecord) for _, meaning in given)
    ]


_RESPONSES = ".responses"


def _read_argilla(record: dict, options: ReadOptions) -> Export:
    """The submitted responses; a draft is no judgement, and a suggestion is a model's."""
    votes: dict[str, Votes] = {}
    winner_of, cancelled = winner(record, options), False
    for name in record:
        if not name.endswith(_RESPONSES):
            continue
        question = name.removesuffix(_RESPONSES)
        votes[question] = []
        try:
            values = _entries(record, name)
            users = _entries(record, f"{name}.users", len(values))
            statuses = _entries(record, f"{name}.status", len(values))
        except BadRecord as fault:
            votes[question].append(("", fault))
            continue
        cancelled = cancelled or "discarded" in statuses
        for at, value in enumerate(values):
            if not statuses or statuses[at] == "submitted":
                who = label.annotator(users[at] if users else None, f"response {at + 1}")
                votes[question] += vote(who, winner_of, value)
    if not votes:
        raise BadRecord("missing_field", f"no field holds a question's answers (NAME{_RESPONSES})")
    return Export(record, votes, cancelled)


def _entries(record: dict, name: str, count: int | None = None) -> list:
    """A list with an entry for each response; empty where the export has none. Raises BadRecord."""
    values = paths.parse_json(record.get(name), name)
    if values in (None, ""):
        return []
    paths.check(values, list, name, "a list with an entry for each response")
    if count not in (None, len(values)):
        detail = f"{name} has {len(values)} entries for {count} responses; export it again"
        raise BadRecord("wrong_type", detail)
    return values


FORMATS: tuple[Format, ...] = (
    export_format(
        "argilla-responses",
        _read_argilla,
        matches=lambda record: (
            any(name.endswith(_RESPONSES) for name in record) and resolve(record).is_complete
        ),
        reads=lambda name: _RESPONSES in name or name in FIELDS,
        dialogues=DIALOGUES,
        traits=("any_case",),
    ),
)

"""Exports of annotation tools: the answers of annotators to one or several questions on a record.

The prompt and the answers are fields with the names of the table's labelled pairs; of the questions
one names the winner. Argilla's export is here, Label Studio's are in a file of their own.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

from data_tools.formats import label, plans, rows, sides, table
from data_tools.formats.cells import load_list
from data_tools.formats.format import Format, JsonFields, Labels, Plan, ReadOptions
from data_tools.record import BadRecord, Result, clip

_LABELLED = next(row for row in table.ROWS if row.name == "labelled-pairs")
_ROW = replace(_LABELLED, answers=rows.Answers(_LABELLED.answers.shown))

DIALOGUES = (*rows.one_of(_ROW.prompt), *_ROW.answers.paths)
FIELDS = frozenset((*DIALOGUES, *sides.EXTRAS))
"""The fields of prompts, answers, system texts and tools."""


@dataclass(frozen=True)
class Export:
    """The fields of a record, and (annotator, value) of each answer by question.

    A BadRecord in the place of a value is the fault of one answer alone, in the place of the
    answers that of the question. `cancelled` is true where an annotator withdrew an answer,
    `across_records` where other records may hold answers on the same fields. `decode` gives what a
    value means, by default the position of the winner; it raises BadRecord.
    """

    data: dict
    questions: dict[str, list[tuple[str, object]] | BadRecord]
    cancelled: bool = False
    across_records: bool = False
    decode: Callable[[object], object] | None = None


def export_format(
    name: str,
    read: Callable[[dict, ReadOptions], Export],
    matches: Callable[[dict], bool],
    reads: Callable[[str], bool],
    compare: Callable[[Export, ReadOptions], list[Result]] | None = None,
    **more: object,
) -> Format:
    """The format of an export that `read` returns; `reads` accepts the fields that it looks at.

    `compare` makes the results, by default of votes. `more` are other fields of `Format`.
    """

    def plan(names: tuple[str, ...], options: ReadOptions) -> Plan:
        make = compare or _compare_votes
        fields = frozenset(filter(reads, names))
        return Plan(lambda record: make(read(record, options), options), fields)

    def value(record: dict) -> object:
        """The answer to the only question."""
        with suppress(BadRecord):
            questions = [*read(record, ReadOptions()).questions.values()]
            if len(questions) == 1 and not isinstance(questions[0], BadRecord):
                return next((v for _, v in questions[0] if not label.is_null(v)), None)
        return None

    def questions(record: dict, options: ReadOptions) -> frozenset[str]:
        """The questions that name a winner."""
        with suppress(BadRecord):
            export = read(record, options)
            sound = [q for q, given in export.questions.items() if not isinstance(given, BadRecord)]
            return frozenset(q for q in sound if _names_winner(_given(export, q, options)))
        return frozenset()

    labels = Labels(values=None if compare else value, questions=questions)
    return Format(name=name, matches=matches, plan=plan, labels=labels, **more)


@lru_cache(1000)
def _resolve(names: tuple[str, ...]) -> rows.Found:
    return rows.resolve(_ROW, names)


def holds_prompt(data: dict) -> bool:
    """Whether exactly one field is the prompt, whatever the answers are."""
    return len(_resolve(tuple(data)).prompts) == 1


def holds_answers(data: dict) -> bool:
    """Whether there are one prompt and one family of answers under known names."""
    found = _resolve(tuple(data))
    return found.is_complete and {*found.answers[:2]} <= data.keys()


def answer_names(data: dict) -> tuple[str, ...]:
    """The answers' fields in order; one after the second may be absent. Raises BadRecord."""
    found = _resolve(tuple(data))
    if found.ambiguity:
        raise BadRecord("wrong_type", found.ambiguity)
    return found.answers


def readers(data: dict) -> tuple[Callable, Callable, Callable]:
    """What `plans.readers` returns for these fields."""
    return plans.readers(_ROW, _resolve(tuple(data)))


def _compare_votes(export: Export, options: ReadOptions) -> list[Result]:
    """Every two answers of which one won by some vote, with the votes on these two."""
    prompt_of, answers_of, extras_of = readers(export.data)
    votes = judgements(export, options)
    answers = answers_of(export.data, [won for _, won in votes])
    rest = extras_of(export.data), export.across_records
    return sides.compare(prompt_of(export.data), answers, votes, *rest)


def judgements(export: Export, options: ReadOptions) -> list[tuple[str, object]]:
    """What each annotator's answer to the one question that names the winner means.

    Raises BadRecord.
    """
    names = [*export.questions] if options.question is None else [options.question]
    given = {name: found for name in names if (found := _given(export, name, options))}
    if not given and export.cancelled:
        detail = "every annotation of the record was cancelled or discarded; label it or remove it"
        raise BadRecord("cancelled_annotation", detail)
    if not given:
        raise BadRecord("null_label", label.NO_JUDGEMENT)
    named = [name for name in given if _names_winner(given[name])]
    if len(named) > 1:
        detail = f"{named[0]} and {named[1]} both name an answer; remove the one not meant"
        raise BadRecord("wrong_type", detail)
    if not named and len(given) > 1:
        detail = f"no judgement names an answer (looked at {', '.join(given)}); fix the labels or "
        raise BadRecord("unknown_label", detail + "define them with --label")
    found = given[named[0] if named else next(iter(given))]
    for _, meaning in found:
        if isinstance(meaning, BadRecord):
            raise meaning
    return found


def _given(export: Export, question: str, options: ReadOptions) -> list[tuple[str, object]]:
    """What each answer to a question means, a BadRecord where it has no meaning; none for null.

    Raises BadRecord for the fault of the question.
    """
    answers = export.questions.get(question, [])
    if isinstance(answers, BadRecord):
        raise answers
    found = []
    for who, value in answers:
        meaning = value
        if export.decode and not isinstance(value, BadRecord):
            meaning = sides.attempt(export.decode, value)
        elif not isinstance(value, BadRecord):
            meaning = sides.attempt(label.outcome, value, answer_names(export.data), options.label)
        if not isinstance(meaning, BadRecord) or meaning.reason != "null_label":
            found.append((who, meaning))
    return found


def _names_winner(given: list[tuple[str, object]]) -> bool:
    return any(not isinstance(meaning, BadRecord) for _, meaning in given)


_RESPONSES = ".responses"


def _read_argilla(record: dict, options: ReadOptions) -> Export:
    """The submitted responses; a draft is no judgement, and a suggestion is a model's."""
    questions: dict = {}
    cancelled = False
    for name in record:
        if not name.endswith(_RESPONSES):
            continue
        question = name.removesuffix(_RESPONSES)
        try:
            values = _entries(record, name)
            users = _entries(record, f"{name}.users", len(values))
            statuses = _entries(record, f"{name}.status", len(values))
        except BadRecord as fault:
            questions[question] = fault
            continue
        cancelled = cancelled or "discarded" in statuses
        questions[question] = [
            (label.annotator(users[at] if users else None, f"response {at + 1}"), value)
            for at, value in enumerate(values)
            if not statuses or statuses[at] == "submitted"
        ]
    if not questions:
        raise BadRecord("missing_field", f"no field holds a question's answers (NAME{_RESPONSES})")
    return Export(record, questions, cancelled)


def _entries(record: dict, name: str, count: int | None = None) -> list:
    """A list with an entry for each response; empty where the export has none. Raises BadRecord."""
    values = load_list(record.get(name), name)
    if values in (None, ""):
        return []
    if not isinstance(values, list):
        detail = f"{name} is {clip(values)}; it must be a list with an entry for each response"
        raise BadRecord("wrong_type", detail)
    if count not in (None, len(values)):
        detail = f"{name} has {len(values)} entries for {count} responses; export it again"
        raise BadRecord("wrong_type", detail)
    return values


FORMATS: tuple[Format, ...] = (
    export_format(
        "argilla-responses",
        _read_argilla,
        matches=lambda record: (
            any(name.endswith(_RESPONSES) for name in record) and holds_answers(record)
        ),
        reads=lambda name: _RESPONSES in name or name.casefold() in FIELDS,
        json_fields=JsonFields(dialogues=DIALOGUES),
    ),
)

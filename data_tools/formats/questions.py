"""Exports of annotation tools: the answers of annotators to one or several questions on a record.

The prompt and the answers are fields with the names of the table's labelled pairs; of the questions
one names the winner or ranks the answers. Argilla's exports are here, Label Studio's elsewhere.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from data_tools import ranking
from data_tools.formats import label, paths, plans, rows, sides, table
from data_tools.formats.format import Format, Plan, ReadOptions, tidy_names
from data_tools.record import BadRecord, Result, Side

ROW = replace(table.ROWS["labelled-pairs"], label="", annotator="")
FIELDS = frozenset((*rows.every(ROW.prompt), *rows.every(ROW.answers), *sides.EXTRAS))
"""The fields of prompts, answers, system texts and tools."""


@dataclass(frozen=True)
class Export:
    """The fields of a record, and what its annotators answered to each question.

    `given` has (annotator, value) by question, or the BadRecord that spoils a question; `decode`
    takes a value and its question. `cancelled` is true where an annotator withdrew an answer,
    `across_records` where other records may hold answers on the same fields.
    """

    data: dict
    given: dict[str, list[tuple[str, object]] | BadRecord]
    decode: Callable[[object, str], object]
    cancelled: bool = False
    across_records: bool = False

    def votes(self) -> dict[str, sides.Votes]:
        """What the answers mean, for each question that has any."""
        found = {}
        for question, given in self.given.items():
            if isinstance(given, BadRecord):
                found[question] = [("", given)]
            elif votes := sides.cast(given, partial(self.decode, question=question)):
                found[question] = votes
        return found


def export_format(
    name: str,
    read: Callable[[dict, ReadOptions], Export],
    reads: Callable[[str], bool],
    row: rows.Row = ROW,
    **more: object,
) -> Format:
    """The format of an export that `read` returns; `reads` accepts the fields that it looks at.

    `row` describes the prompt and the answers, `more` are other fields of `Format`.
    """

    def results(record: dict, options: ReadOptions) -> list[Result]:
        export = read(record, options)
        votes = _judgements(export, options)
        sides_of = plans.reader(row, tuple(export.data))
        prompt, answers, extras = sides_of(export.data, [won for _, won in votes])
        if all(isinstance(meaning, tuple) for _, meaning in votes):
            return _compare_rankings(prompt, answers, votes, extras, options)
        return sides.compare(prompt, answers, votes, extras, export.across_records)

    def plan(names: tuple[str, ...], options: ReadOptions) -> Plan:
        return Plan(partial(results, options=options), frozenset(filter(reads, names)))

    def questions(record: dict, options: ReadOptions) -> list[str]:
        votes = {}
        with suppress(BadRecord):
            votes = read(record, options).votes()
        return [
            question
            for question, given in votes.items()
            if any(not isinstance(meaning, BadRecord) for _, meaning in given)
        ]

    return Format(name, plan=plan, questions=questions, **{"label": ()} | more)


def resolve(data: dict) -> rows.Found:
    """Which of these fields are the prompt and the answers."""
    return rows.resolve(ROW, tuple(data))


def winner(data: dict, options: ReadOptions) -> Callable[[object], int | None]:
    """What gives the position of the answer that a value names. Raises BadRecord."""
    return partial(label.outcome, names=resolve(data).answers, label=options.label)


def _judgements(export: Export, options: ReadOptions) -> sides.Votes:
    """The votes on the question that names the winner, or on the only one. Raises BadRecord."""
    given = export.votes()
    if options.question is not None:
        given = {name: votes for name, votes in given.items() if name == options.question}
    if not given and export.cancelled:
        detail = "every annotation of the record was cancelled or discarded; label it or remove it"
        raise BadRecord("cancelled_annotation", detail)
    if len(given) > 1:
        detail = f"no one question names an answer (looked at {', '.join(given)}); fix the labels "
        raise BadRecord("unknown_label", detail + "or define them with --label")
    return sides.sound([vote for votes in given.values() for vote in votes])


def _compare_rankings(
    prompt: Side,
    answers: dict[int, Side],
    rankings: sides.Votes,
    extras: sides.Extras,
    options: ReadOptions,
) -> list[Result]:
    """Each two answers that --pairs picks from anyone's ranking, with everyone's vote on them."""
    picked = dict.fromkeys(  # in order, each two once
        tuple(sorted(pair))
        for _, scores in rankings
        for pair in ranking.pick(scores, options.pairs)[0]
    )
    found = []
    for first, second in picked:
        votes = [(who, int(scores[first] < scores[second])) for who, scores in rankings]
        two = {0: answers[first], 1: answers[second]}
        found += sides.compare(prompt, two, votes, extras)
    return found


_RESPONSES = ".responses"


def _read_argilla(record: dict, options: ReadOptions) -> Export:
    """The submitted responses; a draft is no judgement, and a suggestion is a model's."""
    given, cancelled, winner_of = {}, False, winner(record, options)
    shown = dict(enumerate(resolve(record).answers))

    def decode(value: object, question: str) -> object:
        if isinstance(value, list) and all(label.as_number(item) is None for item in value):
            return tuple(label.order(value, shown))  # a ranking, the best first
        return winner_of(value)

    for name in record:
        if not name.endswith(_RESPONSES):
            continue
        question = name.removesuffix(_RESPONSES)
        try:
            values = _entries(record, name)
            users = _entries(record, f"{name}.users", values)
            statuses = _entries(record, f"{name}.status", values)
        except BadRecord as fault:
            given[question] = fault
            continue
        cancelled = cancelled or "discarded" in statuses
        given[question] = [
            (label.annotator(users[at] if users else None, f"response {at + 1}"), value)
            for at, value in enumerate(values)
            if not statuses or statuses[at] == "submitted"
        ]
    if not given:
        raise BadRecord("missing_field", f"no field holds a question's answers (NAME{_RESPONSES})")
    return Export(record, given, decode, cancelled)


def _is_nested(record: dict) -> bool:
    fields = record.get("fields") if "responses" in record else None
    with suppress(BadRecord):
        fields = paths.check(fields, dict, "fields")
        return resolve(tidy_names(tuple(fields), small=True)).is_complete
    return False


def _read_nested(record: dict, options: ReadOptions) -> Export:
    """The record as the flat export writes it."""
    fields = paths.check(record.get("fields"), dict, "fields")
    flat = {name: fields[own] for name, own in tidy_names(tuple(fields), small=True).items()}
    given = paths.check(record.get("responses"), dict, "responses")
    for question in given:
        for end, key in (("", "value"), (".users", "user_id")):
            found = paths.find_all(given, f"{question}[].{key}")
            flat[question + _RESPONSES + end] = [value for value, _ in found]
    return _read_argilla(flat, options)


def _entries(record: dict, name: str, responses: list | None = None) -> list:
    """A list with an entry for each response; empty where the export has none. Raises BadRecord."""
    values = paths.parse_json(record.get(name), name)
    if values in (None, ""):
        return []
    paths.check(values, list, name, "a list with an entry for each response")
    if responses is not None and len(values) != len(responses):
        detail = f"{name} has {len(values)} entries for {len(responses)} responses; export it again"
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
        traits=("any_case", "ranked"),
    ),
    export_format(
        "argilla-nested",
        _read_nested,
        matches=_is_nested,
        reads=lambda name: name in ("fields", "responses"),
        traits=("ranked",),
    ),
)

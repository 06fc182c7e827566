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

    `votes` are by question; a fault that spoils a question is its only vote. `cancelled` is true
    where an annotator withdrew an answer, `across_records` where other records may hold answers on
    the same fields.
    """

    data: dict
    votes: dict[str, sides.Votes]
    cancelled: bool = False
    across_records: bool = False


def export_format(
    name: str,
    read: Callable[[dict, ReadOptions], Export],
    reads: Callable[[str, str | None], bool],
    row: rows.Row = ROW,
    **more: object,
) -> Format:
    """The format of an export that `read` returns.

    `reads` accepts the fields that it looks at, where it is known which question names the winner.
    `row` describes the prompt and the answers, `more` are other fields of `Format`.
    """

    def results(record: dict, options: ReadOptions) -> list[Result]:
        export = read(record, options)
        votes = _judgements(export, options)
        prompt, answers, extras = plans.reader(row, tuple(export.data))(export.data)
        if options.swapped:
            answers = plans.as_shown(options.swapped, record, answers)
        are_rankings = {isinstance(meaning, tuple) for _, meaning in votes}
        if len(are_rankings) > 1:
            detail = "some annotators ranked the answers, others named one; fix the annotations"
            raise BadRecord("unknown_label", detail)
        if True in are_rankings:
            return _compare_rankings(prompt, answers, extras, votes, options)
        return sides.compare(prompt, answers, extras, votes, export.across_records)

    def plan(names: tuple[str, ...], options: ReadOptions) -> Plan:
        more = paths.columns_of(options.swapped)
        used = [name for name in names if reads(name, options.question) or name in more]
        return Plan(partial(results, options=options), frozenset(used))

    def questions(record: dict, options: ReadOptions) -> list[str]:
        with suppress(BadRecord):
            return [
                question
                for question, votes in read(record, options).votes.items()
                if any(not isinstance(meaning, BadRecord) for _, meaning in votes)
            ]
        return []

    return Format(name, plan=plan, questions=questions, **{"label": ()} | more)


def resolve(data: dict) -> rows.Found:
    """Which of these fields are the prompt and the answers."""
    return rows.resolve(ROW, tuple(data))


def nested(record: dict, name: str) -> dict:
    """The fields of an object in the record by their tidy names. Raises BadRecord."""
    fields = paths.check(record.get(name), dict, name, "an object with fields")
    return {tidy: fields[own] for tidy, own in tidy_names(tuple(fields), small=True).items()}


def is_nested(record: dict, name: str, row: rows.Row = ROW) -> bool:
    """Whether an object in the record has a prompt and the answers of the row."""
    with suppress(BadRecord):
        return rows.resolve(row, tuple(nested(record, name))).is_complete
    return False


def winner(data: dict, options: ReadOptions) -> Callable[[object], int | None]:
    """What gives the position of the answer that a value names. Raises BadRecord."""
    return partial(label.outcome, names=resolve(data).answers, label=options.label)


def _judgements(export: Export, options: ReadOptions) -> sides.Votes:
    """The votes on the question that names the winner, or on the only one. Raises BadRecord."""
    given = {name: votes for name, votes in export.votes.items() if votes}
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
    extras: sides.Extras,
    rankings: sides.Votes,
    options: ReadOptions,
) -> list[Result]:
    """Each two answers that --pairs picks from anyone's ranking, with everyone's vote on them."""
    picked = [two for _, scores in rankings for two in ranking.pick(scores, options.pairs)[0]]
    found = []
    for first, second in dict.fromkeys(tuple(sorted(two)) for two in picked):
        votes = [
            (who, second if scores[first] < scores[second] else first) for who, scores in rankings
        ]
        two = {at: answers[at] for at in (first, second) if at in answers}
        found += sides.compare(prompt, two, extras, votes)
    return found


_RESPONSES = ".responses"


def _read_argilla(record: dict, options: ReadOptions) -> Export:
    """The submitted responses; a draft is no judgement, and a suggestion is a model's."""
    votes, cancelled, winner_of = {}, False, winner(record, options)
    names = resolve(record).answers

    def decode(value: object) -> int | tuple | None:
        if isinstance(value, list) and all(label.as_number(item) is None for item in value):
            return tuple(label.order(value, dict(enumerate(names)), names))
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
            votes[question] = [("", fault)]
            continue
        cancelled = cancelled or "discarded" in statuses
        given = [
            (label.annotator(users[at] if users else None, f"response {at + 1}"), value)
            for at, value in enumerate(values)
            if not statuses or statuses[at] == "submitted"
        ]
        votes[question] = sides.cast(given, decode)
    if not votes:
        raise BadRecord("missing_field", f"no field holds a question's answers (NAME{_RESPONSES})")
    return Export(record, votes, cancelled)


def _read_nested(record: dict, options: ReadOptions) -> Export:
    """The record as the flat export writes it."""
    flat = nested(record, "fields")
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
        reads=lambda name, question: _RESPONSES in name or name in FIELDS,
        traits=("any_case", "ranked"),
    ),
    export_format(
        "argilla-nested",
        _read_nested,
        matches=lambda record: "responses" in record and is_nested(record, "fields"),
        reads=lambda name, question: name in ("fields", "responses"),
        traits=("ranked",),
    ),
)

"""Label Studio's exports: whole tasks with their annotations, or one annotation a row.

A pairwise result selects the left or the right answer, and the left one is the first. A ranker puts
the items of a task in order, the best first.
"""

from contextlib import suppress
from dataclasses import replace

from data_tools.formats import label, paths, questions, rows
from data_tools.formats.format import Format, ReadOptions, tidy_names
from data_tools.formats.questions import Export
from data_tools.record import BadRecord, clip

_ROW = {"annotator", "annotation_id", "lead_time"}  # what only a row of an export has together
_UNREAD = {"id", "annotation_id", "lead_time", "created_at", "updated_at", "agreement"}
_UNREAD |= {"history", "ground_truth"}
_NO_QUESTIONS = {*_UNREAD, "annotator", "was_cancelled", *questions.FIELDS}
_ITEMS = replace(questions.ROW, answers="items[].body")


def _task(record: dict) -> dict:
    """The task's fields under their tidy names in small letters. Raises BadRecord."""
    data = paths.check(record.get("data"), dict, "data", "the task, an object with fields")
    names = tidy_names(tuple(data), small=True)
    return {name: data[own] for name, own in names.items()}


def _is_task(record: dict, row: rows.Row = questions.ROW) -> bool:
    """Whether the record is a task with the fields of the row."""
    with suppress(BadRecord):
        return "annotations" in record and rows.resolve(row, tuple(_task(record))).is_complete
    return False


def _results(record: dict, kind: str) -> tuple[dict[str, list[tuple[str, dict]]], bool]:
    """(annotator, result) of each result of this kind by the name of its control.

    The second value is whether any annotation was cancelled; these are left out. Raises BadRecord.
    """
    found: dict[str, list[tuple[str, dict]]] = {}
    cancelled = False
    annotations = paths.check(record.get("annotations"), list, "annotations")
    for number, annotation in enumerate(annotations, start=1):
        where = f"annotation {number}"
        annotation = paths.check(annotation, dict, where)
        if _is_true(annotation.get("was_cancelled")):
            cancelled = True
            continue
        who = label.annotator(annotation.get("completed_by"), where)
        for result in paths.check(annotation.get("result") or [], list, f"the result of {where}"):
            result = paths.check(result, dict, f"a result of {where}")
            if result.get("type") == kind:
                name = result.get("from_name")
                found.setdefault(name if isinstance(name, str) else kind, []).append((who, result))
    return found, cancelled


def _is_true(value: object) -> bool:
    return value is True or isinstance(value, str) and value.strip().casefold() == "true"


def _value(result: dict) -> dict:
    return paths.check(result.get("value"), dict, f"the value of a {result['type']} result")


def _read_task(record: dict, options: ReadOptions) -> Export:
    """The pairwise results, which can only name the answers; the choices where there are none.

    Where the question is known, it may be either.
    """
    data = _task(record)
    names, winner_of = questions.resolve(data).answers, questions.winner(data, options)

    def decode(result: dict, question: str) -> int | None:
        return winner_of(_selected(result, names))

    given, cancelled = _results(record, "pairwise")
    if options.question is not None or not given:
        given = _results(record, "choices")[0] | given
    return Export(data, given, decode, cancelled)


def _selected(result: dict, names: tuple[str, ...]) -> object:
    """The selected side, or the answer on that side where the control shows others first."""
    selected, order = _word(_value(result)), result.get("to_name")
    order = [name.strip().casefold() for name in order.split(",")] if isinstance(order, str) else []
    if len(order) != 2 or not set(order) <= set(names) or tuple(order) == names[:2]:
        return selected
    return {"left": order[0], "right": order[1]}.get(str(selected), selected)


def _word(value: object) -> object:
    """What was selected or chosen, out of the lists and objects around it."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("selected", value.get("choices"))
    if isinstance(value, list) and len(value) < 2:
        value = value[0] if value else None
    return value


def _read_row(record: dict, options: ReadOptions) -> Export:
    """Every column that may be the judgement, since it has the name of its control."""
    who, winner_of = label.annotator(record.get("annotator")), questions.winner(record, options)

    def decode(value: object, question: str) -> int | None:
        return winner_of(_word(paths.parse_json(value, question)))

    cancelled = _is_true(record.get("was_cancelled"))
    names = [] if cancelled else [name for name in record if name not in _NO_QUESTIONS]
    given = {name: [(who, record[name])] for name in names}
    return Export(record, given, decode, cancelled, across_records=True)


def _read_ranking(record: dict, options: ReadOptions) -> Export:
    data = _task(record)
    keys = paths.find_all(data, "items[].id")
    ids = [str(paths.check(key, str | int | float, where, "an id")) for key, where in keys]
    if len({*ids}) < len(ids):
        detail = f"two items have the same id ({clip(ids)}); give each item an id of its own"
        raise BadRecord("wrong_type", detail)

    def decode(result: dict, question: str) -> tuple[int, ...]:
        return _scores(_value(result).get("ranker"), ids)

    given, cancelled = _results(record, "ranker")
    return Export(data, given, decode, cancelled)


def _scores(order: object, ids: list[str]) -> tuple[int, ...]:
    """A score for every item from a list of ids, the best first, perhaps under one name.

    Raises BadRecord.
    """
    if not order:
        raise BadRecord("null_label", label.NO_JUDGEMENT)
    if isinstance(order, dict) and len(order) == 1:
        (order,) = order.values()
    order = paths.check(order, list, "the ranker", "a list of ids, and no buckets")
    places = {str(value): place for place, value in enumerate(order)}
    if len(order) != len(ids) or places.keys() != {*ids}:
        detail = f"the ranking is {clip(order)}; it must name each of {clip(ids)} once"
        raise BadRecord("unknown_label", detail)
    return tuple(-places[key] for key in ids)


_READS = ("data", "annotations")

FORMATS: tuple[Format, ...] = (
    questions.export_format(
        "label-studio", _read_task, matches=_is_task, reads=_READS.__contains__
    ),
    questions.export_format(
        "label-studio-rows",
        _read_row,
        matches=lambda record: record.keys() >= _ROW and questions.resolve(record).is_complete,
        reads=lambda name: name not in _UNREAD,
        traits=("any_case",),
    ),
    questions.export_format(
        "label-studio-ranker",
        _read_ranking,
        matches=lambda record: _is_task(record, _ITEMS) and not _is_task(record),
        reads=_READS.__contains__,
        row=_ITEMS,
        label=None,
        traits=("ranked",),
    ),
)

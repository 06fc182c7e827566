"""Label Studio's exports: whole tasks with their annotations, or one annotation a row.

A pairwise result selects the left or the right answer, and the left one is the first. A ranker puts
the items of a task in order, the best first.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from data_tools.formats import label, paths, questions, rows, sides
from data_tools.formats.format import Format, ReadOptions
from data_tools.formats.questions import Export
from data_tools.record import BadRecord, clip

_TASK = ("data", "annotations")
_ROW = {"annotator", "annotation_id", "lead_time"}  # what only a row of an export has together
_READ_OF_ROW = {"annotator", "was_cancelled", *questions.FIELDS}
_NO_QUESTIONS = {"id", "created_at", "updated_at", "agreement", "history", "ground_truth"}
_NO_QUESTIONS |= _ROW | _READ_OF_ROW
_ITEMS = replace(questions.ROW, answers="items[].body")


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
    data = questions.nested(record, "data")
    names, winner_of = questions.resolve(data).answers, questions.winner(data, options)
    given, cancelled = _results(record, "pairwise")
    if options.question is not None or not given:
        given = _results(record, "choices")[0] | given
    return _export(data, given, lambda result: winner_of(_selected(result, names)), cancelled)


def _export(data: dict, given: dict, decode: Callable, cancelled: bool) -> Export:
    """The export of a task, of its results by their control; `decode` takes a result."""
    votes = {name: sides.cast(results, decode) for name, results in given.items()}
    return Export(data, votes, cancelled)


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
    cancelled = _is_true(record.get("was_cancelled"))
    cells = [] if cancelled else [cell for cell in record.items() if cell[0] not in _NO_QUESTIONS]

    def decode(cell: tuple[str, object]) -> int | None:
        name, value = cell
        return winner_of(_word(paths.parse_json(value, name)))

    votes = {cell[0]: sides.cast([(who, cell)], decode) for cell in cells}
    return Export(record, votes, cancelled, across_records=True)


def _read_ranking(record: dict, options: ReadOptions) -> Export:
    data = questions.nested(record, "data")
    keys = paths.find_all(data, "items[].id")
    ids = [str(paths.check(key, str | int | float, where, "an id")) for key, where in keys]
    if len({*ids}) < len(ids):
        detail = f"two items have the same id ({clip(ids)}); give each item an id of its own"
        raise BadRecord("wrong_type", detail)
    given, cancelled = _results(record, "ranker")
    return _export(data, given, lambda result: _ranking(result, ids), cancelled)


def _ranking(result: dict, ids: list[str]) -> tuple[float, ...]:
    """A score for every item from a list of ids, the best first, perhaps under one name."""
    order = _value(result).get("ranker")
    if isinstance(order, dict) and len(order) == 1:
        (order,) = order.values()
    if order:
        order = paths.check(order, list, "the ranker", "a list of ids, and no buckets")
        order = [str(key) for key in order]
    return tuple(label.order(order or None, dict(enumerate(ids)), ()))


def _is_task(record: dict, row: rows.Row) -> bool:
    return "annotations" in record and questions.is_nested(record, "data", row)


FORMATS: tuple[Format, ...] = (
    questions.export_format(
        "label-studio",
        _read_task,
        matches=partial(_is_task, row=questions.ROW),
        reads=lambda name, question: name in _TASK,
    ),
    questions.export_format(
        "label-studio-rows",
        _read_row,
        matches=lambda record: record.keys() >= _ROW and questions.resolve(record).is_complete,
        reads=lambda name, question: name in _READ_OF_ROW or name == question,
        traits=("any_case",),
    ),
    questions.export_format(
        "label-studio-ranker",
        _read_ranking,
        matches=lambda record: _is_task(record, _ITEMS) and not _is_task(record, questions.ROW),
        reads=lambda name, question: name in _TASK,
        row=_ITEMS,
        label=None,
        traits=("ranked",),
    ),
)

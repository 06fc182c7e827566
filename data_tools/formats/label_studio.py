"""Label Studio's exports: whole tasks with their annotations, or one annotation a row.

A pairwise result selects the left or the right answer, and the left one is the first. A ranker puts
the items of a task in order, the best first.
"""

from collections.abc import Callable

from data_tools import ranking
from data_tools.formats import label, paths, questions, sides
from data_tools.formats.dialogues import check_side
from data_tools.formats.format import Format, ReadOptions, tidy_names
from data_tools.formats.questions import Export, Given
from data_tools.formats.table import ANY_CASE, RANKED
from data_tools.record import BadRecord, Result, clip

_ROW = ("annotator", "annotation_id", "lead_time")  # what only a row of an export has together
_METADATA = {"id", *_ROW, "created_at", "updated_at", "was_cancelled", "agreement"}
_METADATA |= {"history", "ground_truth"}
_UNREAD = _METADATA - {"annotator", "was_cancelled"}

_Results = list[tuple[str, dict]]  # (annotator, result)


def _has_task(record: dict) -> bool:
    return "annotations" in record and isinstance(record.get("data"), dict)


def _task(record: dict) -> dict:
    """The task's fields under their tidy names in small letters. Raises BadRecord."""
    data = paths.check(record.get("data"), dict, "data", "the task, an object with fields")
    names = tidy_names(tuple(data), small=True)
    return {name: data[own] for name, own in names.items()}


def _annotated(record: dict) -> tuple[_Results, bool]:
    """The results of all annotations that were not cancelled, and whether any was.

    Raises BadRecord.
    """
    found, cancelled = [], False
    annotations = paths.check(record.get("annotations"), list, "annotations")
    for number, annotation in enumerate(annotations, start=1):
        where = f"annotation {number}"
        annotation = paths.check(annotation, dict, where)
        if _is_true(annotation.get("was_cancelled")):
            cancelled = True
            continue
        who = label.annotator(annotation.get("completed_by"), where)
        results = paths.check(annotation.get("result") or [], list, f"the result of {where}")
        found += [(who, paths.check(r, dict, f"a result of {where}")) for r in results]
    return found, cancelled


def _is_true(value: object) -> bool:
    return value is True or isinstance(value, str) and value.strip().casefold() == "true"


def _answered(results: _Results, kind: str, read: Callable[[dict], object]) -> dict[str, Given]:
    """What `read` makes of the results of one kind, under the names of their controls."""
    found: dict[str, Given] = {}
    for who, result in results:
        if result.get("type") == kind:
            name = result.get("from_name")
            given = found.setdefault(name if isinstance(name, str) else kind, [])
            given.append((who, sides.attempt(read, result)))
    return found


def _value(result: dict) -> dict:
    return paths.check(result.get("value"), dict, f"the value of a {result['type']} result")


def _read_task(record: dict, options: ReadOptions) -> Export:
    """The pairwise results, which can only name the answers; the choices where there are none.

    Where the question is known, it may be either.
    """
    results, cancelled = _annotated(record)
    data = _task(record)
    names = questions.resolve(data).answers
    answers = _answered(results, "pairwise", lambda result: _selected(result, names))
    if not answers or options.question is not None:
        answers = _answered(results, "choices", lambda result: _word(_value(result))) | answers
    return Export(data, answers, cancelled)


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
    if _is_true(record.get("was_cancelled")):
        return Export(record, {}, cancelled=True)
    who = label.annotator(record.get("annotator"))
    answers: dict[str, Given] = {
        name: [(who, _word(sides.attempt(paths.parse_json, value, name)))]
        for name, value in record.items()
        if name not in _METADATA and name not in questions.FIELDS
    }
    return Export(record, answers, across_records=True)


def _is_ranked(record: dict) -> bool:
    task = _task(record) if _has_task(record) else {}
    found = questions.resolve(task)
    return isinstance(task.get("items"), list) and len(found.prompts) == 1 and not found.is_complete


def _read_ranking(record: dict, options: ReadOptions) -> Export:
    results, cancelled = _annotated(record)
    data = _task(record)
    ids = [*_bodies(data)]
    answers = _answered(results, "ranker", lambda result: _value(result).get("ranker"))
    return Export(data, answers, cancelled, decode=lambda order: _scores(order, ids))


def _compare_rankings(export: Export, options: ReadOptions) -> list[Result]:
    """Each two items that --pairs picks from anyone's ranking, with everyone's vote on them."""
    rankings, bodies = questions.judgements(export, options), _bodies(export.data)
    if len(bodies) < 2:
        raise BadRecord("unpaired", f"{len(bodies)} item to this prompt; a pair needs two")
    prompt_of, _, extras_of = questions.readers(tuple(export.data))
    prompt, extras = prompt_of(export.data), extras_of(export.data)
    shown = [check_side(body, f"items[{n}].body") for n, body in enumerate(bodies.values())]
    picked = dict.fromkeys(  # in order, each two once
        tuple(sorted(pair))
        for _, scores in rankings
        for pair in ranking.pick(scores, options.pairs)[0]
    )
    found = []
    for first, second in picked:
        votes = tuple((who, int(scores[first] < scores[second])) for who, scores in rankings)
        two = shown[first], shown[second]
        found.append(sides.attempt(sides.comparison, prompt, *two, votes, extras))
    return found


def _bodies(task: dict) -> dict[str, object]:
    """The items' bodies by their ids, in the order shown. Raises BadRecord."""
    bodies: dict = {}
    items = paths.check(task.get("items"), list, "items", "a list of objects")
    for number, item in enumerate(items):
        item = paths.check(item, dict, f"items[{number}]", "an object with an id and a body")
        key = str(item.get("id"))  # a number in the task may be text in the ranking
        if item.get("id") is None or key in bodies:
            detail = f"items[{number}].id is {clip(key)}; give each item an id of its own"
            raise BadRecord("wrong_type", detail)
        bodies[key] = item.get("body")
    return bodies


def _scores(order: object, ids: list[str]) -> list[int]:
    """A score for every item from a list of ids, the best first, perhaps under one name.

    Raises BadRecord.
    """
    if not order:
        raise BadRecord("null_label", label.NO_JUDGEMENT)
    if isinstance(order, dict):
        if len(order) != 1:
            detail = f"the ranker sorts into buckets ({', '.join(order)}), which is no ranking"
            raise BadRecord("unknown_label", f"{detail}; remove it")
        (order,) = order.values()
    order = paths.check(order, list, "the ranker", "a list of ids")
    places = {str(value): place for place, value in enumerate(order)}
    if len(order) != len(ids) or places.keys() != {*ids}:
        detail = f"the ranking is {clip(order)}; it must name each of {clip(ids)} once"
        raise BadRecord("unknown_label", detail)
    return [-places[key] for key in ids]


_TASK_FIELDS = ("data", "annotations")

FORMATS: tuple[Format, ...] = (
    questions.export_format(
        "label-studio",
        _read_task,
        matches=lambda record: _has_task(record) and questions.resolve(_task(record)).is_complete,
        reads=_TASK_FIELDS.__contains__,
        structured=_TASK_FIELDS,
    ),
    questions.export_format(
        "label-studio-rows",
        _read_row,
        matches=lambda record: {*_ROW} <= record.keys() and questions.resolve(record).is_complete,
        reads=lambda name: name not in _UNREAD,
        dialogues=questions.DIALOGUES,
        traits=ANY_CASE,
    ),
    questions.export_format(
        "label-studio-ranker",
        _read_ranking,
        matches=_is_ranked,
        reads=_TASK_FIELDS.__contains__,
        compare=_compare_rankings,
        structured=_TASK_FIELDS,
        traits=RANKED,
    ),
)

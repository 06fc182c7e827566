"""How a row, of the table or of --map, becomes a format.

What depends on the field names of its records is worked out once.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from itertools import product
from types import MappingProxyType

from data_tools.column_kinds import NAMES
from data_tools.formats import label, paths, sides
from data_tools.formats.dialogues import check_side, first_turns
from data_tools.formats.format import Format, Plan, ReadOptions
from data_tools.formats.rows import Found, Row, every, resolve
from data_tools.record import BadRecord, Result, ScoredAnswer, Side, clip

Outcomes = Callable[[object, dict], int | None]
"""What gives the position of the winner by a label and its record, None for a tie."""
Reader = Callable[[dict], tuple[Side | None, dict[int, Side], sides.Extras]]
"""What gives the prompt, the answers by position, and the `extras` of `make_pair`."""


def as_format(
    name: str, row: Row, made: Mapping[str, paths.Column] = MappingProxyType({})
) -> Format:
    """The row as a format of this name; for `made` see `Format`."""
    answers, scores = every(row.answers), every(row.scores)
    nested = [path.split("[].") for path in (*answers, *scores) if "[]." in path]

    def matches(record: dict) -> bool:
        return (
            resolve(row, tuple(record)).is_complete
            and all(_holds(record, *path) for path in nested)
            and (row.only_if is None or row.only_if(record))
        )

    labels = tuple(every(row.label)) if isinstance(row.label, str) else ()
    has_label = labels if row.label else None
    return Format(name, matches, partial(plan, row), has_label, traits=row.traits, made=made)


def _holds(record: dict, path: str, field: str) -> bool:
    """Whether there is a list at the path with an object that has the field."""
    with suppress(BadRecord):
        return paths.holds(paths.find(record, path)[0], field)
    return False


def plan(row: Row, names: tuple[str, ...], options: ReadOptions) -> Plan:
    """How records with these field names are read by the row."""
    found, sides_of = resolve(row, names), reader(row, names)
    if "turn" in {*row.traits} & {*names}:
        sides_of = partial(_adjusted, sides_of, _judged_turn)
    if options.swapped and row.label:
        sides_of = partial(_adjusted, sides_of, partial(as_shown, options.swapped))
    if "," not in row.answers and "[]" not in row.answers:
        results = partial(_single, row, found, sides_of)
    elif row.scores:
        results = partial(_scored, row, found, sides_of, options)
    elif not row.label:
        results = partial(_first_better, found, sides_of)
    else:
        read = _voted if isinstance(row.label, re.Pattern) else _labelled
        results = partial(read, row, found, sides_of, _outcomes(row, found, sides_of, options))
    used = (*every(row.prompt), *every(row.answers), *found.labels, *found.scores)
    used += (*every(row.annotator), *_systems(row), *sides.EXTRAS[len(sides.SYSTEMS) :])
    used += (*paths.columns_of(options.swapped),)
    used += (*_earlier(row, found, names), *({"input", "turn"} & {*row.traits}))
    return Plan(results, frozenset({*used, *map(paths.root, used)} & {*names}))


def _earlier(row: Row, found: Found, names: tuple[str, ...]) -> list[str]:
    """The fields of earlier turns, where they are neither the prompt nor the answers."""
    used = {paths.root(path) for path in (*every(row.prompt), *every(row.answers))}
    return [name for name in NAMES["turns"] if name in names and name not in used and found.prompt]


def _systems(row: Row) -> list[str]:
    """The fields of the system text."""
    return [row.system] if row.system else [*sides.SYSTEMS]


def _adjusted(sides_of: Reader, change: Callable[[dict, dict], dict], record: dict) -> tuple:
    prompt, answers, extras = sides_of(record)
    return prompt, change(record, answers), extras


def _judged_turn(record: dict, answers: dict[int, Side]) -> dict[int, Side]:
    """The dialogues up to the answer of the turn that was judged."""
    turn = label.as_number(record["turn"]) or 0
    if turn < 1:
        return answers
    return {at: first_turns(side, int(turn)) for at, side in answers.items()}


def as_shown(column: paths.Column, record: dict, answers: dict[int, Side]) -> dict[int, Side]:
    """The two answers in the order in which they were shown, which the label refers to."""
    if not label.swapped(paths.value_at(record, column), "".join(column)):
        return answers
    if len(answers) != 2:
        detail = f"says that two answers were swapped, but there are {len(answers)}"
        raise BadRecord("wrong_type", f"{''.join(column)} {detail}; fix or remove the record")
    return {0: answers[1], 1: answers[0]}


def _first_better(found: Found, sides_of: Reader, record: dict) -> list[Result]:
    """The first answer won, or each text of a list of answers over each of the other list.

    It is a vote where the record names its annotator.
    """
    two = won, lost = record.get(found.answers[0]), record.get(found.answers[1])
    if list in (type(won), type(lost)) and (_is_texts(won) or _is_texts(lost)):
        lists = [side if _is_texts(side) else [side] for side in two]
        records = [record | dict(zip(found.answers, pair, strict=True)) for pair in product(*lists)]
        return [result for one in records for result in _first_better(found, sides_of, one)]
    prompt, answers, extras = sides_of(record)
    if found.annotator:
        # Which answer was shown first is not known, so their texts decide which one is the first.
        order = sorted(answers, key=lambda at: str(answers[at]))
        answers = {at: answers[own] for at, own in enumerate(order)}
        votes = ((label.annotator(record[found.annotator]), order.index(label.FIRST)),)
        return sides.compare(prompt, answers, extras, votes, across_records=True, is_ordered=False)
    return [sides.make_pair(prompt, answers[0], answers[1], None, extras)]


def _is_texts(side: object) -> bool:
    return type(side) is list and bool(side) and type(side[0]) is str


def _labelled(
    row: Row, found: Found, sides_of: Reader, outcome_of: Outcomes, record: dict
) -> list[Result]:
    """The label names the winner; it is a vote where the record names its annotator."""
    value = record[found.labels[0]] if found.labels else None
    winner = outcome_of(value, record)
    prompt, answers, extras = sides_of(record)
    if found.annotator:
        votes = ((label.annotator(record[found.annotator]), winner),)
        return sides.compare(prompt, answers, extras, votes, across_records=True)
    if winner is None:
        raise label.tied(value)
    sides.check_named(winner, answers)
    chosen = answers.pop(winner)
    if len(answers) > 1 and (loser := label.loser(value, _answer_names(row, found))) in answers:
        answers = {loser: answers[loser]}
    return [
        sides.attempt(sides.make_pair, prompt, chosen, rejected, winner < other, extras)
        for other, rejected in answers.items()
    ]


def _voted(
    row: Row, found: Found, sides_of: Reader, outcome_of: Outcomes, record: dict
) -> list[Result]:
    """Every label is the vote of an annotator, which counts even where an answer is unusable."""
    given = [(name, record[name]) for name in found.labels]
    votes = sides.cast(given, partial(outcome_of, record=record))
    try:
        return sides.compare(*sides_of(record), sides.sound(votes))
    except BadRecord as fault:
        fault.votes = tuple(vote for vote in votes if not isinstance(vote[1], BadRecord))
        raise


def _answer_names(row: Row, found: Found) -> tuple[str, ...]:
    """The names that labels know the answers by: their fields, or numbers in a list of answers."""
    if "[]" in found.answers[0]:
        return tuple(f"answer_{number}" for number in (1, 2, 3, 4))
    return tuple(name.removeprefix("--map ") for name in found.answers)


def _outcomes(row: Row, found: Found, sides_of: Reader, options: ReadOptions) -> Outcomes:
    """By `label.outcome`, or else the one answer whose text, or whose model's name, a label is."""
    names = _answer_names(row, found)
    outcome = partial(label.outcome, names=names, label=options.label, numbers=row.decode)
    remembered = lru_cache(10_000, typed=True)(outcome)
    ends = [re.search(r"(?:^|_)[a-z]$|\d*$", name.casefold())[0].strip("_") for name in names]
    models = [
        (*((f"model_{end}", f"generator_{end}") if end else ()), f"{name}_model", f"model_{name}")
        for name, end in zip(names, ends, strict=True)
    ]

    owned = {*found.answers}.union(*models)

    def named(value: object, record: dict) -> set[int]:
        if not isinstance(value, str) or label.as_number(value) is not None:
            return set()
        answers = sides_of(record)[1]
        texts = {at for at, answer in answers.items() if answer == value}
        owners = {at for at, m in enumerate(models) for name in m if record.get(name) == value}
        if owners and options.swapped:  # models belong to columns, whatever the order shown
            own = as_shown(options.swapped, record, dict(enumerate(range(len(answers)))))
            owners = {at for at, column in own.items() if column in owners}
        return texts | owners

    def winner(value: object, record: dict) -> int | None:
        try:
            won = (outcome if type(value) in (list, dict) else remembered)(value)
        except BadRecord as fault:
            if isinstance(fault, label.BareLabel):
                fault.answers = len(sides_of(record)[1])
            others = named(value, record) if fault.reason == "unknown_label" else ()
            if len(others) != 1:
                raise
            return others.pop()
        if options.label is None and value in [record[name] for name in owned & record.keys()]:
            others = named(value, record)
            if others and won not in others:
                detail = f"the label {clip(value)} is also the text or the model of another answer"
                raise BadRecord("unknown_label", f"{detail}; fix the record")
        return won

    return winner


def _single(row: Row, found: Found, sides_of: Reader, record: dict) -> list[Result]:
    """One answer and its score, to be compared with those of other records."""
    prompt, answers, (system, *extras) = sides_of(record)
    answer, (field,) = answers[0], found.scores
    is_open = isinstance(answer, list) and [m["role"] for m in answer[-1:]] != ["assistant"]
    if prompt == [] or is_open:
        detail = "there must be a turn before the answer, and it must end with the assistant"
        raise BadRecord("bad_roles", f"{detail}; fix the turns or remove the record")
    score = (row.decode or label.score)(record.get(field), field)
    if system is not None:
        prompt = sides.with_system(prompt, system)
    return [ScoredAnswer(prompt, answer, score, "rated" in row.traits, *extras)]


def _scored(
    row: Row, found: Found, sides_of: Reader, options: ReadOptions, record: dict
) -> list[Result]:
    """Several answers with a rank or rating each, or with one order of all."""
    prompt, answers, extras = sides_of(record)
    rated, decode = "rated" in row.traits, row.decode or label.score
    if decode is label.order:
        order = paths.parse_json(record.get(found.scores[0]), found.scores[0])
        scores = label.order(order, answers, _answer_names(row, found))
    elif len(found.scores) > 1:  # a field for the score of each answer
        given = [paths.find(record, found.scores[at]) for at in answers if at < len(found.scores)]
        scores = [decode(*value) for value in given]
    else:
        given = paths.find_all(record, found.scores[0], "null_label")
        known = [at for at, (value, _) in enumerate(given) if value not in (None, "")]
        if rated and len(known) >= 2 and len(answers) == len(given):
            answers, given = {at: answers[at] for at in known}, [given[at] for at in known]
        scores = [decode(*value) for value in given]
    if len(answers) != len(scores):
        raise BadRecord(
            "wrong_type",
            f"there are {len(answers)} answers and {len(scores)} scores, so it is not known "
            "which belong together; give each answer its score",
        )
    return sides.ranked_pairs(prompt, [*answers.values()], extras, scores, options, rated)


@lru_cache(1000)
def reader(row: Row, names: tuple[str, ...]) -> Reader:
    """The reader of records with these field names. It raises BadRecord.

    Of a list of answers, all are read; of several fields, the first two, and any other that has a
    value.
    """
    found = resolve(row, names)
    if found.ambiguity:
        return partial(_refuse, found.ambiguity)
    prompt, fields = found.prompt, [*enumerate(found.answers)]
    has_input = prompt == "instruction" and "input" in {*row.traits} & {*names}
    earlier = _earlier(row, found, names)
    container = paths.root(prompt) if "." in prompt and prompt not in names else ""
    systems = _systems(row)
    has_extras = container or {*systems, *sides.EXTRAS} & {*names}
    extras_of = partial(sides.check_extras, systems=systems, container=container)

    def prompt_of(record: dict) -> Side | None:
        if not prompt:  # the answers are whole dialogues
            return None
        value = record.get(prompt)
        if type(value) is not str or row.read is not check_side:
            value = row.read(*paths.find(record, prompt))
        if has_input:
            value = sides.with_input(value, record["input"])
        return value

    def fields_of(record: dict) -> dict[int, Side]:
        answers = {}
        for at, path in fields:
            value, where = record.get(path), path
            if value is None:  # missing, or a path into the record
                value, where = paths.find(record, path)
            if at < 2 or value not in (None, ""):
                answers[at] = value if type(value) is str else check_side(value, where)
        return answers

    def list_of(record: dict) -> dict[int, Side]:
        values = paths.find_all(record, found.answers[0])
        if len(values) < 2:
            raise BadRecord("unpaired", f"{len(values)} answer to this prompt; a pair needs two")
        if len(values) > 2 and row.label and row.decode:
            detail = f"there are {len(values)} answers, of which the label compares two"
            raise BadRecord("wrong_type", f"{detail}; remove the others")
        return {at: check_side(*value) for at, value in enumerate(values)}

    answers_of = list_of if "[]" in found.answers[0] else fields_of

    def sides_of(record: dict) -> tuple:
        side, answers = prompt_of(record), answers_of(record)
        for name in earlier:
            side = sides.with_earlier(side, record[name], name, answers.values())
        return side, answers, extras_of(record) if has_extras else sides.NO_EXTRAS

    return sides_of


def _refuse(ambiguity: str, record: dict) -> tuple:
    raise BadRecord("wrong_type", ambiguity)

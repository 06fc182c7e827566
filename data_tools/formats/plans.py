"""How a row, of the table or of --map, becomes a format.

What depends on the field names of its records is worked out once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import product
from types import MappingProxyType

from data_tools.column_kinds import NAMES
from data_tools.formats import label, paths, sides
from data_tools.formats.dialogues import check_side, first_turns
from data_tools.formats.format import Format, Plan, ReadOptions, descriptions
from data_tools.formats.rows import Found, Row, every, resolve
from data_tools.record import BadRecord, ConvertError, Result, ScoredAnswer, Side, clip

Outcomes = Callable[[object], int | None]
Sides = tuple[Side | None, dict[int, Side], sides.Extras]
Reader = Callable[..., Sides]


def as_format(name: str, row: Row, made: Mapping[str, str] = MappingProxyType({})) -> Format:
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
    return Format(
        name=name,
        matches=matches,
        plan=partial(plan, name, row),
        label=labels if row.label else None,
        traits=row.traits,
        made=made,
    )


def _holds(record: dict, path: str, field: str) -> bool:
    """Whether there is a list at the path with an object that has the field."""
    with suppress(BadRecord):
        return paths.holds(paths.find(record, path)[0], field)
    return False


def plan(name: str, row: Row, names: tuple[str, ...], options: ReadOptions) -> Plan:
    """How records with these field names are read by the row."""
    if "refused" in row.traits:
        raise ConvertError(f"these records are {name}: {descriptions()[name]['refusal']}")
    found, sides_of = resolve(row, names), reader(row, names)
    if "turn" in {*row.traits} & {*names}:
        sides_of = partial(_judged_turn, sides_of)
    if options.swapped and row.label:
        sides_of = partial(_as_shown, sides_of, options.swapped)
    if "," not in row.answers and "[]" not in row.answers:
        results = partial(_single, row, found, sides_of)
    elif row.scores:
        results = partial(_scored, row, found, sides_of, options)
    elif not row.label:
        results = partial(_first_better, found, sides_of)
    else:
        read = _voted if isinstance(row.label, re.Pattern) else _labelled
        results = partial(read, found, sides_of, _outcomes(row, found, options))
    used = (*every(row.prompt), *every(row.answers), *found.labels, *found.scores)
    used += (*every(row.annotator), row.system, *sides.EXTRAS, options.swapped)
    used += (*_earlier(row, found, names), *({"input", "turn"} & {*row.traits}))
    return Plan(results, frozenset({*used, *map(paths.root, used)} & {*names}))


def _earlier(row: Row, found: Found, names: tuple[str, ...]) -> list[str]:
    """The fields of earlier turns, where they are neither the prompt nor the answers."""
    used = {paths.root(path) for path in (*every(row.prompt), *every(row.answers))}
    return [name for name in NAMES["turns"] if name in names and name not in used and found.prompt]


def _as_shown(
    sides_of: Reader, column: str, record: dict, winners: Sequence[int | None] = ()
) -> Sides:
    """The two answers in the order in which they were shown, which the label refers to."""
    prompt, answers, extras = sides_of(record, winners)
    if not label.swapped(record.get(column)):
        return prompt, answers, extras
    if len(answers) != 2:
        detail = f"{column} says that two answers were swapped, but there are {len(answers)}"
        raise BadRecord("wrong_type", f"{detail}; fix or remove the record")
    return prompt, {0: answers[1], 1: answers[0]}, extras


def _judged_turn(sides_of: Reader, record: dict, winners: Sequence[int | None] = ()) -> Sides:
    """The dialogues up to the answer of the turn that was judged."""
    prompt, answers, extras = sides_of(record, winners)
    if (turn := label.as_number(record["turn"]) or 0) >= 1:
        answers = {at: first_turns(side, int(turn)) for at, side in answers.items()}
    return prompt, answers, extras


def _first_better(found: Found, sides_of: Reader, record: dict) -> list[Result]:
    """The first answer won, or each text of a list of answers over each of the other list."""
    won, lost = record.get(found.answers[0]), record.get(found.answers[1])
    if not won or not lost or not (_has_texts(won) or _has_texts(lost)):
        prompt, answers, extras = sides_of(record)
        return [sides.make_pair(prompt, answers[0], answers[1], None, extras)]
    won, lost = (texts if isinstance(texts, list) else [texts] for texts in (won, lost))
    two = [dict(zip(found.answers, texts, strict=True)) for texts in product(won, lost)]
    return [result for texts in two for result in _first_better(found, sides_of, record | texts)]


def _has_texts(side: object) -> bool:
    return type(side) is list and type(side[0]) is str


def _labelled(found: Found, sides_of: Reader, outcome_of: Outcomes, record: dict) -> list[Result]:
    """The label names the winner; it is a vote where the record names its annotator."""
    value = record[found.labels[0]] if found.labels else None
    try:
        winner = outcome_of(value)
    except BadRecord as fault:
        winner = _named(value, record, found, sides_of) if fault.reason == "unknown_label" else None
        if winner is None:
            raise
    prompt, answers, extras = sides_of(record, (winner,))
    if winner is not None and winner not in answers:
        detail = f"the label {clip(value)} names none of the {len(answers)} answers; fix it"
        raise BadRecord("unknown_label", detail)
    if found.annotator:
        votes = ((label.annotator(record[found.annotator]), winner),)
        return sides.compare(prompt, answers, votes, extras, across_records=True)
    if winner is None:
        raise label.tied(value)
    chosen = answers.pop(winner)
    return [
        sides.attempt(sides.make_pair, prompt, chosen, rejected, winner < other, extras)
        for other, rejected in answers.items()
    ]


def _named(value: object, record: dict, found: Found, sides_of: Reader) -> int | None:
    """The position of the one answer whose text, or whose model's name, a label is."""
    if not isinstance(value, str) or label.as_number(value) is not None:
        return None
    answers = sides_of(record)[1]
    named = {at for at, answer in answers.items() if answer == value}
    for at, path in enumerate(found.answers):
        end = path.rpartition("_")[2][-1:]
        models = (f"model_{end}", f"{path}_model", f"model_{path}", f"generator_{end}")
        if value in [record[name] for name in models if name in record]:
            named.add(at)
    return named.pop() if len(named) == 1 else None


def _voted(found: Found, sides_of: Reader, outcome_of: Outcomes, record: dict) -> list[Result]:
    """Every label is the vote of an annotator, which counts even where an answer is unusable."""
    votes = sides.cast([(name, record[name]) for name in found.labels], outcome_of)
    try:
        prompt, answers, extras = sides_of(record)
        return sides.compare(prompt, answers, sides.sound(votes), extras)
    except BadRecord as fault:
        fault.votes = tuple(vote for vote in votes if not isinstance(vote[1], BadRecord))
        raise


def _outcomes(row: Row, found: Found, options: ReadOptions) -> Outcomes:
    """`label.outcome` that remembers what the values of the label came to."""
    is_list = "[]" in found.answers[0]
    names = tuple(f"answer_{n}" for n in (1, 2, 3, 4)) if is_list else found.answers
    outcome = partial(label.outcome, names=names, label=options.label, numbers=row.decode)
    remembered = lru_cache(10_000, typed=True)(outcome)
    return lambda value: (outcome if type(value) in (list, dict) else remembered)(value)


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
    """Several answers with a rank or rating each."""
    prompt, answers, extras = sides_of(record)
    if row.decode is label.order:
        scores = label.order(record.get(found.scores[0]), answers)
        return sides.ranked_pairs(prompt, [*answers.values()], scores, options, False, extras)
    each = len(found.scores) > 1  # a field for the score of each answer
    values = [
        value
        for at, path in enumerate(found.scores)
        if not each or at in answers
        for value in paths.find_all(record, path, "null_label")
    ]
    if "rated" in row.traits and not each and len(answers) == len(values):
        rated = [at for at, (value, _) in enumerate(values) if value not in (None, "")]
        if len(rated) >= 2:
            answers, values = {at: answers[at] for at in rated}, [values[at] for at in rated]
    scores = [(row.decode or label.score)(*value) for value in values]
    if len(answers) != len(scores):
        raise BadRecord(
            "wrong_type",
            f"there are {len(answers)} answers and {len(scores)} scores, so it is not known "
            "which belong together; give each answer its score",
        )
    shown = [*answers.values()]
    return sides.ranked_pairs(prompt, shown, scores, options, "rated" in row.traits, extras)


@lru_cache(1000)
def reader(row: Row, names: tuple[str, ...]) -> Reader:
    """What reads the prompt, the answers by position, and the `extras` of `make_pair`.

    Of a list of answers, all are read; of several fields, the first two, those at the positions of
    the second argument, and any other that has a text. Raises BadRecord.
    """
    found = resolve(row, names)
    if found.ambiguity:
        return partial(_refuse, found.ambiguity)
    prompt, listed, fields = found.prompt, "[]" in found.answers[0], [*enumerate(found.answers)]
    has_input = prompt == "instruction" and "input" in {*row.traits} & {*names}
    earlier = _earlier(row, found, names)
    container = paths.root(prompt) if "." in prompt and prompt not in names else ""
    systems = (row.system,) if row.system else sides.SYSTEMS
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
        for name in earlier:
            value = sides.with_earlier(value, record[name], name)
        return value

    def sides_of(record: dict, winners: Sequence[int | None] = ()) -> Sides:
        side, answers = prompt_of(record), {}
        for at, path in fields:
            value, where = record.get(path), path
            if value is None:  # missing, or a path into the record
                value, where = paths.find(record, path)
            if at < 2 or at in winners or value not in (None, ""):
                answers[at] = value if type(value) is str else check_side(value, where)
        return side, answers, extras_of(record) if has_extras else sides.NO_EXTRAS

    def list_of(record: dict, winners: Sequence[int | None] = ()) -> Sides:
        values = paths.find_all(record, found.answers[0])
        answers = {at: check_side(*value) for at, value in enumerate(values)}
        if len(answers) < 2:
            raise BadRecord("unpaired", f"{len(answers)} answer to this prompt; a pair needs two")
        if len(answers) > 2 and row.label and row.decode:
            detail = f"there are {len(answers)} answers, of which the label compares two"
            raise BadRecord("wrong_type", f"{detail}; remove the others")
        return prompt_of(record), answers, extras_of(record) if has_extras else sides.NO_EXTRAS

    return list_of if listed else sides_of


def _refuse(ambiguity: str, record: dict, winners: Sequence[int | None] = ()) -> Sides:
    raise BadRecord("wrong_type", ambiguity)

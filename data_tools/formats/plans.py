"""How a row, of the table or of --map, becomes a format.

What depends on the field names of its records is worked out once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

from data_tools.formats import label, paths, sides
from data_tools.formats.dialogues import check_side, interleave, transcript_prompt
from data_tools.formats.format import Format, Plan, ReadOptions, descriptions, tidy_name
from data_tools.formats.rows import Found, Row, every, resolve
from data_tools.record import BadRecord, ConvertError, Result, ScoredAnswer, Side, as_messages, clip

MAPPED = ("prompt", "chosen", "rejected", "a", "b", "label", "system", "annotator")
"""The fields that --map may name the columns of."""

Outcomes = Callable[[object], int | None]
Sides = tuple[Side | None, dict[int, Side], sides.Extras]
Reader = Callable[..., Sides]


def as_format(name: str, row: Row) -> Format:
    """The row as a format of this name."""
    prompts, answers, scores = every(row.prompt), every(row.answers), every(row.scores)
    nested = [path.split("[].") for path in (*answers, *scores) if "[]." in path]

    def matches(record: dict) -> bool:
        return (
            resolve(row, tuple(record)).is_complete
            and all(_holds(record[field], inner) for field, inner in nested)
            and (row.only_if is None or row.only_if(record))
        )

    systems = [path for path in every(row.system) if path != "system"]
    structured = [p for p in (*prompts, *answers, *scores) if re.search(r"[.\[]", p)]
    if row.prompt == "messages" or row.read not in (check_side, transcript_prompt):
        structured += prompts
    structured += {"history"} & {*row.traits}
    label_fields = tuple(every(row.label)) if isinstance(row.label, str) else ()
    return Format(
        name=name,
        matches=matches,
        plan=partial(plan, name, row),
        label=label_fields if row.label and "refused" not in row.traits else None,
        structured=tuple(map(paths.root, (*structured, *systems))),
        dialogues=tuple(map(paths.root, (*prompts, *answers))),
        traits=row.traits,
    )


def mapped(columns: Mapping[str, str]) -> Format:
    """The format that --map describes, FIELD to COLUMN. Raises ConvertError (status 2)."""
    columns = {name: tidy_name(column) for name, column in columns.items()}
    if unknown := [name for name in columns if name not in MAPPED]:
        raise ConvertError(
            f"--map {unknown[0]}={columns[unknown[0]]}: unknown field {unknown[0]!r}; "
            f"known are {', '.join(MAPPED)}"
        )
    answers = ("chosen", "rejected")
    if columns.keys() & {"a", "b", "label", "annotator"}:
        answers = ("a", "b")
        if columns.keys() & {"chosen", "rejected"} or not {"a", "b", "label"} <= columns.keys():
            raise ConvertError(
                "--map: map chosen and rejected, which name the winner themselves, or else a, b "
                "and label, all three, and perhaps annotator"
            )
    names = {name: name for name in ("prompt", *answers, "system")} | columns
    used = [*names.values()]
    if twice := [column for column in used if used.count(column) > 1]:
        raise ConvertError(f"--map: the column {twice[0]} cannot be two fields at once")
    row = Row(
        names["prompt"],
        ", ".join(names[name] for name in answers),
        label=names.get("label", ""),
        annotator=names.get("annotator", ""),
        system=names["system"],
    )
    return as_format("mapped", row)


def _holds(value: object, field: str) -> bool:
    """Whether the value is a list with an object that has the field."""
    return isinstance(value, list) and any(isinstance(e, dict) and field in e for e in value)


def plan(name: str, row: Row, names: tuple[str, ...], options: ReadOptions) -> Plan:
    """How records with these field names are read by a row of the table."""
    if "refused" in row.traits:
        raise ConvertError(f"these records are {name}: {descriptions()[name]['refusal']}")
    found, sides_of = resolve(row, names), reader(row, names)
    if "," not in row.answers and "[]" not in row.answers:
        results = partial(_single, row, found, sides_of)
    elif row.scores:
        results = partial(_scored, row, found, sides_of, options)
    elif row.label:
        is_judged = found.labels and isinstance(row.label, re.Pattern)
        outcome_of = _outcomes(row, found, options)
        results = partial(_judged if is_judged else _labelled, found, sides_of, outcome_of)
    else:
        results = partial(_first_better, sides_of)
    used = (*every(row.prompt), *every(row.answers), *found.labels, *found.scores)
    used += (*every(row.annotator), *every(row.system), *sides.EXTRAS)
    used += tuple({"input", "history"} & {*row.traits})
    fields = {*used, *map(paths.root, used)}
    return Plan(results, fields & frozenset(names))


def _first_better(sides_of: Reader, record: dict) -> list[Result]:
    """The first answer won."""
    prompt, answers, extras = sides_of(record)
    return [sides.make_pair(prompt, answers[0], answers[1], None, extras)]


def _labelled(found: Found, sides_of: Reader, outcome_of: Outcomes, record: dict) -> list[Result]:
    """The label names the winner."""
    value = record.get(found.label)
    winner = outcome_of(value)
    prompt, answers, extras = sides_of(record, (winner,))
    if len(answers) > 2 and "[]" in found.answers[0]:
        detail = f"there are {len(answers)} answers, of which the label compares two"
        raise BadRecord("wrong_type", f"{detail}; remove the others")
    if found.annotator is not None:
        votes = ((label.annotator(record[found.annotator]), winner),)
        return sides.compare(prompt, answers, votes, extras, across_records=True)
    if winner is None:
        raise label.tied(value)
    chosen = answers.pop(winner)
    return [
        sides.attempt(sides.make_pair, prompt, chosen, rejected, winner < other, extras)
        for other, rejected in answers.items()
    ]


def _judged(found: Found, sides_of: Reader, outcome_of: Outcomes, record: dict) -> list[Result]:
    """Every annotator's label is a vote, which counts even where an answer is unusable."""
    votes, faults = [], []
    for name in found.labels:
        try:
            votes.append((name, outcome_of(record[name])))
        except BadRecord as fault:
            faults.append(fault)
    unknown = [fault for fault in faults if fault.reason == "unknown_label"]
    try:
        prompt, answers, extras = sides_of(record)
        if unknown or not votes:
            raise (unknown or faults)[0]
    except BadRecord as fault:
        fault.votes = tuple(votes)
        raise
    return sides.compare(prompt, answers, votes, extras)


def _outcomes(row: Row, found: Found, options: ReadOptions) -> Outcomes:
    """`label.outcome` that remembers what the values of the label came to."""
    is_list = "[]" in found.answers[0]
    names = ("answer_1", "answer_2") if is_list else found.answers
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
    scores = [
        (row.decode or label.score)(value, where)
        for path in found.scores
        for value, where in paths.find_all(record, path, "null_label")
    ]
    if len(answers) != len(scores):
        raise BadRecord(
            "wrong_type",
            f"there are {len(answers)} answers and {len(scores)} scores, so it is not known "
            "which belong together; give each answer its score",
        )
    return sides.ranked_pairs(prompt, answers, scores, options, "rated" in row.traits, extras)


def reader(row: Row, names: tuple[str, ...]) -> Reader:
    """What reads the prompt, the answers by position, and the `extras` of `make_pair`.

    Of a list of answers, all are read; of several fields, the first two, those at the positions of
    the second argument, and any other that has a text. Raises BadRecord.
    """
    found = resolve(row, names)
    prompt_of, extras_of = _prompt_reader(row, found, names), _extras_reader(row, names)
    fields = [*enumerate(found.answers)]

    def sides_of(record: dict, winners: Sequence[int | None] = ()) -> Sides:
        prompt, answers = prompt_of(record), {}
        for at, path in fields:
            value, where = record.get(path), path
            if value is None:  # missing, or a path into the record
                value, where = paths.find(record, path)
            if at < 2 or at in winners or value not in (None, ""):
                answers[at] = value if type(value) is str else check_side(value, where)
        return prompt, answers, extras_of(record) if extras_of else sides.NO_EXTRAS

    def list_of(record: dict, winners: Sequence[int | None] = ()) -> Sides:
        values = paths.find_all(record, found.answers[0])
        answers = {at: check_side(*value) for at, value in enumerate(values)}
        if len(answers) < 2:
            raise BadRecord("unpaired", f"{len(answers)} answer to this prompt; a pair needs two")
        return prompt_of(record), answers, extras_of(record) if extras_of else sides.NO_EXTRAS

    return list_of if "[]" in found.answers[0] else sides_of


def _prompt_reader(row: Row, found: Found, names: tuple[str, ...]) -> Callable[[dict], Side | None]:
    """What reads the prompt with its input below it and its history before it."""
    if found.ambiguity:
        return partial(_refuse, found.ambiguity)
    if not row.prompt:
        return lambda record: None
    prompt_of = partial(_prompt, found.prompt, row.read)
    around = {*row.traits} & {*names}
    if "input" in around and found.prompt == "instruction":
        prompt_of = partial(_with_input, prompt_of)
    return partial(_with_history, prompt_of) if "history" in around else prompt_of


def _refuse(ambiguity: str, record: dict) -> None:
    raise BadRecord("wrong_type", ambiguity)


def _prompt(path: str, read: Callable[[object, str], Side], record: dict) -> Side:
    if read is check_side and type(value := record.get(path)) is str:
        return value
    return read(*paths.find(record, path))


def _with_input(prompt_of: Callable[[dict], Side], record: dict) -> Side:
    """The instruction with the text of `input` below it."""
    prompt, more = prompt_of(record), record["input"]
    if more in (None, ""):
        return prompt
    paths.check(more, str, "input")
    paths.check(prompt, str, "instruction next to input")
    return f"{prompt}\n{more}" if prompt else more


def _with_history(prompt_of: Callable[[dict], Side], record: dict) -> Side:
    """The prompt after the turns of `history`, a list of [question, answer]."""
    prompt, earlier = prompt_of(record), record["history"]
    if earlier in (None, "", []):
        return prompt
    turns = []
    for exchange in earlier if isinstance(earlier, list) else [earlier]:
        if not isinstance(exchange, list) or [type(text) for text in exchange] != [str, str]:
            detail = f"history is {clip(earlier)}; it must be a list of [question, answer]"
            raise BadRecord("wrong_type", detail)
        turns += interleave(exchange[:1], exchange[1:])
    return turns + as_messages(prompt, "user")


def _extras_reader(row: Row, names: tuple[str, ...]) -> Callable[[dict], sides.Extras] | None:
    """What reads the `extras` of `make_pair`; None where there are none."""
    fields = [name for name in sides.EXTRAS[1:] if name in names]
    systems = [path for path in every(row.system) if paths.is_in(path, names)]
    container = paths.root(row.prompt) if "." in row.prompt else ""
    used = fields or systems or container
    return partial(_extras, fields, systems, container) if used else None


def _extras(fields: list[str], systems: list[str], container: str, record: dict) -> sides.Extras:
    held, where = {name: record[name] for name in fields}, "system"
    for path in systems:
        system, place = paths.find(record, path)
        if system not in (None, ""):
            held["system"], where = system, place
            break
    if container:
        held |= paths.check(record.get(container), dict, container)
    return sides.check_extras(held, where)

"""How a row of the table, or of --map, becomes a format; what depends on the field names of its records is worked out once."""

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

_LISTED = ("answer_1", "answer_2")  # names for the answers of a list

Results = Callable[[dict], list[Result]]
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
    found = resolve(row, names)
    if "," not in row.answers and "[]" not in row.answers:
        read = _single
    elif row.scores:
        read = _scored
    elif found.labels and isinstance(row.label, re.Pattern):
        read = _judged
    else:
        read = _labelled if row.label else _first_better
    used = (*every(row.prompt), *every(row.answers), *found.labels, *found.scores)
    used += (*every(row.annotator), *every(row.system), *sides.EXTRAS)
    used += tuple({"input", "history"} & {*row.traits})
    fields = {*used, *map(paths.root, used)}
    return Plan(read(row, found, reader(row, names), options), fields & frozenset(names))


def _first_better(row: Row, found: Found, sides_of: Reader, options: ReadOptions) -> Results:
    """The first answer won."""

    def results(record: dict) -> list[Result]:
        prompt, answers, extras = sides_of(record)
        return [sides.make_pair(prompt, answers[0], answers[1], None, extras)]

    return results


def _labelled(row: Row, found: Found, sides_of: Reader, options: ReadOptions) -> Results:
    """The label names the winner."""
    outcome_of = _outcomes(row, found, options)
    field = next(iter(found.labels), None)

    def results(record: dict) -> list[Result]:
        value = record.get(field)
        winner = outcome_of(value)
        prompt, answers, extras = sides_of(record, (winner,))
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

    return results


def _judged(row: Row, found: Found, sides_of: Reader, options: ReadOptions) -> Results:
    """Every annotator's label is a vote, which counts even where an answer is unusable."""
    outcome_of = _outcomes(row, found, options)

    def results(record: dict) -> list[Result]:
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

    return results


def _outcomes(row: Row, found: Found, options: ReadOptions) -> Callable[[object], int | None]:
    """`label.outcome` that remembers what the values of the label came to."""
    names = found.answers if len(found.answers) > 1 else _LISTED
    outcome = partial(label.outcome, names=names, label=options.label, numbers=row.decode)
    remembered = lru_cache(10_000, typed=True)(outcome)
    return lambda value: (outcome if isinstance(value, list | dict) else remembered)(value)


def _single(row: Row, found: Found, sides_of: Reader, options: ReadOptions) -> Results:
    """One answer and its score, to be compared with those of other records."""
    decode, (field,) = row.decode or label.score, found.scores
    graded = "rated" in row.traits

    def results(record: dict) -> list[Result]:
        prompt, answers, (system, *extras) = sides_of(record)
        answer = answers[0]
        is_open = isinstance(answer, list) and [m["role"] for m in answer[-1:]] != ["assistant"]
        if prompt == [] or is_open:
            detail = "there must be a turn before the answer, and it must end with the assistant"
            raise BadRecord("bad_roles", f"{detail}; fix the turns or remove the record")
        score = decode(record.get(field), field)
        if system is not None:
            prompt = sides.with_system(prompt, system)
        return [ScoredAnswer(prompt, answer, score, graded, *extras)]

    return results


def _scored(row: Row, found: Found, sides_of: Reader, options: ReadOptions) -> Results:
    """Several answers with a rank or rating each."""
    decode, rated = row.decode or label.score, "rated" in row.traits

    def results(record: dict) -> list[Result]:
        prompt, answers, extras = sides_of(record)
        scores = [
            decode(value, where)
            for path in found.scores
            for value, where in paths.find_all(record, path, "null_label")
        ]
        if len(answers) != len(scores):
            raise BadRecord(
                "wrong_type",
                f"there are {len(answers)} answers and {len(scores)} scores, so it is not known "
                "which belong together; give each answer its score",
            )
        return sides.ranked_pairs(prompt, answers, scores, options, rated, extras)

    return results


def reader(row: Row, names: tuple[str, ...]) -> Reader:
    """What reads the prompt, the answers by position, and the `extras` of `make_pair`.

    Of a list of answers, all are read; of several fields, the first two, those at the positions of
    the second argument, and any other that has a text. Raises BadRecord.
    """
    found = resolve(row, names)
    prompt_of, extras_of = _prompt_reader(row, found, names), _extras_reader(row, names)
    reads = [*enumerate(_side_reader(path, names, check_side) for path in found.answers)]

    def sides_of(record: dict, winners: Sequence[int | None] = ()) -> Sides:
        prompt, answers = prompt_of(record), {}
        for at, side_of in reads:
            if at < 2 or at in winners or record.get(found.answers[at]) not in (None, ""):
                answers[at] = side_of(record)
        return prompt, answers, extras_of(record) if extras_of else sides.NO_EXTRAS

    def list_of(record: dict, winners: Sequence[int | None] = ()) -> Sides:
        values = paths.find_all(record, found.answers[0])
        answers = {at: check_side(*value) for at, value in enumerate(values)}
        if len(answers) < 2:
            raise BadRecord("unpaired", f"{len(answers)} answer to this prompt; a pair needs two")
        return prompt_of(record), answers, extras_of(record) if extras_of else sides.NO_EXTRAS

    return list_of if "[]" in found.answers[0] else sides_of


def _side_reader(
    path: str, names: tuple[str, ...], read: Callable[[object, str], Side]
) -> Callable[[dict], Side]:
    """What reads the side at a path."""
    if path in names and read is check_side:

        def side_of(record: dict) -> Side:
            value = record[path]
            return value if type(value) is str else check_side(value, path)
    else:

        def side_of(record: dict) -> Side:
            return read(*paths.find(record, path))

    return side_of


def _prompt_reader(row: Row, found: Found, names: tuple[str, ...]) -> Callable[[dict], Side | None]:
    """What reads the prompt with its input below it and its history before it."""

    def refuse(record: dict) -> None:
        raise BadRecord("wrong_type", found.ambiguity)

    if found.ambiguity:
        return refuse
    if not row.prompt:
        return lambda record: None
    path = (found.prompts or every(row.prompt))[0]
    text_of = _side_reader(path, names, row.read)
    around = {*row.traits} & {*names}
    has_input, has_history = "input" in around and path == "instruction", "history" in around
    if not has_input and not has_history:
        return text_of

    def prompt_of(record: dict) -> Side:
        prompt = text_of(record)
        if has_input and (more := record["input"]) not in (None, ""):
            paths.check(more, str, "input")
            paths.check(prompt, str, "instruction next to input")
            prompt = f"{prompt}\n{more}" if prompt else more
        if has_history and record["history"] not in (None, "", []):
            return _turns(record["history"]) + as_messages(prompt, "user")
        return prompt

    return prompt_of


def _turns(earlier: object) -> list[dict]:
    """The turns of a history, a list of [question, answer]. Raises BadRecord."""
    turns = []
    for exchange in earlier if isinstance(earlier, list) else [earlier]:
        if not isinstance(exchange, list) or [type(text) for text in exchange] != [str, str]:
            detail = f"history is {clip(earlier)}; it must be a list of [question, answer]"
            raise BadRecord("wrong_type", detail)
        turns += interleave(exchange[:1], exchange[1:])
    return turns


def _extras_reader(row: Row, names: tuple[str, ...]) -> Callable[[dict], sides.Extras] | None:
    """What reads the `extras` of `make_pair`; None where there are none."""
    fields = [name for name in sides.EXTRAS[1:] if name in names]
    systems = [path for path in every(row.system) if paths.is_in(path, names)]
    container = paths.root(row.prompt) if "." in row.prompt else ""
    if not fields and not systems and not container:
        return None

    def extras_of(record: dict) -> tuple:
        held, where = {name: record[name] for name in fields}, "system"
        for path in systems:
            system, place = paths.find(record, path)
            if system not in (None, ""):
                held["system"], where = system, place
                break
        if container:
            held |= paths.check(record.get(container), dict, container)
        return sides.check_extras(held, where)

    return extras_of

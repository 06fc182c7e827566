"""A row, of the table of formats or of --map: what it says, and how it becomes a format.

Where a row names several fields for one thing, a record must have exactly one of them: with two it
would not be known which is meant. What depends on the field names of a record is worked out once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from data_tools.formats import label, paths, sides
from data_tools.formats.dialogues import check_side, interleave
from data_tools.formats.format import Format, Plan, ReadOptions, descriptions, tidy_name
from data_tools.record import BadRecord, ConvertError, Result, ScoredAnswer, Side, as_messages, clip

MAPPED = ("prompt", "chosen", "rejected", "a", "b", "label", "system", "annotator")
"""The fields that --map may name the columns of."""

Outcomes = Callable[[object], int | None]
Sides = tuple[Side | None, dict[int, Side], sides.Extras]
Reader = Callable[..., Sides]


@dataclass(frozen=True, eq=False)
class Row:
    """One format by its fields or paths; for `,` and `|` see `alternatives`.

    `prompt` is empty where the answers are whole dialogues; `read` takes it and where it is. Of the
    `answers`, in the order shown, `label` names the better one, a pattern where each of its fields
    is one annotator's label, or else the higher of the `scores` does, or else the first won. One
    answer alone is compared with those of other records. `decode` defines the label's numbers, or
    reads a score. Of the fields `system`, the first counts that is not empty. A record that
    `only_if` rejects is of another format. Besides those of `Format`, `traits` name fields that
    belong to the prompt: `input` (its text goes below an `instruction`) and `history` (earlier
    turns).
    """

    prompt: str
    answers: str
    label: str | re.Pattern = ""
    scores: str = ""
    decode: Callable | None = None
    annotator: str = ""
    read: Callable[[object, str], Side] = check_side
    system: tuple[str, ...] = ("system",)
    only_if: Callable[[dict], bool] | None = None
    traits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a row finds in a set of field names.

    The paths are those of the first alternative that it has, of the answers up to the last that is
    present. `ambiguity` says which two fields could both be meant; it is empty where none could.
    """

    prompt: str
    answers: tuple[str, ...]
    labels: list[str]
    scores: list[str]
    annotator: str | None
    ambiguity: str
    is_complete: bool


def alternatives(text: str) -> list[list[str]]:
    """The alternatives `a | b` of an entry, each with its paths `c, d`.

    A record has all paths of one alternative.
    """
    return [alternative.split(", ") for alternative in text.split(" | ")] if text else []


def every(text: str) -> list[str]:
    """All paths of an entry."""
    return re.split(r" \| |, | or ", text) if text else []


@lru_cache(10_000)
def resolve(row: Row, names: tuple[str, ...]) -> Found:
    """What the row finds in a record with these field names."""

    def present(entry: str) -> list[list[str]]:
        """The alternatives whose paths a record has; answers after the second may be absent."""
        return [
            alternative
            for alternative in alternatives(entry)
            if all(paths.is_in(path, names) for path in alternative[:2])
        ]

    prompts, families, scores = map(present, (row.prompt, row.answers, row.scores))
    if ["instruction"] in prompts and ["input"] in prompts:
        prompts.remove(["input"])
    if isinstance(row.label, str):
        labels = present(row.label)
    else:  # annotator2 before annotator10
        judges = sorted(filter(row.label.fullmatch, names), key=lambda name: (len(name), name))
        labels = [judges] if judges else []
    found = (families, prompts, labels, scores)
    wanted = [True, bool(row.prompt), bool(row.label), bool(row.scores)]
    both = [f"{entry[0][0]} and {entry[1][0]} could both be meant" for entry in found if entry[1:]]
    family = (families or alternatives(row.answers))[0]
    shown = [at for at, path in enumerate(family, start=1) if paths.is_in(path, names)]
    return Found(
        prompt=(prompts or alternatives(row.prompt) or [[""]])[0][0],
        answers=tuple(family[: max([2, *shown])]),
        labels=labels[0] if labels else [],
        scores=(scores or alternatives(row.scores) or [[]])[0],
        annotator=next((name for name in every(row.annotator) if name in names), None),
        ambiguity=f"{both[0]}; name the right one with --map" if both else "",
        is_complete=[len(entry) for entry in found] == wanted,
    )


def as_format(name: str, row: Row) -> Format:
    """The row as a format of this name."""
    answers, scores = every(row.answers), every(row.scores)
    nested = [path.split("[].") for path in (*answers, *scores) if "[]." in path]

    def matches(record: dict) -> bool:
        return (
            resolve(row, tuple(record)).is_complete
            and all(paths.holds(record[field], inner) for field, inner in nested)
            and (row.only_if is None or row.only_if(record))
        )

    labels = tuple(every(row.label)) if isinstance(row.label, str) else ()
    return Format(
        name=name,
        matches=matches,
        plan=partial(plan, name, row),
        label=labels if row.label else None,
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
        system=(names["system"],),
    )
    return as_format("mapped", row)


def plan(name: str, row: Row, names: tuple[str, ...], options: ReadOptions) -> Plan:
    """How records with these field names are read by the row."""
    if "refused" in row.traits:
        raise ConvertError(f"these records are {name}: {descriptions()[name]['refusal']}")
    found, sides_of = resolve(row, names), reader(row, names)
    if "," not in row.answers and "[]" not in row.answers:
        results = partial(_single, row, found, sides_of)
    elif row.scores:
        results = partial(_scored, row, found, sides_of, options)
    elif not row.label:
        results = partial(_first_better, sides_of)
    else:
        read = _voted if isinstance(row.label, re.Pattern) else _labelled
        results = partial(read, found, sides_of, _outcomes(row, found, options))
    used = (*every(row.prompt), *every(row.answers), *found.labels, *found.scores)
    used += (*every(row.annotator), *row.system, *sides.EXTRAS)
    used += tuple({"input", "history"} & {*row.traits})
    return Plan(results, frozenset({*used, *map(paths.root, used)} & {*names}))


def _first_better(sides_of: Reader, record: dict) -> list[Result]:
    """The first answer won."""
    prompt, answers, extras = sides_of(record)
    return [sides.make_pair(prompt, answers[0], answers[1], None, extras)]


def _labelled(found: Found, sides_of: Reader, outcome_of: Outcomes, record: dict) -> list[Result]:
    """The label names the winner; it is a vote where the record names its annotator."""
    value = record[found.labels[0]] if found.labels else None
    winner = outcome_of(value)
    prompt, answers, extras = sides_of(record, (winner,))
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
    around = {*row.traits} & {*names}
    if prompt != "instruction":
        around -= {"input"}
    container = paths.root(prompt) if "." in prompt and prompt not in names else ""
    has_extras = container or {*row.system, *sides.EXTRAS} & {*names}
    extras_of = partial(sides.check_extras, systems=row.system, container=container)

    def prompt_of(record: dict) -> Side | None:
        if not prompt:  # the answers are whole dialogues
            return None
        value = record.get(prompt)
        if type(value) is not str or row.read is not check_side:
            value = row.read(*paths.find(record, prompt))
        return _with_earlier(value, record, around) if around else value

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
        if len(answers) > 2 and row.label:
            detail = f"there are {len(answers)} answers, of which the label compares two"
            raise BadRecord("wrong_type", f"{detail}; remove the others")
        return prompt_of(record), answers, extras_of(record) if has_extras else sides.NO_EXTRAS

    return list_of if listed else sides_of


def _refuse(ambiguity: str, record: dict, winners: Sequence[int | None] = ()) -> Sides:
    raise BadRecord("wrong_type", ambiguity)


def _with_earlier(prompt: Side, record: dict, around: set[str]) -> Side:
    """The prompt with the text of `input` below it and the turns of `history` before it."""
    more = record["input"] if "input" in around else None
    if more not in (None, ""):
        more = paths.check(more, str, "input")
        paths.check(prompt, str, "instruction next to input")
        prompt = f"{prompt}\n{more}" if prompt else more
    earlier = record["history"] if "history" in around else None
    if earlier in (None, "", []):
        return prompt
    turns = []
    for exchange in paths.check(earlier, list, "history", "a list of [question, answer]"):
        if not isinstance(exchange, list) or [type(text) for text in exchange] != [str, str]:
            detail = f"history is {clip(earlier)}; it must be a list of [question, answer]"
            raise BadRecord("wrong_type", detail)
        turns += interleave(exchange[:1], exchange[1:])
    return turns + as_messages(prompt, "user")

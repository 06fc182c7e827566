"""How the records of a row become results; what depends on their field names is worked out once."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from data_tools.formats import label, paths, sides
from data_tools.formats.format import Plan, ReadOptions, descriptions
from data_tools.formats.rows import Found, Row, all_of, one_of, resolve
from data_tools.record import (
    BadRecord,
    ConvertError,
    Result,
    ScoredAnswer,
    Side,
    as_messages,
    clip,
)

Results = Callable[[dict], list[Result]]


def plan(row: Row, names: tuple[str, ...], options: ReadOptions) -> Plan:
    """How records with these field names are read by a row of a table.

    Raises ConvertError for a format that cannot be converted.
    """
    found, answers, around = resolve(row, names), row.answers, row.around
    if "refused" in row.traits:
        raise ConvertError(f"these records are {row.name}: {descriptions()[row.name]['refusal']}")
    if answers.is_single:
        results = _single(row, found)
    elif answers.scores:
        results = _scored(row, found, options)
    elif found.judges:
        results = _judged(row, found, options)
    elif answers.label or answers.judges:
        results = _labelled(row, found, options)
    else:
        results = _first_better(row, found)
    read = (*one_of(row.prompt), *answers.paths, *one_of(answers.label), *one_of(answers.annotator))
    read += (*all_of(answers.scores), *around.paths, *sides.EXTRAS, *found.judges)
    fields = {field for path in read for field in (path, *paths.fields(path))}
    return Plan(results, frozenset(found.own[field] for field in fields & found.own.keys()))


def _first_better(row: Row, found: Found) -> Results:
    """The first answer won."""
    prompt_of, answers_of, extras_of = readers(row, found)
    join = row.dialect.join

    def results(record: dict) -> list[Result]:
        prompt, answers = prompt_of(record), answers_of(record)
        return [sides.make_pair(prompt, answers[0], answers[1], None, extras_of(record), join)]

    return results


def _labelled(row: Row, found: Found, options: ReadOptions) -> Results:
    """The label names the winner."""
    prompt_of, answers_of, extras_of = readers(row, found)
    outcome_of = _outcomes(row, found, options)
    field = found.own[found.labels[0]] if found.labels else None
    who = next(
        (found.own[name] for name in one_of(row.answers.annotator) if name in found.own), None
    )

    def results(record: dict) -> list[Result]:
        value = record.get(field)
        winner = outcome_of(value)
        answers, prompt = answers_of(record, (winner,)), prompt_of(record)
        extras = extras_of(record)
        if who is not None:
            votes = ((label.annotator(record[who]), winner),)
            return sides.compare(prompt, answers, votes, extras, across_records=True)
        if winner is None:
            raise label.tied(value)
        chosen = answers.pop(winner)
        return [
            sides.attempt(sides.make_pair, prompt, chosen, rejected, winner < other, extras)
            for other, rejected in answers.items()
        ]

    return results


def _judged(row: Row, found: Found, options: ReadOptions) -> Results:
    """Every annotator's label is a vote."""
    prompt_of, answers_of, extras_of = readers(row, found)
    outcome_of = _outcomes(row, found, options)

    def results(record: dict) -> list[Result]:
        given = [
            (name, sides.attempt(outcome_of, record[found.own[name]])) for name in found.judges
        ]
        votes = tuple((who, won) for who, won in given if not isinstance(won, BadRecord))
        faults = [fault for _, fault in given if isinstance(fault, BadRecord)]
        unknown = [fault for fault in faults if fault.reason == "unknown_label"]
        try:
            answers, prompt = answers_of(record), prompt_of(record)
            extras = extras_of(record)
            if unknown or not votes:
                raise (unknown or faults)[0]
            return sides.compare(prompt, answers, votes, extras)
        except BadRecord as fault:
            raise BadRecord(fault.reason, fault.detail, votes) from None

    return results


def _outcomes(row: Row, found: Found, options: ReadOptions) -> Callable[[object], int | None]:
    """`label.outcome` that remembers what the values of the label came to."""

    def outcome_of(value: object) -> int | None:
        return label.outcome(value, found.answers, options.label, row.answers.numbers)

    remembered = lru_cache(10_000, typed=True)(outcome_of)
    return lambda value: (outcome_of if isinstance(value, list | dict) else remembered)(value)


def _single(row: Row, found: Found) -> Results:
    """One answer and its score, to be compared with those of other records."""
    prompt_of, answers_of, extras_of = readers(row, found)
    field = next(iter(found.labels), one_of(row.answers.label)[0])
    graded = "rated" in row.traits

    def results(record: dict) -> list[Result]:
        prompt, answers = prompt_of(record), answers_of(record)
        if prompt == []:
            detail = "there is no turn before the answer; add the prompt or remove the record"
            raise BadRecord("bad_roles", detail)
        score = row.answers.score(record.get(field), field)
        system, *extras = extras_of(record)
        if system is not None:
            prompt = sides.with_system(as_messages(prompt, "user"), system)
        return [ScoredAnswer(prompt, answers[0], score, graded, *extras)]

    return results


def _scored(row: Row, found: Found, options: ReadOptions) -> Results:
    """Several answers with a rank or rating each."""
    prompt_of, _, extras_of = readers(row, found)
    rated = "rated" in row.traits

    def results(record: dict) -> list[Result]:
        values = [at for path in found.answers for at in paths.find_all(record, path)]
        answers = [row.dialect.answer(value, where) for value, where in values]
        scores = [
            row.answers.score(value, where)
            for path in all_of(row.answers.scores)
            for value, where in paths.find_all(record, path, "null_label")
        ]
        if len(answers) != len(scores):
            detail = f"there are {len(answers)} answers and {len(scores)} scores, so it is not "
            detail += "known which belong together; give each answer its score"
            raise BadRecord("wrong_type", detail)
        prompt, extras = prompt_of(record), extras_of(record)
        return sides.ranked_pairs(prompt, answers, scores, options, rated, extras)

    return results


def readers(row: Row, found: Found) -> tuple[Callable, Callable, Callable]:
    """What read the prompt, the answers by position, and the extras of `make_pair` from a record.

    Of the answers, the first two are read, those at the positions of the second argument and any
    other that has a text. Each raises BadRecord.
    """
    own = found.own
    readers = [_side_reader(path, own, row.dialect.answer) for path in found.answers]
    fields = [own.get(path, path) for path in found.answers]

    def answers_of(record: dict, winners: Sequence[int | None] = ()) -> dict[int, Side]:
        return {
            at: read(record)
            for at, read in enumerate(readers)
            if at < 2 or at in winners or record.get(fields[at]) not in (None, "")
        }

    if len(readers) == 2:
        first_of, second_of = readers

        def answers_of(record: dict, winners: Sequence[int | None] = ()) -> dict[int, Side]:
            return {0: first_of(record), 1: second_of(record)}

    def refuse(record: dict) -> None:
        raise BadRecord("wrong_type", found.ambiguity)

    prompt_of = refuse if found.ambiguity else _prompt_reader(row, found)
    return prompt_of, answers_of, _extras_reader(row, own)


def _side_reader(
    path: str, own: dict[str, str], read: Callable[[object, str], Side]
) -> Callable[[dict], Side]:
    """What reads the side at a path."""
    field = own.get(path)
    if field is not None and read is sides.check_side:

        def side_of(record: dict) -> Side:
            value = record[field]
            return value if type(value) is str else sides.check_side(value, field)
    else:

        def side_of(record: dict) -> Side:
            value, where = paths.find(record, path if field is None else field)
            side = read(value, where)
            if path.endswith("[-1]") and side[0]["role"] != "assistant":
                detail = f"{where} is from {clip(side[0]['role'])}"
                raise BadRecord("bad_roles", f"{detail}; a dialogue must end with the assistant")
            return side

    return side_of


def _prompt_reader(row: Row, found: Found) -> Callable[[dict], Side | None]:
    """What reads the prompt with its context below it and its history before it."""
    if not row.prompt:
        return lambda record: None
    path = next(iter(found.prompts), one_of(row.prompt)[0])
    text_of = _side_reader(path, found.own, row.dialect.prompt)
    context = found.own.get(row.around.context) if path == "instruction" else None
    history = found.own.get(row.around.history)
    if context is None and history is None:
        return text_of

    def prompt_of(record: dict) -> Side:
        prompt = text_of(record)
        if context is not None and (more := record[context]) not in (None, ""):
            paths.check_text(more, context)
            paths.check_text(prompt, f"{path} next to {context}")
            prompt = f"{prompt}\n{more}" if prompt else more
        earlier = None if history is None else record[history]
        if earlier in (None, "", []):
            return prompt
        return _turns(earlier, history) + as_messages(prompt, "user")

    return prompt_of


def _turns(earlier: object, name: str) -> list[dict]:
    turns = []
    for exchange in earlier if isinstance(earlier, list) else [earlier]:
        if not isinstance(exchange, list) or [type(text) for text in exchange] != [str, str]:
            detail = f"{name} is {clip(earlier)}; it must be a list of [question, answer]"
            raise BadRecord("wrong_type", detail)
        turns += sides.interleave(exchange[:1], exchange[1:])
    return turns


def _extras_reader(row: Row, own: dict[str, str]) -> Callable[[dict], tuple]:
    """What reads the `extras` of `make_pair`."""
    around = row.around
    fields = {name: own[name] for name in sides.EXTRAS[1:] if name in own}
    systems = [own.get(path, path) for path in around.system if paths.is_in(path, own)]
    if not fields and not systems and not around.extras:
        return lambda record: sides.NO_EXTRAS

    def extras_of(record: dict) -> tuple:
        held = {name: record[field] for name, field in fields.items()}
        for path in systems:
            system, where = paths.find(record, path)
            if system not in (None, ""):
                held["system"] = row.dialect.system(system, where)
                break
        if around.extras:
            held |= paths.check_object(*paths.find(record, around.extras))
        return sides.check_extras(held)

    return extras_of

"""Judged answers that no row describes: one-hot votes, summaries, and vectors of judgements."""

from itertools import combinations

from data_tools.formats import label, paths, sides
from data_tools.formats.cells import load_list
from data_tools.formats.format import Format, JsonFields, Labels, ReadOptions, reading
from data_tools.record import BadRecord, Result, clip

_CELLS = ("prompt", "response_a", "response_b")
_ONE_HOT = {
    "winner_model_a": label.FIRST,
    "winner_model_b": label.SECOND,
    "winner_tie": label.TIE,
}


def _arena_55k(record: dict, options: ReadOptions) -> list[Result]:
    questions, *replies = (_texts(record, name) for name in _CELLS)
    winner = _one_hot(record)
    if winner is None:
        raise label.tied("winner_tie")
    for name, texts in zip(_CELLS[1:], replies, strict=True):
        if len(texts) != len(questions):
            raise BadRecord(
                "bad_roles",
                f"the turns of prompt ({len(questions)}) and {name} ({len(texts)}) differ in "
                "number; each question needs its answer",
            )
    first, second = (sides.interleave(questions, texts) for texts in replies)
    chosen, rejected = (first, second) if winner == label.FIRST else (second, first)
    split = sides.split_dialogues(chosen, rejected)
    return [sides.pair_from(record, *split, winner == label.FIRST)]


def _texts(record: dict, name: str) -> list[str]:
    """The texts of a cell that holds a JSON list of them. Raises BadRecord."""
    texts = load_list(record.get(name), name)
    texts = paths.check_list(texts, name, 'a list of texts, such as ["Hello"]')
    return [paths.check_text(text, f"{name}[{number}]") for number, text in enumerate(texts)]


def _one_hot(record: dict) -> int | None:
    """The outcome whose column is 1, where the others are 0 or empty. Raises BadRecord."""
    given = [name for name in _ONE_HOT if not label.is_null(record.get(name))]
    won = [name for name in given if _code(record[name], name, (0, 1)) == 1]
    if not won:
        raise BadRecord("null_label", f"none of {', '.join(_ONE_HOT)} is 1; set the one that won")
    if len(won) > 1:
        raise BadRecord("unknown_label", f"{' and '.join(won)} are 1; only one of them can be")
    return _ONE_HOT[won[0]]


def _code(value: object, where: str, known: tuple[int, ...]) -> int:
    """The number of a label that is one of the known ones. Raises BadRecord."""
    number = label.score(value, where)
    if number not in known:
        shown = ", ".join(map(str, known))
        raise BadRecord("unknown_label", f"{where} is {clip(value)}; it must be one of {shown}")
    return int(number)


_BLOCKS = {"subreddit": "SUBREDDIT: r/", "title": "TITLE: ", "post": "POST: "}


def _summaries(record: dict, options: ReadOptions) -> list[Result]:
    prompt = _post(paths.check_object(record.get("info"), "info"))
    summaries = paths.find_all(record, "summaries[].text")
    if len(summaries) != 2:
        raise BadRecord(
            "unpaired" if len(summaries) < 2 else "wrong_type",
            f"summaries has {len(summaries)} entries; choice compares two, remove the others",
        )
    answers = [paths.check_text(text, where) for text, where in summaries]
    winner = _code(record.get("choice"), "choice", (0, 1))
    if "worker" not in record:
        chosen, rejected = answers[winner], answers[1 - winner]
        return [sides.pair_from(record, prompt, chosen, rejected, winner == label.FIRST)]
    votes = ((label.annotator(record["worker"]), winner),)
    return sides.compare(prompt, dict(enumerate(answers)), votes, sides.check_extras(record), True)


def _post(info: dict) -> str:
    """The post or article with the labels that the summariser was shown. Raises BadRecord."""
    for name in ("subreddit", "title", "post", "article"):
        if info.get(name) is not None:
            paths.check_text(info[name], f"info.{name}")
    name = paths.given(info, ("post", "article"))
    if name is None or not info[name].strip():
        missing = info.get("post") is None and info.get("article") is None
        detail = "info has neither a post nor an article with a text; add what was summarised"
        raise BadRecord("missing_field" if missing else "empty_prompt", detail)
    if name == "article":
        return f"{info[name]}\n\nTL;DR:"
    blocks = [f"{mark}{info[name]}" for name, mark in _BLOCKS.items() if info.get(name)]
    return "\n\n".join([*blocks, "TL;DR:"])


_FOUR = tuple(f"prediction_{number}" for number in (1, 2, 3, 4))
_COMPARED = tuple(combinations(range(4), 2))  # in the order of the vector's judgements
# `text` is all that the model was shown, the question included.
_PROMPTS = ("text", "question", "prompt")


def _fine_grained(record: dict, options: ReadOptions) -> list[Result]:
    name = next((name for name in _PROMPTS if record.get(name) is not None), "question")
    prompt = sides.check_side(record.get(name), name)
    answers = [sides.check_side(record.get(name), name) for name in _FOUR]
    vector, extras = record.get("preference"), sides.check_extras(record)
    if label.is_null(vector):
        raise BadRecord("null_label", "preference is null; judge the predictions or remove them")
    if not isinstance(vector, list) or len(vector) != len(_COMPARED):
        detail = f"preference is {clip(vector)}; it must be a list of six judgements, on the "
        detail += "predictions 1-2, 1-3, 1-4, 2-3, 2-4, 3-4"
        raise BadRecord("wrong_type", detail)

    def judged(number: int, first: int, second: int) -> Result:
        where = f"preference[{number}] (prediction {first + 1} or {second + 1})"
        code = _code(vector[number], where, (1, 2, 0))
        if code == 0:
            raise BadRecord("tie", f"{where} is 0, which means that neither is better")
        chosen, rejected = (first, second) if code == 1 else (second, first)
        return sides.make_pair(prompt, answers[chosen], answers[rejected], code == 1, extras)

    return [sides.attempt(judged, number, *two) for number, two in enumerate(_COMPARED)]


FORMATS: tuple[Format, ...] = (
    Format(
        name="arena-55k",
        matches=lambda record: {*_CELLS, *_ONE_HOT} <= record.keys(),
        plan=reading(_arena_55k, *_CELLS, *_ONE_HOT, *sides.EXTRAS),
        labels=Labels(owns=()),
        json_fields=JsonFields(structured=_CELLS),
    ),
    Format(
        name="summarize-from-feedback",
        matches=lambda record: {"info", "summaries", "choice"} <= record.keys(),
        plan=reading(_summaries, "info", "summaries", "choice", "worker", *sides.EXTRAS),
        json_fields=JsonFields(structured=("info", "summaries")),
    ),
    Format(
        name="fine-grained-rlhf",
        matches=lambda record: (
            {*_FOUR, "preference"} <= record.keys() and any(name in record for name in _PROMPTS)
        ),
        plan=reading(_fine_grained, *_PROMPTS, *_FOUR, "preference", *sides.EXTRAS),
        json_fields=JsonFields(structured=("preference",)),
    ),
)

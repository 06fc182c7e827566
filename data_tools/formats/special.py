"""Formats that no row describes: ms-swift, one-hot votes on battles, vectors of judgements."""

from itertools import combinations

from data_tools.formats import label, paths
from data_tools.formats.dialogues import check_dialogue, check_side, interleave
from data_tools.formats.format import Format, ReadOptions, reading
from data_tools.formats.sides import EXTRAS, attempt, check_extras, make_pair
from data_tools.record import BadRecord, Result, as_messages, clip

_REJECTED = ("rejected_response", "rejected_messages")
_CHOSEN = {"chosen_response", "chosen_messages", "chosen"}  # then messages does not end with it


def _is_ms_swift(record: dict) -> bool:
    named = "messages" in record and any(name in record for name in _REJECTED)
    return named and not _CHOSEN & record.keys()


def _ms_swift(record: dict, options: ReadOptions) -> list[Result]:
    """A pair of the answer that ends `messages` with each rejected one."""
    messages = check_dialogue(record.get("messages"), "messages")
    extras = check_extras(record)
    texts, rejected = (record.get(name) for name in _REJECTED)
    if rejected not in (None, "") and texts in (None, ""):
        rejected = check_dialogue(rejected, "rejected_messages")
        return [make_pair(None, messages, rejected, None, extras)]
    if rejected not in (None, ""):
        detail = "rejected_response and rejected_messages could both be meant; keep the right one"
        raise BadRecord("wrong_type", detail)
    if texts == []:
        detail = "rejected_response is an empty list; a pair needs a rejected answer"
        raise BadRecord("unpaired", detail)

    def pair(text: object, where: str) -> Result:
        paths.check(text, str, where, "text or a list of texts")
        answer = as_messages(text, "assistant")
        return make_pair(messages[:-1], messages[-1:], answer, None, extras)

    if not isinstance(texts, list):
        return [pair(texts, "rejected_response")]
    return [attempt(pair, text, f"rejected_response[{at}]") for at, text in enumerate(texts)]


_CELLS = ("prompt", "response_a", "response_b")
_ONE_HOT = {"winner_model_a": label.FIRST, "winner_model_b": label.SECOND, "winner_tie": label.TIE}


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
    dialogues = [interleave(questions, texts) for texts in replies]
    chosen, rejected = dialogues[winner], dialogues[1 - winner]
    return [make_pair(None, chosen, rejected, winner == label.FIRST, check_extras(record))]


def _texts(record: dict, name: str) -> list[str]:
    """The texts of a cell that holds a JSON list of them. Raises BadRecord."""
    texts = paths.parse_json(record.get(name), name)
    paths.check(texts, list, name, 'a list of texts, such as ["Hello"]')
    return [paths.check(text, str, f"{name}[{number}]") for number, text in enumerate(texts)]


def _one_hot(record: dict) -> int | None:
    """The outcome whose column is 1. Raises BadRecord."""
    given = [name for name in _ONE_HOT if not label.is_null(record.get(name))]
    won = [name for name in given if label.score(record[name], name) != 0]
    if not won:
        raise BadRecord("null_label", f"none of {', '.join(_ONE_HOT)} is 1; set the one that won")
    if len(won) > 1 or label.score(record[won[0]], won[0]) != 1:
        detail = f"{' and '.join(won)} must be 0 or 1, and only one of them can be 1"
        raise BadRecord("unknown_label", detail)
    return _ONE_HOT[won[0]]


_FOUR = tuple(f"prediction_{number}" for number in (1, 2, 3, 4))
_COMPARED = tuple(combinations(range(4), 2))  # in the order of the vector's judgements
# `text` is all that the model was shown, the question included.
_PROMPTS = ("text", "question", "prompt")


def _fine_grained(record: dict, options: ReadOptions) -> list[Result]:
    name = next((name for name in _PROMPTS if record.get(name) is not None), "question")
    prompt = check_side(record.get(name), name)
    answers = [check_side(record.get(name), name) for name in _FOUR]
    vector, extras = record.get("preference"), check_extras(record)
    if label.is_null(vector):
        raise BadRecord("null_label", "preference is null; judge the predictions or remove them")
    if not isinstance(vector, list) or len(vector) != len(_COMPARED):
        raise BadRecord(
            "wrong_type",
            f"preference is {clip(vector)}; it must be a list of six judgements, on the "
            "predictions 1-2, 1-3, 1-4, 2-3, 2-4, 3-4",
        )

    def judged(number: int, first: int, second: int) -> Result:
        won = label.outcome(vector[number], (_FOUR[first], _FOUR[second]), numbers=label.ordinal)
        if won is None:
            detail = f"preference[{number}] means that neither is better"
            raise BadRecord("tie", f"{detail} of predictions {first + 1} and {second + 1}")
        chosen, rejected = (second, first) if won else (first, second)
        return make_pair(prompt, answers[chosen], answers[rejected], not won, extras)

    return [attempt(judged, number, *two) for number, two in enumerate(_COMPARED)]


FORMATS: tuple[Format, ...] = (
    Format(
        name="ms-swift",
        matches=_is_ms_swift,
        plan=reading(_ms_swift, "messages", *_REJECTED, *EXTRAS),
        structured=("messages", "rejected_messages"),
    ),
    Format(
        name="arena-55k",
        matches=lambda record: {*_CELLS, *_ONE_HOT} <= record.keys(),
        plan=reading(_arena_55k, *_CELLS, *_ONE_HOT, *EXTRAS),
    ),
    Format(
        name="fine-grained-rlhf",
        matches=lambda record: (
            {*_FOUR, "preference"} <= record.keys() and any(name in record for name in _PROMPTS)
        ),
        plan=reading(_fine_grained, *_PROMPTS, *_FOUR, "preference", *EXTRAS),
        structured=("preference",),
    ),
)

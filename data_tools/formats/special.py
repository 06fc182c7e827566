"""Formats that no row describes: lists of answers, one-hot votes, judgement vectors, and trees."""

from itertools import combinations

from data_tools.formats import label, paths
from data_tools.formats.dialogues import check_dialogue, check_side, interleave, is_dialogue
from data_tools.formats.format import Format, ReadOptions, reading
from data_tools.formats.sides import (
    EXTRAS,
    NO_EXTRAS,
    attempt,
    check_extras,
    make_pair,
    ranked_pairs,
)
from data_tools.record import BadRecord, Message, Result, TreeMessage, as_messages, clip

_REJECTED = ("rejected_response", "rejected_messages")
_CHOSEN = {"chosen_response", "chosen_messages", "chosen"}  # then messages does not end with it


def _is_ms_swift(record: dict) -> bool:
    named = "messages" in record and any(name in record for name in _REJECTED)
    return named and not _CHOSEN & record.keys()


def _ms_swift(record: dict, options: ReadOptions) -> list[Result]:
    """A pair of the answer that ends `messages` with each rejected one."""
    messages = check_dialogue(record.get("messages"), "messages")
    extras = check_extras(record)
    given = [name for name in _REJECTED if record.get(name) not in (None, "")]
    if len(given) > 1:
        detail = f"{' and '.join(given)} could both be meant; keep the right one"
        raise BadRecord("wrong_type", detail)
    (name,) = given or _REJECTED[:1]
    rejected = record.get(name)
    if name == "rejected_messages":
        return [make_pair(None, messages, check_dialogue(rejected, name), None, extras)]
    if is_dialogue(rejected):  # they replace all turns after the last one of the user
        answer = as_messages(check_side(rejected, name), "assistant")
        users = [at for at, turn in enumerate(messages, start=1) if turn["role"] == "user"]
        dialogue = [*messages[: max(users, default=0)], *answer]
        return [make_pair(None, messages, dialogue, None, extras)]

    def pair(text: object, where: str) -> Result:
        text = paths.check(text, str, where, "text, messages or a list of texts")
        answer = as_messages(text, "assistant")
        return make_pair(messages[:-1], messages[-1:], answer, None, extras)

    if not isinstance(rejected, list):
        return [pair(rejected, name)]
    if not rejected:
        raise BadRecord("unpaired", f"{name} is an empty list; a pair needs a rejected answer")
    return [attempt(pair, text, f"{name}[{at}]") for at, text in enumerate(rejected)]


def _open_webui(record: dict, options: ReadOptions) -> list[Result]:
    """The rated answer over each other one to the same message, or below each of them."""
    chat, _ = paths.find(record, "snapshot.chat.chat")
    messages, where = paths.find(record, "snapshot.chat.chat.history.messages")
    paths.check(messages, dict, where)

    def message(key: object, where: str) -> dict:
        key = paths.check(key, str, where, "the id of a message")
        return paths.check(messages.get(key), dict, f"the message {key} ({where})")

    rating = label.score(*paths.find(record, "data.rating"))
    if abs(rating) != 1:
        raise BadRecord("unknown_label", f"data.rating is {rating:g}; it must be 1 or -1")
    own, where = paths.find(record, "meta.message_id")
    turns = [message(own, where)]
    while (key := turns[0].get("parentId")) is not None and len(turns) <= len(messages):
        turns.insert(0, message(key, "parentId"))
    if key is not None or any(turn.get("files") for turn in turns):
        raise BadRecord("wrong_type", "its messages have files or go in a circle; remove it")
    parent = message(turns[-1].get("parentId"), "parentId")
    siblings = paths.check(parent.get("childrenIds"), list, "childrenIds")
    *turns, rated = check_dialogue(turns, where)
    params = paths.check(chat.get("params") or {}, dict, "params")
    extras = check_extras({"system": params.get("system")} | record)

    def pair(other: object) -> Result:
        two = [[rated], check_side(message(other, "childrenIds"), "the other answer")]
        return make_pair(turns, *two[:: int(rating)], None, extras)

    others = [key for key in siblings if key != own]
    if not others:
        raise BadRecord("unpaired", "there is no other answer to the message; a pair needs two")
    return [attempt(pair, key) for key in others]


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
    wanted = "a list of six judgements, on the predictions 1-2, 1-3, 1-4, 2-3, 2-4, 3-4"
    judgements = paths.check(vector, list, "preference", wanted)
    if len(judgements) != len(_COMPARED):
        raise BadRecord("wrong_type", f"preference is {clip(vector)}; it must be {wanted}")

    def judged(number: int, first: int, second: int) -> Result:
        won = label.outcome(
            judgements[number], (_FOUR[first], _FOUR[second]), numbers=label.ordinal
        )
        if won is None:
            detail = f"preference[{number}] means that neither is better"
            detail += f" of predictions {first + 1} and {second + 1}"
            raise BadRecord("tie", f"{detail}; remove the pair, or name the better one")
        chosen, rejected = (second, first) if won else (first, second)
        return make_pair(prompt, answers[chosen], answers[rejected], not won, extras)

    return [attempt(judged, number, *two) for number, two in enumerate(_COMPARED)]


_SPEAKERS = {"prompter": "user", "assistant": "assistant"}


def _tree(record: dict, options: ReadOptions) -> list[Result]:
    """The pairs below every message with two answers, or the one fault of these answers.

    Open Assistant's trees may be deep, so nothing here recurses.
    """
    root = paths.check(record.get("prompt"), dict, "prompt", "a message with text and replies")
    found: list[Result] = []
    stack: list[list[object]] = [[root]]  # messages, each with those before it
    while stack:
        dialogue = stack.pop()
        replies = dialogue[-1].get("replies") if isinstance(dialogue[-1], dict) else None
        try:
            replies = paths.check(replies or [], list, "the replies of a message")
            found += _compared(dialogue, replies, options)
        except BadRecord as fault:
            found.append(fault)
        if isinstance(replies, list):
            stack += [[*dialogue, reply] for reply in reversed(replies)]
    if not found:
        detail = "no message of this tree has two assistant replies to compare; remove it"
        raise BadRecord("unpaired", detail)
    return found


def _tree_message(value: object) -> Message:
    """The message as role and content. Raises BadRecord."""
    value = paths.check(value, dict, "a message", "an object with text and role")
    text, role = (
        paths.check(value.get(name), str, f"the {name} of a message") for name in ("text", "role")
    )
    if role not in _SPEAKERS:
        known = " and ".join(_SPEAKERS)
        raise BadRecord("bad_roles", f"a message is from {clip(role)}; known are {known}")
    return {"role": _SPEAKERS[role], "content": text}


def _compared(dialogue: list[object], replies: list[object], options: ReadOptions) -> list[Result]:
    """The pairs of the ranked replies to the last message of a dialogue. Raises BadRecord.

    A faulty reply is among those that were ranked: it makes their order unknown.
    """
    answers = [r for r in replies if not isinstance(r, dict) or r.get("role") != "prompter"]
    if len(answers) < 2:
        return []
    prompt = [_tree_message(message) for message in dialogue]
    messages = [[_tree_message(answer)] for answer in answers]
    given = enumerate(answers, start=1)
    ranks = [label.rank(answer.get("rank"), f"the rank of reply {at}") for at, answer in given]
    return ranked_pairs(prompt, messages, NO_EXTRAS, ranks, options)


def _flat(record: dict, options: ReadOptions) -> list[Result]:
    """One message of a tree whose other messages are in other records."""
    key = record.get("message_id")
    paths.check(None if key == "" else key, str, "message_id")
    parent = record.get("parent_id")
    if parent is not None:
        paths.check(parent, str, "parent_id", "text or null")
    rank = record.get("rank")
    is_ranked = record.get("role") == "assistant" and not label.is_null(rank)
    score = label.score(rank, "rank") if is_ranked else None
    return [TreeMessage(key, parent or None, _tree_message(record), score)]


FORMATS: tuple[Format, ...] = (
    Format("ms-swift", _is_ms_swift, plan=reading(_ms_swift, "messages", *_REJECTED, *EXTRAS)),
    Format(
        "open-webui",
        matches=lambda record: {"data", "meta", "snapshot"} <= record.keys(),
        plan=reading(_open_webui, "data", "meta", "snapshot", *EXTRAS),
    ),
    Format(
        "arena-55k",
        matches=lambda record: {*_CELLS, *_ONE_HOT} <= record.keys(),
        plan=reading(_arena_55k, *_CELLS, *_ONE_HOT, *EXTRAS),
    ),
    Format(
        "fine-grained-rlhf",
        matches=lambda record: (
            {*_FOUR, "preference"} <= record.keys() and any(name in record for name in _PROMPTS)
        ),
        plan=reading(_fine_grained, *_PROMPTS, *_FOUR, "preference", *EXTRAS),
    ),
    Format(
        "oasst-tree",
        matches=lambda record: "prompt" in record and paths.holds(record["prompt"], "replies"),
        plan=reading(_tree, "prompt"),
        traits=("ranked",),
    ),
    Format(
        "oasst-flat",
        matches=lambda record: (
            {"message_id", "text", "role"} <= record.keys()
            and ("parent_id" in record or "message_tree_id" in record)
        ),
        plan=reading(_flat, "message_id", "parent_id", "text", "role", "rank"),
        traits=("ranked",),
    ),
)

"""Dialogues as trainers and vendors write them: their turns, and formats of whole transcripts.

Turns are messages, ShareGPT's {from, value}, Gemini's {role, parts}, or marked in a text as in
Anthropic's HH transcripts and in ChatML.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from data_tools.formats import paths, sides
from data_tools.formats.format import Format, JsonFields, ReadOptions, reading
from data_tools.record import BadRecord, Message, Result, Side, as_messages, clip, first_by_reason


@dataclass(frozen=True)
class Dialect:
    """How a format writes its sides. Each function takes a value and where it is in the record.

    With `prompt_is_json`, a cell of a table holds the prompt as JSON. `join` makes the sides of a
    pair of the prompt and two answers.
    """

    prompt: Callable[[object, str], Side] = sides.check_side
    answer: Callable[[object, str], Side] = sides.check_side
    system: Callable[[object, str], str] = paths.check_text
    prompt_is_json: bool = False
    join: Callable[..., sides.Sides] = sides.join_sides


def _text_or_dialogue(value: object, where: str) -> list[Message]:
    """A history; a text is the user's."""
    return (
        as_messages(value, "user") if isinstance(value, str) else sides.check_dialogue(value, where)
    )


_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_SHAREGPT_ROLES |= {"system": "system", "observation": "tool", "tool": "tool"}


def _sharegpt_turn(turn: object, where: str) -> Message:
    turn = paths.check_object(turn, where, "an object with from and value")
    for name in ("from", "value"):
        paths.check_text(turn.get(name), f"{name} of {where}")
    role = _SHAREGPT_ROLES.get(turn["from"])
    if role is None:
        known = ", ".join(sorted(_SHAREGPT_ROLES))
        raise BadRecord("bad_roles", f"{where} is from {clip(turn['from'])}; known are {known}")
    for name in ("role", "content"):
        if turn.get(name) is not None:
            detail = f"{where} has {name} next to from and value; keep one kind"
            raise BadRecord("wrong_type", detail)
    more = {name: value for name, value in turn.items() if name not in ("from", "value")}
    return more | {"role": role, "content": turn["value"]}


def _sharegpt_turns(value: object, where: str) -> list[Message]:
    turns = enumerate(paths.check_list(value, where, "a list of turns"))
    return [_sharegpt_turn(turn, f"{where}[{number}]") for number, turn in turns]


def _sharegpt_answer(value: object, where: str) -> Side:
    """One turn, or a text, as some published files hold."""
    return value if isinstance(value, str) else [_sharegpt_turn(value, where)]


def _gemini_contents(value: object, where: str) -> list[Message]:
    contents = enumerate(paths.check_list(value, where, "a list of contents"))
    return [_gemini_content(content, f"{where}[{number}]") for number, content in contents]


def _gemini_content(content: object, where: str, role: str | None = None) -> Message:
    """One content as a message, of `role` where it names none."""
    content = paths.check_object(content, where, "an object with parts")
    given = content.get("role")
    role = paths.check_text(role if given is None else given, f"the role of {where}")
    parts = enumerate(paths.check_list(content.get("parts"), f"{where}.parts"))
    texts = [_gemini_text(part, f"{where}.parts[{number}]") for number, part in parts]
    return {"role": "assistant" if role == "model" else role, "content": "".join(texts)}


def _gemini_text(part: object, where: str) -> str:
    part = paths.check_object(part, where, "an object with text")
    if other := [kind for kind in part if kind != "text" and part[kind] is not None]:
        detail = f"{where} holds {clip(other[0])}; only text can be trained on here"
        raise BadRecord("wrong_type", f"{detail}; remove the record")
    return paths.check_text(part.get("text"), f"{where}.text")


def _gemini_answer(content: object, where: str) -> list[Message]:
    return [_gemini_content(content, where, "model")]


def _gemini_system(value: object, where: str) -> str:
    return value if isinstance(value, str) else _gemini_content(value, where, "system")["content"]


Turns = Callable[[str], list[Message] | None]

_HH_TURN = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Hum|Assistant):[ ]?")
_HH_ROLES = {"Human": "user", "Hum": "user", "Assistant": "assistant"}
_CHATML_TURN = re.compile(r"<\|im_start\|>(\w+)\r?\n(.*?)(?:<\|im_end\|>(?:\r?\n)?|\Z)", re.DOTALL)


def _hh_turns(text: str) -> list[Message] | None:
    """The turns of a Human/Assistant transcript; None for other text. A marker ends in a space."""
    marks = list(_HH_TURN.finditer(text))
    if not marks or marks[0].start() != 0:
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": _HH_ROLES[mark.group(1)], "content": text[mark.end() : end]}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _chatml_turns(text: str) -> list[Message] | None:
    """The turns of a ChatML text; None where it has none, or other text between them."""
    turns, end = [], 0
    for mark in _CHATML_TURN.finditer(text):
        if text[end : mark.start()].strip():
            return None
        turns.append({"role": mark.group(1), "content": mark.group(2)})
        end = mark.end()
    return turns if turns and not text[end:].strip() else None


def _hh_prompt(value: object, where: str) -> Side:
    """A side; a marked transcript loses the last marker, which only asks for the answer."""
    prompt = sides.check_side(value, where)
    turns = _hh_turns(prompt) if isinstance(prompt, str) else None
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip():
        turns.pop()
    return turns or prompt


def _transcript(turns: Turns, marker: str) -> Callable[[object, str], Side]:
    """Reads a whole dialogue that is messages or a text with turn markers."""

    def read(value: object, where: str) -> Side:
        side = sides.check_side(value, where)
        dialogue = turns(side) if isinstance(side, str) else side
        if dialogue is None:
            detail = f"{where} does not begin with a turn marker ({marker}), so it has no prompt"
            raise BadRecord("missing_field", f"{detail}; add it")
        return dialogue

    return read


MESSAGES = Dialect()
HISTORY = Dialect(sides.check_dialogue, prompt_is_json=True, join=sides.keep_sides)
AXOLOTL = Dialect(_text_or_dialogue, prompt_is_json=True, join=sides.keep_sides)
SHAREGPT = Dialect(_sharegpt_turns, _sharegpt_answer, prompt_is_json=True, join=sides.keep_sides)
GEMINI = Dialect(_gemini_contents, _gemini_answer, _gemini_system, prompt_is_json=True)
HH = Dialect(answer=_transcript(_hh_turns, r"\n\nHuman:"), join=sides.split_at_answer)
CHATML = Dialect(answer=_transcript(_chatml_turns, "<|im_start|>"), join=sides.split_at_answer)
NECTAR = Dialect(prompt=_hh_prompt)

PROMPTS = ("prompt", "question", "instruction", "query", "input", "conversations")
"""Fields of a prompt: a record that has one holds no whole dialogues."""

_SIDES = ("chosen", "rejected")


def holds_dialogue(record: dict) -> bool:
    """Whether chosen or rejected is a whole dialogue, not only an answer to `messages`."""
    has_history = any(_has_history(record[name]) for name in _SIDES)
    return has_history or holds_hh(record) or holds_chatml(record)


def _holds_text(turns: Turns, record: dict) -> bool:
    """Whether chosen or rejected is a text with such turns."""
    return any(isinstance(record[name], str) and turns(record[name]) for name in _SIDES)


holds_hh, holds_chatml = partial(_holds_text, _hh_turns), partial(_holds_text, _chatml_turns)


def holds_messages(record: dict) -> bool:
    """Whether chosen or rejected is messages, with a history where `messages` is a field too."""
    values = [record[name] for name in _SIDES]
    if "messages" in record:
        return any(map(_has_history, values))
    return any(isinstance(side, list | dict) for side in values)


def _has_history(side: object) -> bool:
    """Whether a side is a list of messages that does not begin with the assistant."""
    first = side[0] if isinstance(side, list) and side else None
    return isinstance(first, dict) and first.get("role") != "assistant"


_REJECTED = ("rejected_response", "rejected_messages")
_CHOSEN = {"chosen_response", "chosen_messages", "chosen"}  # then messages does not end with it


def _is_ms_swift(record: dict) -> bool:
    named = "messages" in record and any(name in record for name in _REJECTED)
    return named and not _CHOSEN & record.keys()


def _ms_swift(record: dict, options: ReadOptions) -> list[Result]:
    """A pair of the answer that ends `messages` with each rejected one."""
    messages = sides.check_dialogue(record.get("messages"), "messages")
    if paths.given(record, _REJECTED) == "rejected_messages":
        rejected = sides.check_dialogue(record["rejected_messages"], "rejected_messages")
        return [sides.pair_from(record, *sides.split_dialogues(messages, rejected))]
    if not messages or messages[-1]["role"] != "assistant":
        detail = "messages does not end with the assistant; add the chosen answer at its end"
        raise BadRecord("bad_roles", detail)
    texts = record.get("rejected_response")
    if texts == []:
        detail = "rejected_response is an empty list; a pair needs a rejected answer"
        raise BadRecord("unpaired", detail)

    def pair(text: object, where: str) -> Result:
        answer = as_messages(paths.check_text(text, where, "text or a list of texts"), "assistant")
        return sides.pair_from(record, messages[:-1], messages[-1:], answer)

    if not isinstance(texts, list):
        return [pair(texts, "rejected_response")]
    found = [
        sides.attempt(pair, text, f"rejected_response[{number}]")
        for number, text in enumerate(texts)
    ]
    if all(isinstance(result, BadRecord) for result in found):
        raise first_by_reason(found)
    return found


FORMATS: tuple[Format, ...] = (
    Format(
        name="ms-swift",
        matches=_is_ms_swift,
        plan=reading(_ms_swift, "messages", *_REJECTED, *sides.EXTRAS),
        json_fields=JsonFields(structured=("messages", "rejected_messages")),
    ),
)

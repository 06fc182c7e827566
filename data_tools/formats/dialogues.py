"""Sides as text or messages, as trainers and vendors write them, and where a dialogue splits.

Messages are {role, content}, ShareGPT's {from, value} or Gemini's {role, parts}; a text may mark
its turns as Anthropic's HH transcripts and ChatML do.
"""

import re
from contextlib import suppress

from data_tools.formats.paths import JsonCell, check, parse_json
from data_tools.keys import shown
from data_tools.record import BadRecord, Message, Side, as_messages, clip

PROMPTS = ("prompt", "question", "instruction", "query", "input")
"""Fields of a prompt."""

_ALIASES = {
    "user": "user human hum prompter [inst]",
    "assistant": "assistant gpt model bot chatbot ai chatgpt function_call tool_call [/inst]",
    "tool": "tool observation tool_response function",
    "system": "system",
    "developer": "developer",
}
_ROLES = {alias: role for role, aliases in _ALIASES.items() for alias in aliases.split()}
_CALLS = ("function_call", "tool_call")  # roles of assistant turns that hold a call as JSON
MESSAGE_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content")
"""What a chat template may show of a message besides its role and content."""

_KINDS = (("role", "content"), ("from", "value"), ("role", "parts"), ("from", "content"))
"""Where a message says who speaks, and what: as OpenAI, ShareGPT, Gemini and ColossalChat do."""
_TURNS = (*map(set, _KINDS), {"role", "tool_calls"})
_TEXT_BLOCKS = ("text", "value")  # where a text block holds its text
_MARKERS = {
    "hh": re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Hum|Assistant):[ ]?"),
    "chatml": re.compile(r"(?:\A\s*|<\|im_end\|>\s*)<\|im_start\|>(\w+)\r?\n"),
    "llama": re.compile(
        r"(?:\A\s*(?:<\|begin_of_text\|>)?|<\|eot_id\|>\s*)"
        r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*"
        r"|\s*(?:</s>)?\s*(?:<s>)?\s*(\[/?INST\])\s*"
    ),
}
"""What begins each turn of a transcript, with the role."""
_END = re.compile(r"(?:<\|im_end\|>|<\|eot_id\|>|\s*</s>)\s*\Z")
_LLAMA_SYSTEM = re.compile(r"<<SYS>>\s*(.*?)\s*<</SYS>>\s*", re.DOTALL)
_DIFFER = (
    "the two dialogues differ before the answer (turn {}), so they do not compare two answers to "
    "one prompt; remove the record or fix its history"
)


def check_side(value: object, where: str) -> Side:
    """A side as text or a list of clean messages. Raises BadRecord."""
    if type(value) is JsonCell:
        value = parse_json(value, where, is_dialogue)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict) and "base64" not in value:  # one message, perhaps without a role
        value = [{"role": "model"} | value if {"parts", "preferenceLabel"} & {*value} else value]
    return check_dialogue(value, where, "text or messages")


def check_dialogue(value: object, where: str, wanted: str = "a list of messages") -> list[Message]:
    """The messages, each with a role and a text as its content. Raises BadRecord."""
    checked = []
    for message in check(value, list, where, wanted):
        if not isinstance(message, dict):
            raise BadRecord("wrong_type", f"{where} is {clip(value)}; it must be {wanted}")
        role, content = message.get("role"), message.get("content")
        is_plain = type(content) is str and type(role) is str and role in _ALIASES
        if not is_plain or len(message) > 2:
            message = _message(message, f"message {len(checked) + 1} of {where}")
        checked.append(message)
    return checked


def _message(message: dict, where: str) -> Message:
    """The message as role and content, with the text blocks of its content joined."""
    # Without `from`, `value` is something else.
    given = [kind for kind in _KINDS if None not in map(message.get, kind)]
    if any(message[text] != message[given[0][1]] for _, text in given):
        both = " and ".join(dict.fromkeys(text for _, text in given))
        raise BadRecord("wrong_type", f"{where} has both {both}, which differ; keep the right one")
    # What is null is named where nothing else is there, and before what misses its other half.
    names = max(_KINDS, key=lambda kind: (kind in given, kind[1] in message, kind[0] in message))
    role, content = message.get(names[0]), message.get(names[1])
    check(role, str, f"the {names[0]} of {where}")
    if isinstance(content, list):
        content = "".join(_block_text(block, where) for block in content)
    elif content is not None or not message.get("tool_calls"):
        check(content, str, f"the {names[1]} of {where}")
    if role.strip().casefold() in _CALLS:
        content, more = None, {"tool_calls": _calls(content, where)}
    else:
        more = {key: message[key] for key in MESSAGE_KEYS if message.get(key) is not None}
    return {"role": role_of(role), "content": content, **more}


def role_of(name: str) -> str:
    """The role that an alias in any capitals means; another word as it is."""
    return _ROLES.get(name.strip().casefold(), name)


def _calls(content: str, where: str) -> list[dict]:
    """The tool calls that a turn holds as JSON, one or a list of them. Raises BadRecord."""
    calls = parse_json(content, where)
    calls = calls if isinstance(calls, list) else [calls]
    for call in calls:
        check(check(call, dict, where, "a call as JSON").get("name"), str, f"the name of {where}")
    return [{"type": "function", "function": call} for call in calls]


def metadata(value: object) -> set[str]:
    """The keys of the messages in a value that are neither content nor stored."""
    found: set[str] = set()
    messages = value if type(value) is list else [value]
    for message in [m for m in messages if type(m) is dict and len(m) > 2]:
        kind = next((names for names in _KINDS if {*names} <= message.keys()), ())
        known = {*kind, *MESSAGE_KEYS, "role", "content"} if kind else message.keys()
        found |= {key for key in message.keys() - known if message[key] is not None}
    return found


def _block_text(block: object, where: str) -> str:
    """The text of a block: a text, or an object that names its type or has nothing but text."""
    if isinstance(block, str):
        return block
    kind = block
    if isinstance(block, dict):
        others = [key for key in block if key not in _TEXT_BLOCKS and block[key] is not None]
        kind = block.get("type") or next(iter(others), "text")
    if kind not in ("text", "input_text", "output_text"):
        raise BadRecord(
            "wrong_type",
            f"{where} holds a block of type {clip(kind)}; only text blocks can be trained on here; "
            "remove the record",
        )
    text = next((block[key] for key in _TEXT_BLOCKS if block.get(key) is not None), None)
    return check(text, str, f"the text of a block of {where}")


def is_dialogue(value: object) -> bool:
    """Whether a value is a message or a list of messages."""
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(
        isinstance(turn, dict) and any(names <= turn.keys() for names in _TURNS) for turn in turns
    )


def is_earlier(value: object) -> bool:
    """Whether a value is messages or a list of [question, answer]. Raises BadRecord."""
    value = parse_json(value, "the history")
    return is_dialogue(value) or isinstance(value, list) and list in map(type, value)


def marked_turns(text: Side) -> tuple[str, list[Message]]:
    """The kind of markers that a text begins with, and its turns; `text` and none without any."""
    if not isinstance(text, str):
        return "messages", []
    for kind, marker in _MARKERS.items():
        if marker.match(text):
            marks = [*marker.finditer(text)]
            end = _END.search(text) if kind != "hh" else None
            ends = [mark.start() for mark in marks[1:]] + [end.start() if end else len(text)]
            turns = [
                {"role": role_of(mark[mark.lastindex]), "content": text[mark.end() : end]}
                for mark, end in zip(marks, ends, strict=True)
            ]
            if kind == "llama" and (system := _LLAMA_SYSTEM.match(turns[0]["content"])):
                turns[0]["content"] = turns[0]["content"][system.end() :]
                turns.insert(0, {"role": "system", "content": system[1]})
            return kind, turns
    return "text", []


def transcript(text: Side) -> list[Message]:
    """The turns of a text that is a whole dialogue by its markers; none for any other."""
    turns = marked_turns(text)[1]
    return turns if [turn["role"] for turn in turns[-2:]] == ["user", "assistant"] else []


def transcript_prompt(value: object, where: str) -> Side:
    """A side; a marked transcript loses the last marker, which only asks for the answer."""
    prompt = check_side(value, where)
    *before, last = as_messages(prompt, "user") or [{"content": ""}]
    turns = marked_turns(last["content"] or "")[1]
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip():
        turns.pop()
    return [*before, *turns] if turns else prompt


def kinds(record: dict) -> set[str]:
    """The kinds of chosen and rejected, `prompted` next to a prompt: then neither is whole.

    A text is `hh` or `chatml` where it has such turns, else `text`; messages that do not begin with
    the assistant are a `dialogue`, others `messages`.
    """
    has_context = "messages" not in record and is_dialogue(record.get("context"))
    if has_context or any(name in record for name in (*PROMPTS, "conversations")):
        return {"prompted"}
    return {kind(record[name]) for name in ("chosen", "rejected")}


def kind(side: object) -> str:
    """The kind of one side, see `kinds`."""
    if isinstance(side, JsonCell):
        with suppress(BadRecord):
            side = parse_json(side, "", is_dialogue)
    if isinstance(side, str):
        return marked_turns(side)[0]
    first = side[0] if isinstance(side, list) and side else None
    if isinstance(first, dict) and first.get("role") != "assistant":
        return "dialogue"
    return "messages" if isinstance(side, list | dict) else ""


def split_dialogues(
    chosen: Side, rejected: Side
) -> tuple[list[Message], list[Message], list[Message]]:
    """Split two whole dialogues into (prompt, chosen answer, rejected answer). Raises BadRecord.

    The prompt is the history that both share, at least up to the last user turn; it includes
    shared tool turns as long as both answers still begin with the assistant. The answer of a
    transcript is its last turn alone.
    """
    are_texts = isinstance(chosen, str) and isinstance(rejected, str)
    chosen, rejected = _turns(chosen), _turns(rejected)
    roles = [message["role"] for message in (*chosen[-2:], *rejected[-1:])]
    if roles == ["user", "assistant", "assistant"] and chosen[:-1] == rejected[:-1]:
        return chosen[:-1], chosen[-1:], rejected[-1:]  # most dialogues
    ends = [_after_last_user(side) for side in (chosen, rejected)]
    if 0 in ends:
        raise BadRecord("bad_roles", "a dialogue has no user turn, so it has no prompt")
    first, second = (-1, -1) if are_texts else ends
    shared = _shared_turns(chosen[:first], rejected[:second])
    if shared < max(len(chosen[:first]), len(rejected[:second])):
        raise BadRecord("history_mismatch", _DIFFER.format(shared + 1))
    cut = min(_shared_turns(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    while cut > ends[0] and {chosen[cut]["role"], rejected[cut]["role"]} != {"assistant"}:
        cut -= 1
    cut = max(cut, ends[0])
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _turns(side: Side) -> list[Message]:
    """The messages of a whole dialogue, of a text by its markers. Raises BadRecord."""
    turns = marked_turns(side)[1] if isinstance(side, str) else side
    if not turns and isinstance(side, str):
        raise BadRecord(
            "missing_field",
            f"there is no prompt: {clip(side)} is text that does not begin with a turn marker "
            "(\\n\\nHuman: or <|im_start|>); add the prompt",
        )
    return turns


def _after_last_user(side: list[Message]) -> int:
    return max((i + 1 for i, message in enumerate(side) if message["role"] == "user"), default=0)


def _shared_turns(first: list, second: list) -> int:
    two = enumerate(zip(first, second, strict=False))
    different = (
        at for at, (a, b) in two if a != b and (a["role"] != b["role"] or shown(a) != shown(b))
    )
    return next(different, min(len(first), len(second)))


def same_turns(first: list[Message], second: list[Message]) -> bool:
    """Whether two dialogues are equal except for white space and Unicode form."""
    return len(first) == len(second) == _shared_turns(first, second)


def has_turns(side: list[Message], turns: list[Message]) -> bool:
    """Whether the turns are somewhere in a dialogue."""
    starts = range(len(side) - len(turns) + 1)
    return any(same_turns(side[at : at + len(turns)], turns) for at in starts)


def last_answer(side: Side) -> tuple[list[Message], bool]:
    """The answer that a side is or ends with, and whether the side is a whole dialogue."""
    turns = transcript(side) or as_messages(side, "assistant")
    is_whole = bool(turns) and turns[0]["role"] != "assistant"
    return turns[_after_last_user(turns) if is_whole else 0 :], is_whole


def first_turns(side: Side, count: int) -> Side:
    """The dialogue up to the answer to the user turn of this number; text as it is."""
    users = [at for at, turn in enumerate(as_messages(side, "")) if turn["role"] == "user"]
    return side[: users[count]] if count < len(users) else side


def interleave(questions: list[str], answers: list[str]) -> list[Message]:
    """The turns of a dialogue from its questions and answers."""
    turns = []
    for question, answer in zip(questions, answers, strict=True):
        turns += as_messages(question, "user") + as_messages(answer, "assistant")
    return turns

"""Sides of a pair as text or messages: checked, and dialogues split into prompt and answers."""

import json

from data_tools.record import Fault, Message, Side, clip
from data_tools.side import as_messages

_TEXT_BLOCKS = ("text", "value")  # where a text block holds its text


def check_side(value: object, name: str) -> Side | Fault:
    """A side as text or a list of clean messages; `name` is the field, for the message."""
    if isinstance(value, str):
        return value
    if value is None:
        return Fault("missing_field", f"{name} is missing or null; give it a text")
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return Fault(
            "wrong_type", f"{name} is {clip(value)}; it must be text or a list of messages"
        )
    return check_messages(value, name)


def check_messages(messages: list[dict], name: str) -> list[Message] | Fault:
    """The same messages with block contents of text joined, or the first fault among them."""
    checked = []
    for number, message in enumerate(messages, start=1):
        where = f"message {number} of {name}"
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            word = "missing_field" if role is None else "wrong_type"
            return Fault(word, f"{where} has no role that is text ({clip(role)})")
        if isinstance(content, list):
            content = _join_blocks(content, where)
            if isinstance(content, Fault):
                return content
        elif content is None and not message.get("tool_calls"):
            return Fault("missing_field", f"{where} has no content; give it a text")
        elif not isinstance(content, str | None):
            return Fault("wrong_type", f"the content of {where} is {clip(content)}, not text")
        checked.append({**message, "content": content})
    return checked


def _join_blocks(blocks: list, where: str) -> str | Fault:
    texts = []
    for block in blocks:
        kind = block.get("type", "text") if isinstance(block, dict) else None
        if kind != "text":
            return Fault(
                "wrong_type",
                f"{where} holds a block of type {clip(kind or block)}; only text blocks can be "
                "trained on here",
            )
        text = next((block[key] for key in _TEXT_BLOCKS if isinstance(block.get(key), str)), None)
        if text is None:
            return Fault("wrong_type", f"a text block of {where} holds no text")
        texts.append(text)
    return "".join(texts)


def split_dialogues(
    chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]] | Fault:
    """Two whole dialogues as (prompt, chosen answer, rejected answer).

    The prompt is the history that both share, up to the last user turn at least; it grows over
    shared tool turns while both rests still begin with the assistant.
    """
    ends = [_after_last_user(side) for side in (chosen, rejected)]
    if 0 in ends:
        return Fault("bad_roles", "a dialogue has no user turn, so it has no prompt")
    if chosen[: ends[0]] != rejected[: ends[1]]:
        return Fault("history_mismatch", _history_detail(chosen[: ends[0]], rejected[: ends[1]]))
    cut = _common(chosen, rejected)
    cut = min(cut, len(chosen) - 1, len(rejected) - 1)
    while cut > ends[0] and {chosen[cut]["role"], rejected[cut]["role"]} != {"assistant"}:
        cut -= 1
    cut = max(cut, ends[0])
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _after_last_user(side: list[Message]) -> int:
    return max((i + 1 for i, message in enumerate(side) if message["role"] == "user"), default=0)


def _common(first: list, second: list) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _history_detail(first: list, second: list) -> str:
    at = _common(first, second) + 1
    return (
        f"the two dialogues differ before the answer (turn {at}), so they do not compare two "
        "answers to one prompt; leave the record out or mend its history"
    )


def join_sides(prompt: Side, chosen: Side, rejected: Side) -> tuple[Side, Side, Side] | Fault:
    """One explicit prompt and two answers, all text or all messages.

    Answers that are whole dialogues lose the turns that they share with the prompt.
    """
    if all(isinstance(side, str) for side in (prompt, chosen, rejected)):
        return prompt, chosen, rejected
    chosen, rejected = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    whole = [bool(side) and side[0]["role"] != "assistant" for side in (chosen, rejected)]
    if not any(whole):
        return as_messages(prompt, "user"), chosen, rejected
    if not all(whole):
        return Fault(
            "history_mismatch",
            "one answer is a whole dialogue and the other is not; give both or neither the history",
        )
    if isinstance(prompt, list) and not _starts_with(chosen, rejected, prompt):
        return Fault("history_mismatch", "the dialogues do not begin with the turns of the prompt")
    split = split_dialogues(chosen, rejected)
    if isinstance(split, Fault) or isinstance(prompt, list):
        return split
    users = [message["content"] for message in split[0] if message["role"] == "user"]
    if prompt not in users and prompt.strip() not in [(user or "").strip() for user in users]:
        return Fault("history_mismatch", "the prompt's text is no user turn of the two dialogues")
    return split


def _starts_with(chosen: list, rejected: list, prompt: list) -> bool:
    return chosen[: len(prompt)] == prompt == rejected[: len(prompt)]


def check_tools(record: dict) -> tuple[str | None, dict | None] | Fault:
    """`tools` as a JSON string and `chat_template_kwargs` as it is, from the record's own keys."""
    tools, kwargs = record.get("tools"), record.get("chat_template_kwargs")
    if isinstance(tools, list):
        tools = json.dumps(tools, ensure_ascii=False)
    if tools is not None and not isinstance(tools, str):
        return Fault("wrong_type", f"tools is {clip(tools)}; it must be a list or a JSON string")
    if kwargs is not None and not isinstance(kwargs, dict):
        return Fault("wrong_type", f"chat_template_kwargs is {clip(kwargs)}; it must be an object")
    return tools or None, kwargs


def check_system(record: dict, name: str = "system") -> str | None | Fault:
    """The record's own system text, or None where it has none."""
    system = record.get(name)
    if not isinstance(system, str | None):
        return Fault("wrong_type", f"{name} is {clip(system)}; it must be text")
    return system or None


def with_system(prompt: list[Message], system: str | None) -> list[Message]:
    """The prompt headed by the system text, unless it begins with that very text already."""
    head = {"role": "system", "content": system}
    return prompt if system is None or prompt[:1] == [head] else [head, *prompt]

"""Open Assistant's trees of messages, nested or one message a record: sibling answers are ranked.

Trees may be deep, so nothing here recurses.
"""

from data_tools.formats import label, paths
from data_tools.formats.format import Format, ReadOptions, reading
from data_tools.formats.sides import ranked_pairs
from data_tools.record import BadRecord, Message, Result, TreeMessage, clip

_ROLES = {"prompter": "user", "assistant": "assistant"}


def _tree(record: dict, options: ReadOptions) -> list[Result]:
    """The pairs below every message with two answers, or the one fault of these answers."""
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


def _message(value: object) -> Message:
    """The message as role and content. Raises BadRecord."""
    value = paths.check(value, dict, "a message", "an object with text and role")
    text, role = (
        paths.check(value.get(name), str, f"the {name} of a message") for name in ("text", "role")
    )
    if role not in _ROLES:
        known = " and ".join(_ROLES)
        raise BadRecord("bad_roles", f"a message is from {clip(role)}; known are {known}")
    return {"role": _ROLES[role], "content": text}


def _compared(dialogue: list[object], replies: list[object], options: ReadOptions) -> list[Result]:
    """The pairs of the ranked replies to the last message of a dialogue. Raises BadRecord.

    A faulty reply is among those that were ranked: it makes their order unknown.
    """
    answers = [r for r in replies if not isinstance(r, dict) or r.get("role") != "prompter"]
    if len(answers) < 2:
        return []
    prompt, messages = [*map(_message, dialogue)], [[_message(answer)] for answer in answers]
    ranks = [
        label.rank(answer.get("rank"), f"the rank of reply {number}")
        for number, answer in enumerate(answers, start=1)
    ]
    return ranked_pairs(prompt, messages, ranks, options)


def _flat(record: dict, options: ReadOptions) -> list[Result]:
    key = record.get("message_id")
    paths.check(None if key == "" else key, str, "message_id")
    parent = record.get("parent_id")
    if parent is not None:
        paths.check(parent, str, "parent_id", "text or null")
    rank = record.get("rank")
    is_ranked = record.get("role") == "assistant" and not label.is_null(rank)
    score = label.score(rank, "rank") if is_ranked else None
    return [TreeMessage(key, parent or None, _message(record), score)]


FORMATS: tuple[Format, ...] = (
    Format(
        name="oasst-tree",
        matches=lambda record: (
            isinstance(record.get("prompt"), dict) and "replies" in record["prompt"]
        ),
        plan=reading(_tree, "prompt"),
        structured=("prompt",),
        traits=("ranked",),
    ),
    Format(
        name="oasst-flat",
        matches=lambda record: (
            {"message_id", "text", "role"} <= record.keys()
            and ("parent_id" in record or "message_tree_id" in record)
        ),
        plan=reading(_flat, "message_id", "parent_id", "text", "role", "rank"),
        traits=("ranked",),
    ),
)

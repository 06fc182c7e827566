"""Open Assistant's trees of messages, nested or one message a record: sibling answers are ranked.

Trees may be deep, so nothing here recurses.
"""

from dataclasses import dataclass

from data_tools.formats import label, paths
from data_tools.formats.format import Format, JsonFields, ReadOptions, reading
from data_tools.formats.rows import RANKED
from data_tools.formats.sides import attempt, ranked_pairs
from data_tools.record import BadRecord, Message, Result, TreeMessage, clip

_ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class _Node:
    """A message as it was read, the node that it replies to, and the checked message.

    `message` is the first fault on the way from the root instead, where there is one.
    """

    value: object
    parent: "_Node | None"
    message: Message | BadRecord


def _tree(record: dict, options: ReadOptions) -> list[Result]:
    """The pairs below every message with two answers, or the one fault of these answers."""
    root = paths.check_object(record.get("prompt"), "prompt", "a message with text and replies")
    found: list[Result] = []
    faults = []
    stack = [_node(root, None)]
    while stack:
        node = stack.pop()
        faults += [node.message] if isinstance(node.message, BadRecord) else []
        replies = node.value.get("replies") if isinstance(node.value, dict) else None
        if not isinstance(replies, list | None):
            detail = f"the replies of a message are {clip(replies)}; they must be a list"
            found.append(BadRecord("wrong_type", detail))
            replies = None
        below = [_node(reply, node) for reply in replies or ()]
        answers = [reply for reply in below if _is_answer(reply.value)]
        if len(answers) > 1:
            try:
                found += _compared(node, answers, options)
            except BadRecord as fault:
                found.append(fault)
        stack += reversed(below)
    if not found:
        detail = "no message of this tree has two assistant replies to compare; remove it"
        raise faults[0] if faults else BadRecord("unpaired", detail)
    return found


def _is_answer(reply: object) -> bool:
    """Whether a reply is among those that were ranked; a faulty one makes their order unknown."""
    return not isinstance(reply, dict) or reply.get("role") != "prompter"


def _node(value: object, parent: _Node | None) -> _Node:
    above = parent.message if parent else None
    return _Node(value, parent, above if isinstance(above, BadRecord) else attempt(_message, value))


def _message(value: object) -> Message:
    """The message as role and content. Raises BadRecord."""
    value = paths.check_object(value, "a message", "an object with text and role")
    text, role = (
        paths.check_text(value.get(name), f"the {name} of a message") for name in ("text", "role")
    )
    if role not in _ROLES:
        known = " and ".join(_ROLES)
        raise BadRecord("bad_roles", f"a message is from {clip(role)}; known are {known}")
    return {"role": _ROLES[role], "content": text}


def _compared(parent: _Node, answers: list[_Node], options: ReadOptions) -> list[Result]:
    """The pairs of one message's ranked replies. Raises BadRecord."""
    for node in answers:
        if isinstance(node.message, BadRecord):
            raise node.message
    ranks = [
        label.rank(node.value.get("rank"), f"the rank of reply {number}")
        for number, node in enumerate(answers, start=1)
    ]
    dialogue, node = [], parent
    while node:
        dialogue.append(node.message)
        node = node.parent
    return ranked_pairs(dialogue[::-1], [[node.message] for node in answers], ranks, options)


def _flat(record: dict, options: ReadOptions) -> list[Result]:
    key = record.get("message_id")
    paths.check_text(None if key == "" else key, "message_id")
    parent = record.get("parent_id")
    if parent is not None:
        paths.check_text(parent, "parent_id", "text or null")
    return [TreeMessage(key, parent or None, _message(record), _rank(record))]


def _rank(record: dict) -> float | None:
    """The rank of an answer; what a prompter wrote is compared with nothing. Raises BadRecord."""
    rank = record.get("rank")
    if record.get("role") != "assistant" or label.is_null(rank):
        return None
    return label.score(rank, "rank")


FORMATS: tuple[Format, ...] = (
    Format(
        name="oasst-tree",
        matches=lambda record: (
            isinstance(record.get("prompt"), dict) and "replies" in record["prompt"]
        ),
        plan=reading(_tree, "prompt"),
        json_fields=JsonFields(structured=("prompt",)),
        traits=RANKED,
    ),
    Format(
        name="oasst-flat",
        matches=lambda record: (
            {"message_id", "text", "role"} <= record.keys()
            and ("parent_id" in record or "message_tree_id" in record)
        ),
        plan=reading(_flat, "message_id", "parent_id", "text", "role", "rank"),
        traits=RANKED,
    ),
)

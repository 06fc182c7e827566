"""The trainers' own preference formats that --to writes: a row of the dataset as one JSON object.

Field names and limits are those of each trainer's documents and loading code. What a format has no
place for is never dropped: the conversion is refused.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data_tools.record import ConvertError, Message, as_json, as_messages

_SIDES = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))


class Refused(Exception):  # noqa: N818 - named for what it describes
    """What of a pair a format has no place for."""


def _openai(row: dict) -> dict:
    tools = {"tools": json.loads(row["tools"])} if row.get("tools") else {}
    return {
        "input": {"messages": row["prompt"]} | tools,
        "preferred_output": row["chosen"],
        "non_preferred_output": row["rejected"],
    }


def _llamafactory(row: dict) -> dict:
    """Every row has tools where any has: LLaMA-Factory reads the column of every row."""
    turns = row["prompt"][row["prompt"][0]["role"] == "system" :]
    if any((turn["role"] == "assistant") != at % 2 for at, turn in enumerate(turns)):
        raise Refused("two turns of users or tools in a row")
    return {
        "conversations": [*map(_sharegpt, row["prompt"])],
        "chosen": _sharegpt(row["chosen"][0]),
        "rejected": _sharegpt(row["rejected"][0]),
    } | ({"tools": row["tools"] or ""} if "tools" in row else {})


_SHAREGPT = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}


def _sharegpt(message: Message) -> Message:
    if calls := message.get("tool_calls"):
        if message["content"]:
            raise Refused("a text next to tool calls")
        return {"from": "function_call", "value": as_json([call["function"] for call in calls])}
    return {"from": _SHAREGPT[message["role"]], "value": message["content"]}


def dataset_info(splits: Sequence[str], has_tools: bool) -> dict[str, Any]:
    """What LLaMA-Factory reads of the files in its dataset_info.json."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    if has_tools:
        columns["tools"] = "tools"
    entry = {"formatting": "sharegpt", "ranking": True, "columns": columns}
    return {split: {"file_name": f"{split}.jsonl"} | entry for split in splits}


def _ms_swift(row: dict) -> dict:
    """The chosen answer ends `messages`.

    A rejected text cannot call tools, so a dataset with tool calls has whole dialogues instead, in
    every row, since ms-swift drops rows where either field is null.
    """
    prompt, chosen, rejected = (row[name] for name, _ in _SIDES)
    if any(message["role"] == "user" for message in (*chosen, *rejected)):
        raise Refused("user turns in an answer")
    more = {name: row[name] for name in _EXTRAS if row.get(name)}
    line = {"messages": prompt + chosen} | more
    if not row["has_calls"]:
        return line | {"rejected_response": rejected[0]["content"]}
    if "chat_template_kwargs" in more:
        raise Refused("chat_template_kwargs in a dataset with tool calls")
    if chosen[0] == rejected[0]:
        raise Refused("answers that begin with the same turn")
    again = {f"rejected_{key}": value for key, value in more.items()}
    return line | again | {"rejected_messages": prompt + rejected}


def _axolotl(row: dict) -> dict:
    return {"messages": row["prompt"], "chosen": row["chosen"][0], "rejected": row["rejected"][0]}


def _nemo_rl(row: dict) -> dict:
    answers = enumerate((row["chosen"], row["rejected"]))
    completions = [{"rank": rank, "completion": answer} for rank, answer in answers]
    return {"context": row["prompt"], "completions": completions}


@dataclass(frozen=True)
class Target:
    """A trainer's format: what makes a line of a row, what it holds, how the trainer is given it.

    `write` takes what `_checked` returns. `keys` are those of messages besides role and content,
    with `developer` for that role; `columns` are those besides the sides. `calls` are the keys of
    a tool call and the type of its arguments, where only these are held.
    """

    write: Callable[[dict], dict]
    usage: str
    keys: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    calls: tuple[set[str], type] | None = None
    one_message: bool = True  # for each answer


_CALLS = ("tool_calls", "tool_call_id")
_EXTRAS = ("tools", "chat_template_kwargs")
TARGETS = {
    "openai": Target(
        _openai,
        "upload {}/train.jsonl with the purpose fine-tune",
        keys=(*_CALLS, "name", "developer"),
        columns=("tools",),
        calls=({"id", "type", "function"}, str),
    ),
    "llamafactory": Target(
        _llamafactory,
        "dataset_dir: {}, dataset: train",
        keys=("tool_calls",),
        columns=("tools",),
        calls=({"type", "function"}, dict),
    ),
    "ms-swift": Target(
        _ms_swift,
        "--dataset {}/train.jsonl",
        keys=_CALLS,
        columns=_EXTRAS,
        one_message=False,
    ),
    "axolotl": Target(
        _axolotl, "datasets: [{{path: {}/train.jsonl, type: chat_template.default}}]"
    ),
    "nemo-rl": Target(
        _nemo_rl,
        "data.train: {{dataset_name: PreferenceDataset, data_path: {}/train.jsonl}}",
        keys=(*_CALLS, "name", "reasoning_content", "developer"),
    ),
}


def as_target(kind: str, row: dict) -> dict:
    """A row of the dataset as the target has it. Raises ConvertError (status 2)."""
    target = TARGETS[kind]
    try:
        return target.write(_checked(row, target))
    except Refused as cause:
        raise ConvertError(
            f"{row['source']}: the format of --to {kind} has no place for {cause}; change the "
            "record, or choose --to arrow, parquet or jsonl"
        ) from None


def _checked(row: dict, target: Target) -> dict:
    """The row with messages as its sides, and whether its dataset has tool calls. Raises Refused.

    Messages have no null keys.
    """
    sides: dict[str, Any] = {name: as_messages(row[name], role) for name, role in _SIDES}
    for name in sorted(row.keys() - sides.keys() - {"source", *target.columns}):
        if row[name] and row[name] != "[]":  # no tools
            raise Refused(f"the column {name}" + " of --keep" * (name not in _EXTRAS))
    has_calls = "tool_calls" in sides["prompt"][0]
    sides = {name: [_message(m, target) for m in side] for name, side in sides.items()}
    if target.one_message and len(sides["chosen"]) + len(sides["rejected"]) > 2:
        raise Refused("an answer of several messages")
    return row | sides | {"has_calls": has_calls}


def _message(message: Message, target: Target) -> Message:
    """The message without keys that are null or an empty list. Raises Refused."""
    kept = {"role": message["role"], "content": message["content"]}
    if kept["role"] == "developer" and "developer" not in target.keys:
        raise Refused("the role developer")
    for key, value in message.items():
        if key in target.keys and value not in (None, []):
            kept[key] = value
        elif key not in kept and value:
            raise Refused(f"{key} in a message")
    for call in kept.get("tool_calls", ()) if target.calls else ():
        keys, kind = target.calls
        function = call.get("function") if isinstance(call, dict) else None
        is_named = isinstance(function, dict) and function.keys() == {"name", "arguments"}
        if not (is_named and call.keys() == keys and isinstance(function["arguments"], kind)):
            shown = "text" if kind is str else "an object"
            listed = ", ".join(sorted(keys))
            raise Refused(f"tool calls other than {listed}, with arguments that are {shown}")
    return kept

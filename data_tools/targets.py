"""The trainers' own preference formats that --to writes: a row of the dataset as one JSON object.

Field names and limits are those of each trainer's documents and loading code. What a format has no
place for is never dropped: the conversion is refused.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_tools.record import ConvertError, Message, as_json, as_messages

_SIDES = (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
_SHAREGPT = {"user": "human", "tool": "observation"}
_COLUMNS = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}


class Refused(Exception):  # noqa: N818 - named for what it describes
    """What of a pair a format has no place for."""


def _openai(row: dict) -> dict:
    for message in (*row["prompt"], *row["chosen"], *row["rejected"]):
        _check_calls(message, {"id", "type", "function"}, str)
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


def _sharegpt(message: Message) -> Message:
    if calls := message.get("tool_calls"):
        _check_calls(message, {"type", "function"}, dict)
        if message["content"]:
            raise Refused("a text next to tool calls")
        return {"from": "function_call", "value": as_json([call["function"] for call in calls])}
    role = "gpt" if message["role"] == "assistant" else message["role"]
    return {"from": _SHAREGPT.get(role, role), "value": message["content"]}


def _ms_swift(row: dict) -> dict:
    """The chosen answer ends `messages`.

    A rejected text cannot call tools, so a dataset with tool calls has whole dialogues instead, in
    every row, since ms-swift drops rows where either field is null.
    """
    prompt, chosen, rejected = (row[name] for name, _ in _SIDES)
    if any(message["role"] == "user" for message in (*chosen, *rejected)):
        raise Refused("user turns in an answer")
    more = {name: row[name] for name in ("tools", "chat_template_kwargs") if row.get(name)}
    line = {"messages": prompt + chosen} | more
    if not row["has_calls"]:
        return line | {"rejected_response": rejected[0]["content"]}
    if "chat_template_kwargs" in more:
        raise Refused("chat_template_kwargs in a dataset with tool calls")
    if chosen[0] == rejected[0]:
        raise Refused("answers that begin with the same turn")
    return (
        line
        | {f"rejected_{key}": value for key, value in more.items()}
        | {"rejected_messages": prompt + rejected}
    )


def _axolotl(row: dict) -> dict:
    return {"messages": row["prompt"], "chosen": row["chosen"][0], "rejected": row["rejected"][0]}


def _nemo_rl(row: dict) -> dict:
    answers = enumerate((row["chosen"], row["rejected"]))
    completions = [{"rank": rank, "completion": answer} for rank, answer in answers]
    return {"context": row["prompt"], "completions": completions}


def _check_calls(message: Message, keys: set[str], arguments: type) -> None:
    """Raise Refused for tool calls with other keys, or with arguments of another type."""
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        is_named = isinstance(function, dict) and function.keys() == {"name", "arguments"}
        if not (is_named and call.keys() == keys and isinstance(function["arguments"], arguments)):
            kind = "text" if arguments is str else "an object"
            listed = ", ".join(sorted(keys))
            raise Refused(f"tool calls other than {listed}, with arguments that are {kind}")


@dataclass(frozen=True)
class Target:
    """A trainer's format: what makes a line of a row, what it holds, how the trainer is given it.

    `write` takes what `_checked` returns. `keys` are those of messages besides role and content,
    with `developer` for that role; `columns` are those besides the sides.
    """

    write: Callable[[dict], dict]
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    usage: str
    one_message: bool = True  # for each answer


_CALLS = ("tool_calls", "tool_call_id")
TARGETS = {
    "openai": Target(
        _openai,
        (*_CALLS, "name", "developer"),
        ("tools",),
        "upload {}/train.jsonl with the purpose fine-tune",
    ),
    "llamafactory": Target(
        _llamafactory, ("tool_calls",), ("tools",), "dataset_dir: {}, dataset: train"
    ),
    "ms-swift": Target(
        _ms_swift, _CALLS, ("tools", "chat_template_kwargs"), "--dataset {}/train.jsonl", False
    ),
    "axolotl": Target(
        _axolotl, (), (), "datasets: [{{path: {}/train.jsonl, type: chat_template.default}}]"
    ),
    "nemo-rl": Target(
        _nemo_rl,
        (*_CALLS, "name", "reasoning_content", "developer"),
        (),
        "data.train: {{dataset_name: PreferenceDataset, data_path: {}/train.jsonl}}",
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
        if row[name]:
            raise Refused(f"the column {name}")
    if row.get("tools") and not _is_json_list(row["tools"]):
        raise Refused("tools that are not a JSON list")
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
    return kept


def _is_json_list(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(text, parse_constant=int), list)  # int refuses NaN
    return False


def finish(directory: str, kind: str, split: str, has_tools: bool, paths: list[str]) -> None:
    """Join the files of a split to one, and write what else the trainer needs to find it."""
    with open(os.path.join(directory, f"{split}.jsonl"), "wb") as out:
        for path in paths:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
            os.remove(path)
    if kind == "llamafactory":
        columns = _COLUMNS | ({"tools": "tools"} if has_tools else {})
        entry = {"file_name": f"{split}.jsonl", "formatting": "sharegpt", "ranking": True}
        path, known = os.path.join(directory, "dataset_info.json"), {}
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            known = json.load(file)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(known | {split: entry | {"columns": columns}}, file, indent=2)

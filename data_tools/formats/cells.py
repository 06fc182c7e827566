"""JSON in the cells of a table: parsed where a format expects it, text everywhere else."""

import json
from collections.abc import Callable
from functools import lru_cache

from data_tools import strict_json
from data_tools.formats.format import JsonFields
from data_tools.record import BadRecord

_EVERYWHERE = ("chat_template_kwargs",)  # structured in every format
_TURN = ({"role", "content"}, {"role", "tool_calls"}, {"from", "value"})


@lru_cache(10_000)
def cell_parser(
    json_fields: JsonFields, names: tuple[str, ...], any_case: bool
) -> Callable[[dict], dict]:
    """What parses the JSON cells of records with these field names, raising BadRecord.

    A structured field may hold any list or object, a dialogue only messages; any other text
    stays text. With `any_case`, capitals in field names make no difference.
    """
    fields = {}
    for name in names:
        known = name.casefold() if any_case else name
        if known in json_fields.structured or known in _EVERYWHERE:
            fields[name] = _is_structured
        elif known in json_fields.dialogues:
            fields[name] = _is_dialogue

    def parse(record: dict) -> dict:
        parsed = {}
        for name, accepted in fields.items():
            cell = record[name]
            if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
                parsed[name] = _loads(cell, name, accepted)
        return record | parsed if parsed else record

    return parse


def load_list(value: object, name: str) -> object:
    """A list or object that is written as JSON text, parsed; any other value as it is.

    Raises BadRecord where the JSON is unsound; `name` is the field.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        return _loads(value, name, _is_structured)
    return value


def _loads(text: str, name: str, accepted: Callable[[object], bool]) -> object:
    try:
        value = strict_json.loads(text.encode("utf-8", "surrogatepass"))
    except BadRecord as fault:
        if accepted(_lenient(text)):
            raise BadRecord(fault.reason, f"{name}: {fault.detail}") from None
        return text
    return value if accepted(value) else text


def _lenient(text: str) -> object:
    """What a text holds as JSON, sound or not; None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_structured(value: object) -> bool:
    return isinstance(value, list | dict)


def _is_dialogue(value: object) -> bool:
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(
        isinstance(turn, dict) and any(names <= turn.keys() for names in _TURN) for turn in turns
    )

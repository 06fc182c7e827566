"""Answers that only point at texts in other columns: by a name, a key, an id or a position."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from data_tools.formats.dialogues import is_dialogue
from data_tools.formats.format import Format
from data_tools.formats.label import as_number
from data_tools.formats.mapping import as_option, columns_read
from data_tools.formats.paths import parse_json
from data_tools.record import BadRecord, ConvertError, Record, as_json, tidy_name

_LONGEST = 100  # characters of a pointer
_POINTERS = re.compile(
    "(?:(?:response|answer|output|model|option|assistant|completion)_)?"
    "(?:[abcd0-4]|first|second|third|fourth|left|right)"
)
_LISTS = re.compile(
    "(?:.*_)?(?:responses|answers|completions|outputs|candidates|generations|options|choices)"
)
_IDS = re.compile("(?:.*_)?(?:ids?|models?|generators?|names?|keys?|labels?|letters?|index|source)")
_TWINS = (("a", "b"), ("A", "B"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"))
_ORDERS = (["a", "b"], ["1", "2"], ["0", "1"])  # of the ids of two answers

Way = tuple[str, ...]
"""How answers point: `names`, `keys` of a column, `ids` under a key of a column, `siblings` in a
column, `places` in a column or (without one) in two columns."""


def refuse_pointers(format: Format, held: Sequence[Record], unread: Sequence[str]) -> None:
    """Raise ConvertError, with the fix, where the answers of the first records only point."""
    shapes = dict.fromkeys(tuple(record.value) for record in held) if unread else ()
    read = (columns_read(format.name, names) or {} for names in shapes)
    columns = next((found for found in read if {"prompt", "chosen", "rejected"} <= {*found}), None)
    if columns is None:
        return
    own, found, values, others = [columns["chosen"], columns["rejected"]], Counter(), set(), []
    records = [record.value for record in held if None not in map(record.value.get, own)]
    for record in records:
        pointers = [_pointer(record[name]) for name in own]
        if None not in pointers:
            values.update(pointers)
            others.append({name: _parsed(record[name]) for name in unread if name in record})
            found.update({*_ways(pointers, others[-1])})
    way = next((way for way, count in found.most_common() if count > 0.9 * len(records)), None)
    kinds = {type(record[name]) for record in records for name in own}
    if way is None:
        return
    fields = None if list in kinds else _fields(way, {*map(_plain, values)}, others)
    fix = "write the texts themselves there, since no --map resolves them"
    if fields:
        fix = as_option({"prompt": columns["prompt"]} | fields | {"label": own[0]})
        if len(values) == 2 and all(as_number(value) is not None for value in values):
            fix += " --label first={},second={}".format(*sorted(values, key=float))
        fix = f"resolve them with {fix}"
    if int not in kinds:
        fix += f", or keep them with {as_option(columns)}"
    raise ConvertError(f"{' and '.join(own)} only point at answers in other columns; {fix}")


def _pointer(value: object) -> str | None:
    """The short text of an answer that may be a pointer, also of a last message or an integer."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    return str(value) if type(value) in (str, int) and len(str(value)) <= _LONGEST else None


def _parsed(value: object) -> object:
    """The value of a column, perhaps in a text as JSON."""
    with suppress(BadRecord):
        return parse_json(value, "")
    return value


def _ways(pointers: list[str], others: Mapping[str, object]) -> Iterator[Way]:
    """How the two answers of one record may point, the surest way first."""
    texts = [name for name, value in others.items() if _is_side(value)]
    lists = [name for name, value in others.items() if isinstance(value, list)]
    lists = [name for name in lists if _LISTS.fullmatch(words_of(name))]
    plain = [*map(_plain, pointers)]
    models = [name for name in texts if "model" in name or "generator" in name]
    if {*map(_plain, texts), *(_plain(str(others[name])) for name in models)}.issuperset(plain):
        yield ("names",)
    for name, value in others.items():
        if isinstance(value, dict):
            if all(isinstance(value.get(key), str | list | dict) for key in pointers):
                yield ("keys", name)
        elif isinstance(value, list) and _IDS.fullmatch(words_of(name)):
            if {*map(str, value)}.issuperset(pointers) and lists:
                yield ("siblings", name)
        elif isinstance(value, list):
            keys = dict.fromkeys(key for part in value if isinstance(part, dict) for key in part)
            for key in [key for key in keys if _IDS.fullmatch(words_of(key))]:
                if {*_under(key, value)}.issuperset(plain):
                    yield ("ids", name, key)
    held = as_json([others[name] for name in lists]).casefold()
    if all(_POINTERS.fullmatch(p) and as_json(p) not in held for p in plain):
        if _twins(texts):
            yield ("places",)
        yield from (("places", name) for name in lists)


def _fields(way: Way, values: set[str], others: list[dict]) -> dict[str, str] | None:
    """The answers as --map names them, None where it cannot: only two are compared by a label."""
    kind, *rest = way
    if kind != "names" and len(values) != 2 or kind == "siblings":
        return None
    given = [other[rest[0]] for other in others if other.get(rest[0])] if rest else []
    if kind == "keys":
        keys = sorted({key for value in given for key in value}, key=_plain)
        are_words = all(re.fullmatch(r"\w+", key) for key in keys)
        two = [f"{rest[0]}.{key}" for key in keys] if are_words else ()
    elif rest:
        if any(len(value) != 2 for value in given):
            return None
        if kind == "ids" and any(_under(rest[1], value) not in _ORDERS for value in given):
            return None
        entries = [entry for value in given for entry in value]
        texts = [rest[0]] if all(map(_is_side, entries)) else []
        if {*map(type, entries)} == {dict}:
            texts = [key for key in entries[0] if all(_is_side(e.get(key)) for e in entries)]
            texts = [f"{rest[0]}[].{key}" for key in texts if key != rest[-1]]
        return {"responses": texts[0]} if texts else None
    else:
        names = dict.fromkeys(n for o in others for n, value in o.items() if _is_side(value))
        two = [name for name in names if kind == "names" and _plain(name) in values]
        two = two or _twins([n for n in names if "model" not in n and "generator" not in n]) or ()
    return dict(zip("ab", two, strict=True)) if len(two) == 2 else None


def _is_side(value: object) -> bool:
    return isinstance(value, str) or is_dialogue(value)


def _under(key: str, entries: list) -> list[str | None]:
    """What each object of a list has under a key, as text; None where that is no text or number."""
    values = [entry.get(key) if isinstance(entry, dict) else None for entry in entries]
    return [_plain(str(value)) if isinstance(value, str | int) else None for value in values]


def words_of(name: str) -> str:
    """A column name in small letters, with underscores between its words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]+", "_", name.strip()).casefold()


def _plain(text: str) -> str:
    """A text as column names are compared."""
    return tidy_name(text.replace("-", " ").strip(' ".[]()')).casefold()


def _twins(names: list[str]) -> tuple[str, str] | None:
    """Two columns whose names differ as those of two answers do, at their start or end."""
    for one, other in _TWINS:
        for name in names:
            twin = re.sub(rf"^{one}(?=_)|{one}$", other, name)
            if twin != name and twin in names:
                return name, twin
    return None

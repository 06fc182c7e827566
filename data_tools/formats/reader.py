"""Reads the records of one format, whose answers may begin with their whole prompt."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any

from data_tools.column_kinds import kind_of
from data_tools.formats import FORMATS
from data_tools.formats.dialogues import is_earlier, metadata
from data_tools.formats.format import Format, ReadOptions, tidy_names
from data_tools.formats.label import is_null
from data_tools.formats.paths import (
    JSON_STARTS,
    MESSAGES,
    JsonCell,
    columns_of,
    is_blank,
    may_be_json,
    parse_json,
    value_at,
)
from data_tools.formats.sides import UNSURE, split_transcripts
from data_tools.record import BadRecord, Record, Result, Side, as_json, clip, tidy_name
from data_tools.splits import is_test

_EMPTY = (None, "", [], {})
ORDER_VARIES = (
    "the column {0} ({1}) may say that answers were shown the other way round, which decides who "
    "won; add --map swapped={0} where true means that the label's first answer is the second, or "
    "--map swapped= to ignore it"
)
ANSWERS = ("chosen", "rejected", "first", "second", "answer")  # of any kind of result


class FormatReader:
    """Makes results of records: pairs, what waits for other records, and faults.

    `columns` are those that were read, `unread` how many records have a value in each other one.
    """

    def __init__(self, format: Format, options: ReadOptions, keep: tuple[str, ...] = ()):
        self._format, self._options = format, options
        self._keep = tuple(map(tidy_name, keep))
        self._plan = lru_cache(1000)(self._planned)
        self.columns: set[str] = set()
        self.unread: Counter = Counter()

    def read(self, record: Record) -> tuple[list[Result], tuple[str | None, ...]]:
        """The results of a record, and the values of the columns to keep. Raises BadRecord."""
        value = record.value
        if not isinstance(value, dict):
            detail = f"the record is {clip(value)}, not an object with fields; fix or remove it"
            raise BadRecord("wrong_type", detail)
        return self._plan(record.cells, *value)(value)

    def _planned(self, cells: bool, *own: str) -> Callable[[dict], tuple]:
        """What reads the records with these field names."""
        format, options = self._format, self._options
        tidy, names = tidy_names(own), tidy_names(own, small="any_case" in format.traits)
        plan = format.plan((*names, *(format.made.keys() - names)), options)
        used = {name for read in plan.reads for name in columns_of(format.made.get(read, (read,)))}
        reads = [name for name in names if name in used]
        keep = [tidy.get(name, name) for name in self._keep]
        unread = [name for name in own if name not in {*(names[name] for name in reads), *keep}]
        media = [name for name in names if name not in used and kind_of(name) == "media"]
        viewed = (
            names if tuple(names) != own else None,
            reads if cells else (),
            options.parsed & names.keys(),
            format.made,
        )
        is_viewed, orders = any(viewed), options.steady
        unsure = {UNSURE} & plan.reads & names.keys()
        self.columns.update(names[name] for name in reads if name not in unsure)

        def read(value: dict) -> tuple[list[Result], tuple[str | None, ...]]:
            for name in unread:
                if value[name] not in _EMPTY:
                    self.unread[name] += 1
            record = view(value, *viewed) if is_viewed else value
            for name in unsure:
                if is_earlier(record[name]):
                    self.columns.add(names[name])
                elif record[name] not in _EMPTY:
                    self.unread[names[name]] += 1
            for name in reads:
                if type(record[name]) is str:
                    continue
                if more := metadata(record[name]):
                    self.unread.update(f"{name}[].{key}" for key in more)
                _refuse_media_in(record[name], name)
            for name in media:
                _refuse_media(record[name], name)
            for name, steady in orders.items():
                if (as_text(value.get(name)) or "") != steady:
                    shown = f"{clip(value.get(name))} here, before it was {clip(steady)}"
                    raise BadRecord("wrong_type", ORDER_VARIES.format(name, shown))
            try:
                results = plan.results(record)
            except BadRecord as fault:
                others = [] if format.matches(record) else fitting(value, cells, options.parsed)
                if not others:
                    raise
                detail = f"{fault.detail}; it looks like {' or '.join(others)}"
                raise BadRecord(fault.reason, detail, fault.votes) from None
            if options.answers_are_transcripts:
                results = [split_transcripts(result) for result in results]
            if options.answers_repeat_prompt:
                results = [without_prompt(result) for result in results]
            kept = tuple([as_text(value.get(name)) for name in keep]) if keep else ()
            if options.split and is_test(kept[-1]) is None:
                known = "train, test, validation, dev or eval"
                detail = f"the split is {clip(kept[-1])}; write {known}"
                raise BadRecord("wrong_type" if kept[-1] else "missing_field", detail)
            return results, kept

        return read


def view(
    record: dict,
    names: Mapping[str, str] | None,
    cells: Iterable[str],
    texts: Iterable[str],
    made: Mapping[str, str],
) -> dict:
    """The record as a format sees it.

    It has the tidy `names` of its fields (None leaves them as they are), those `cells` marked that
    may be JSON, what the fields `texts` hold, and what is `made` of other fields. Raises BadRecord.
    """
    if names is not None:
        record = {name: record[own] for name, own in names.items()}
    if likely := [name for name in cells if record[name][:1] in JSON_STARTS]:
        marked = {name: JsonCell(record[name]) for name in likely if may_be_json(record[name])}
        record = record | marked
    for name in texts:
        record = record | {name: _held(record[name], name)}
    return record | {name: value_at(record, at) for name, at in made.items()} if made else record


def _refuse_media(value: object, where: str) -> None:
    """Raise BadRecord for media."""
    if not is_blank(value):
        detail = f"{where} next to the text cannot be trained on here; remove the record"
        raise BadRecord("wrong_type", detail)


def _is_media(name: str) -> bool:
    return kind_of(name) == "media"


def _refuse_media_in(value: object, where: str) -> None:
    """Raise BadRecord for media under a key of a message, or of a block of its content."""
    for part in value if type(value) is list else (value,):
        if type(part) is not dict:
            continue
        if len(part) > 2:
            for key in filter(_is_media, part):
                _refuse_media(part[key], f"{where}[].{key}")
        if type(part.get("content")) is list:
            _refuse_media_in(part["content"], f"{where}[].content")


def _held(value: object, where: str) -> object:
    """The value that a text of a column of messages holds, perhaps null. Raises BadRecord."""
    if not isinstance(value, str) or not value:
        return value
    held = parse_json(value, where)
    if held is value and MESSAGES.match(value):
        detail = f"{where} holds messages whose form is neither JSON nor Python's; write them again"
        raise BadRecord("bad_json", f"{detail} with to_json or to_parquet")
    return None if held is value and is_null(value) else held


def seen_by(format: Format, record: dict, cells: bool, texts: frozenset[str]) -> dict:
    """The record as a format sees it; for `texts` see `view`; they stay texts where one is bad."""
    names = tidy_names(tuple(record), small="any_case" in format.traits)
    cells = names if cells else ()
    with suppress(BadRecord):
        return view(record, names, cells, texts & names.keys(), format.made)
    return view(record, names, cells, (), format.made)


def fitting(record: dict, cells: bool, texts: frozenset[str]) -> list[str]:
    """The names of the formats that a record fits.

    A general format gives way to others, unless the record has a label of the general one that
    none of them reads.
    """
    seen, views = {}, {}
    for name, format in FORMATS.items():
        small = "any_case" in format.traits
        seen[name] = views[small] = views.get(small) or seen_by(format, record, cells, texts)
    found = [name for name, format in FORMATS.items() if format.matches(seen[name])]
    special = [name for name in found if "general" not in FORMATS[name].traits]
    if not special or found == special:
        return found
    if any(FORMATS[name].questions for name in special):  # its label is the answer to a question
        return special
    plans = [FORMATS[name].plan(tuple(seen[name]), ReadOptions()) for name in special]
    read = {field for plan in plans for field in plan.reads}
    labels = {name: {*(FORMATS[name].label or ())} & seen[name].keys() for name in found}
    return [name for name in found if name in special or labels[name] - read]


def as_text(value: Any) -> str | None:
    """A value as --keep stores it: text as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else as_json(value)


def without_prompt(result: Result) -> Result:
    """The result with the prompt removed from its answers; a BadRecord where one lacks it.

    A result without texts is returned itself.
    """
    names = [name for name in ANSWERS if hasattr(result, name)]
    texts = [last_text(getattr(result, name)) for name in ("prompt", *names) if names]
    if not names or None in texts:
        return result
    prompt, *answers = texts
    if not prompt.strip() or not all(answer.startswith(prompt) for answer in answers):
        return BadRecord(
            "history_mismatch",
            "the answers of this file begin with their prompt, one of these does not; fix the "
            "record",
        )
    cut = {}
    for name, answer in zip(names, answers, strict=True):
        side, rest = getattr(result, name), answer[len(prompt) :]
        cut[name] = rest if isinstance(side, str) else [*side[:-1], side[-1] | {"content": rest}]
    return replace(result, **cut)


def last_text(side: Side) -> str | None:
    """A text, or the content of the last message."""
    return side if isinstance(side, str) else side[-1]["content"] if side else None

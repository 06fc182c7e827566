"""Reads the records of one format, whose answers may begin with their whole prompt."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from data_tools.column_kinds import kind_of
from data_tools.formats import FORMATS
from data_tools.formats.dialogues import metadata
from data_tools.formats.format import Format, ReadOptions, tidy_names
from data_tools.formats.mapping import columns_of, value_at
from data_tools.formats.paths import JSON_STARTS, JsonCell, may_be_json, parse_literal
from data_tools.formats.sides import attempt, split_transcripts
from data_tools.record import BadRecord, Record, Result, Side, as_json, clip, tidy_name
from data_tools.splits import is_test

_EMPTY = (None, "", [], {})
_NO_MEDIA = (None, False, 0, "", "[]", [], {})
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
        made = {name: at for name, at in format.made.items() if {*columns_of(at)} <= names.keys()}
        plan = format.plan((*names, *(made.keys() - names)), options)
        reads = {name for read in plan.reads for name in columns_of(made.get(read, read))}
        reads = [name for name in names if name in reads]
        keep = [tidy.get(name, name) for name in self._keep]
        used = {*(names[name] for name in reads), *keep}
        unread = [name for name in own if name not in used]
        media = [name for name in names if kind_of(name) == "media"]
        renamed, marked = names if tuple(names) != own else None, reads if cells else ()
        texts = options.parsed & names.keys()
        is_viewed = renamed or marked or texts or made
        self.columns.update(names[name] for name in reads)

        def read(value: dict) -> tuple[list[Result], tuple[str | None, ...]]:
            for name in unread:
                if value[name] not in _EMPTY:
                    self.unread[name] += 1
            record = view(value, renamed, marked, texts, made) if is_viewed else value
            for name in reads:
                if type(record[name]) is not str and (more := metadata(record[name])):
                    self.unread.update(f"{name}[].{key}" for key in more)
            for name in media:
                if record[name] not in _NO_MEDIA:
                    detail = f"{name} next to the text cannot be trained on here; remove the record"
                    raise BadRecord("wrong_type", detail)
            try:
                results = plan.results(record)
            except BadRecord as fault:
                others = [] if format.matches(record) else fitting(value, cells, options.parsed)
                if not others:
                    raise
                detail = f"{fault.detail}; it looks like {' or '.join(others)}"
                raise BadRecord(fault.reason, detail, fault.votes) from None
            if options.answers_are_transcripts:
                results = [attempt(split_transcripts, result) for result in results]
            if options.answers_repeat_prompt:
                results = [without_prompt(result) for result in results]
            kept = tuple([as_text(value.get(name)) for name in keep]) if keep else ()
            if options.split and is_test(kept[-1]) is None:
                detail = (
                    f"the split is {clip(kept[-1])}; write train, test, validation, dev or eval"
                )
                raise BadRecord("wrong_type" if kept[-1] else "missing_field", detail)
            return results, kept

        return read


def view(
    record: dict,
    names: Mapping[str, str] | None,
    cells: Iterable[str],
    texts: Iterable[str] = (),
    made: Mapping[str, str] = MappingProxyType({}),
) -> dict:
    """The record as a format sees it.

    It has the tidy `names` of its fields (None leaves them as they are), those `cells` marked that
    may be JSON, the messages that the fields `texts` hold, and what is `made` of other fields.
    """
    if names is not None:
        record = {name: record[own] for name, own in names.items()}
    if likely := [name for name in cells if record[name][:1] in JSON_STARTS]:
        marked = {name: JsonCell(record[name]) for name in likely if may_be_json(record[name])}
        record = record | marked
    if texts:
        record = record | {
            name: parse_literal(record[name]) for name in texts if may_be_json(record[name])
        }
    return record | {name: value_at(record, at) for name, at in made.items()} if made else record


def seen_by(format: Format, record: dict, cells: bool, texts: frozenset[str]) -> dict:
    """The record as a format sees it; for `texts` see `view`."""
    names = tidy_names(tuple(record), small="any_case" in format.traits)
    made = {name: at for name, at in format.made.items() if {*columns_of(at)} <= names.keys()}
    return view(record, names, names if cells else (), texts & names.keys(), made)


def fitting(record: dict, cells: bool, texts: frozenset[str]) -> list[str]:
    """The names of the formats that a record fits.

    A general format gives way to others, unless the record has a label of the general one that
    none of them reads.
    """
    views = {}
    for format in FORMATS.values():
        small = "any_case" in format.traits
        views[small] = views.get(small) or seen_by(format, record, cells, texts)
    seen = {name: views["any_case" in format.traits] for name, format in FORMATS.items()}
    found = [name for name, format in FORMATS.items() if format.matches(seen[name])]
    special = [name for name in found if "general" not in FORMATS[name].traits]
    if not special or found == special:
        return found
    if any(FORMATS[name].questions for name in special):  # its label is the answer to a question
        return special
    plans = [FORMATS[name].plan(tuple(seen[name]), ReadOptions()) for name in special]
    read = {field for plan in plans for field in plan.reads}
    return [
        name
        for name in found
        if name in special or {*(FORMATS[name].label or ())} & seen[name].keys() - read
    ]


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

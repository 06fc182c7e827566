"""Reads the records of one format, whose answers may begin with their whole prompt."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from data_tools.formats import FORMATS
from data_tools.formats.format import Format, ReadOptions, tidy_name, tidy_names
from data_tools.formats.paths import JsonCell, may_be_json
from data_tools.record import BadRecord, Record, Result, Side, as_json, clip

_MEDIA = ("images", "videos", "audios")  # fields whose content no pair can hold
_NO_MEDIA = (None, False, 0, "", "[]", [], {})
_ANSWERS = ("chosen", "rejected", "first", "second", "answer")  # of any kind of result


class FormatReader:
    """Makes results of records: pairs, what waits for other records, and faults."""

    def __init__(self, format: Format, options: ReadOptions, keep: tuple[str, ...] = ()):
        self._format, self._options = format, options
        self._keep = tuple(map(tidy_name, keep))
        self._plan = lru_cache(1000)(self._planned)

    def read(self, record: Record) -> tuple[list[Result], tuple[str | None, ...]]:
        """The results of a record, and the values of the columns to keep. Raises BadRecord."""
        value = record.value
        if not isinstance(value, dict):
            detail = f"the record is {clip(value)}, not an object with fields; fix or remove it"
            raise BadRecord("wrong_type", detail)
        names, parsed, media, keep, results_of = self._plan(record.cells, *value)
        fields = view(value, names, parsed) if names or parsed else value
        for name in media:
            if fields[name] not in _NO_MEDIA:
                detail = f"{name} next to the text cannot be trained on here; remove the record"
                raise BadRecord("wrong_type", detail)
        try:
            results = results_of(fields)
        except BadRecord as fault:
            if self._format.matches(fields) or not (others := fitting(value, record.cells)):
                raise
            detail = f"{fault.detail}; it looks like {' or '.join(others)}"
            raise BadRecord(fault.reason, detail, fault.votes) from None
        if self._options.answers_repeat_prompt:
            results = [without_prompt(result) for result in results]
        return results, tuple([as_text(value.get(name)) for name in keep]) if keep else ()

    def _planned(self, cells: bool, *own: str) -> tuple:
        """What is the same for all records with these field names: see `read`."""
        tidy, names = tidy_names(own), tidy_names(own, small="any_case" in self._format.traits)
        plan = self._format.plan(tuple(names), self._options)
        return (
            names if tuple(names) != own else None,
            [name for name in names if cells and name in plan.reads],
            [name for name in names if name.casefold() in _MEDIA],
            [tidy.get(name, name) for name in self._keep],
            plan.results,
        )


def view(record: dict, names: Mapping[str, str] | None, cells: Iterable[str]) -> dict:
    """The record under the tidy `names` of its fields, with those `cells` marked that may be JSON.

    None leaves the names as they are.
    """
    if names is not None:
        record = {name: record[own] for name, own in names.items()}
    marked = {name: JsonCell(record[name]) for name in cells if may_be_json(record[name])}
    return record | marked if marked else record


def seen_by(traits: tuple[str, ...], record: dict, cells: bool) -> dict:
    """The record as a format with these traits sees it."""
    names = tidy_names(tuple(record), small="any_case" in traits)
    return view(record, names, names if cells else ())


def fitting(record: dict, cells: bool) -> list[str]:
    """The names of the formats that a record fits.

    A general format gives way to others, unless the record has a label of the general one that
    none of them reads.
    """
    views = [seen_by(traits, record, cells) for traits in ((), ("any_case",))]
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
    names = [name for name in _ANSWERS if hasattr(result, name)]
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

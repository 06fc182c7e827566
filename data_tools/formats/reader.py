"""Reads the records of one format, whose answers may begin with their whole prompt."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from data_tools.formats import FORMATS, paths
from data_tools.formats.format import Format, ReadOptions, tidy_name, tidy_names
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
        return self._plan(record.cells, *value)(value)

    def _planned(self, cells: bool, *names: str) -> Callable[[dict], tuple]:
        format, options = self._format, self._options
        fields, view = viewer(format, names, cells)
        tidy = tidy_names(names)
        keep = [tidy.get(name, name) for name in self._keep]
        media = [name for name in fields if name.casefold() in _MEDIA]
        results_of = format.plan(fields, options).results

        def read(value: dict) -> tuple[list[Result], tuple]:
            record = view(value) if view else value
            for name in media:
                if record[name] not in _NO_MEDIA:
                    detail = f"{name} next to the text cannot be trained on here; remove the record"
                    raise BadRecord("wrong_type", detail)
            try:
                results = results_of(record)
            except BadRecord as fault:
                if not format.matches(record) and (others := fitting(value, cells)):
                    detail = f"{fault.detail}; it looks like {' or '.join(others)}"
                    raise BadRecord(fault.reason, detail, fault.votes) from None
                raise
            if options.answers_repeat_prompt:
                results = [without_prompt(result) for result in results]
            return results, tuple([as_text(value.get(name)) for name in keep]) if keep else ()

        return read


@lru_cache(10_000)
def viewer(
    format: Format, names: tuple[str, ...], cells: bool
) -> tuple[tuple[str, ...], Callable[[dict], dict] | None]:
    """The field names of a record as a format sees them, and what makes such records.

    The names are tidy, in small letters where capitals make no difference, and the JSON in the
    cells of a table is parsed where the format expects it. None where nothing needs to change.
    """
    tidy = tidy_names(names, small="any_case" in format.traits)
    structured = {*format.structured, "chat_template_kwargs"}
    parsed = [name for name in tidy if cells and name in structured.union(format.dialogues)]
    renamed = tuple(tidy) != names

    def view(record: dict) -> dict:
        """Raises BadRecord for unsound JSON."""
        if renamed:
            record = {name: record[own] for name, own in tidy.items()}
        for name in parsed:
            cell = record[name]
            if (value := paths.parse_json(cell, name, name not in structured)) is not cell:
                record = record | {name: value}
        return record

    return tuple(tidy), view if renamed or parsed else None


def seen_by(format: Format, record: dict, cells: bool) -> dict:
    """The record as a format sees it, whose unsound JSON stays text."""
    view = viewer(format, tuple(record), cells)[1]
    try:
        return view(record) if view else record
    except BadRecord:
        return seen_by(format, record, cells=False)


def fitting(record: dict, cells: bool) -> list[str]:
    """The names of the formats that a record fits.

    A general format gives way to others, unless the record has a label of the general one that
    none of them reads.
    """
    seen = dict.fromkeys(FORMATS, record)
    seen |= {f.name: seen_by(f, record, cells) for f in _changing(cells, *record)}
    found = [name for name, format in FORMATS.items() if format.matches(seen[name])]
    special = [name for name in found if "general" not in FORMATS[name].traits]
    if not special or found == special:
        return found
    if any(FORMATS[name].questions for name in special):  # its label is the answer to a question
        return special
    read = {field for name in special for field in _reads(FORMATS[name], tuple(seen[name]))}
    return [
        name
        for name in found
        if name in special or {*(FORMATS[name].label or ())} & seen[name].keys() - read
    ]


@lru_cache(1000)
def _changing(cells: bool, *names: str) -> list[Format]:
    """The formats that do not see such records as they are."""
    return [format for format in FORMATS.values() if viewer(format, names, cells)[1]]


@lru_cache(10_000)
def _reads(format: Format, names: tuple[str, ...]) -> frozenset[str]:
    return format.plan(names, ReadOptions()).reads


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

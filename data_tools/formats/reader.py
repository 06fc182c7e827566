"""Reads the records of one format, whose answers may begin with their whole prompt."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from data_tools.formats import fitting
from data_tools.formats.cells import cell_parser
from data_tools.formats.format import Format, ReadOptions, tidy_name, tidy_names
from data_tools.record import (
    BadRecord,
    LabeledComparison,
    Pair,
    Record,
    Result,
    ScoredAnswer,
    Side,
    TreeMessage,
    clip,
)

MEDIA = ("images", "videos", "audios")
"""Fields whose content no pair can hold, in small letters."""

_PLANS = 1000  # sets of field names whose plans are held
_NO_MEDIA = (None, False, 0, "", "[]", [], {})
_ANSWERS = {
    Pair: ("chosen", "rejected"),
    LabeledComparison: ("first", "second"),
    ScoredAnswer: ("answer",),
}


class FormatReader:
    """Makes results of records: pairs, what waits for other records, and faults."""

    def __init__(self, format: Format, options: ReadOptions, keep: tuple[str, ...] = ()):
        self._format, self._options = format, options
        self._keep = tuple(map(tidy_name, keep))
        self._plans: dict[tuple, Callable[[dict], tuple[list[Result], tuple]]] = {}

    def read(self, record: Record) -> tuple[list[Result], tuple[str | None, ...]]:
        """The results of a record, and the values of the columns to keep. Raises BadRecord."""
        value = record.value
        if not isinstance(value, dict):
            detail = f"the record is {clip(value)}, not an object with fields; fix or remove it"
            raise BadRecord("wrong_type", detail)
        names = (record.cells, *value)
        read = self._plans.get(names)
        if read is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            read = self._plans[names] = self._planned(tuple(value), record.cells)
        return read(value)

    def _planned(self, names: tuple[str, ...], cells: bool) -> Callable[[dict], tuple]:
        tidy = tidy_names(names)
        renamed = {new: old for new, old in tidy.items() if new != old}
        fields = tuple(tidy)
        format, options, keep = self._format, self._options, self._keep
        media = [name for name in fields if name.casefold() in MEDIA]
        parse = cell_parser(format.json_fields, fields, format.any_case) if cells else None
        results_of = format.plan(fields, options).results

        def read(value: dict) -> tuple[list[Result], tuple]:
            if renamed:
                value = {new: value[old] for new, old in tidy.items()}
            record = parse(value) if parse else value
            for name in media:
                if record[name] not in _NO_MEDIA:
                    detail = f"{name} next to the text cannot be trained on here; remove the record"
                    raise BadRecord("wrong_type", detail)
            try:
                results = results_of(record)
            except BadRecord as fault:
                if not format.matches(record) and (others := fitting(record)):
                    detail = f"{fault.detail}; it looks like {' or '.join(others)}"
                    raise BadRecord(fault.reason, detail, fault.votes) from None
                raise
            if options.answers_repeat_prompt:
                results = [without_prompt(result) for result in results]
            return results, tuple([as_text(value.get(name)) for name in keep]) if keep else ()

        return read


def as_text(value: Any) -> str | None:
    """A value as --keep stores it: text as it is, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def repeats_prompt(result: Result) -> bool | None:
    """Whether every answer begins with the prompt; None where either is no text."""
    if isinstance(result, BadRecord | TreeMessage):
        return None
    prompt = last_text(result.prompt)
    answers = [last_text(getattr(result, name)) for name in _ANSWERS[type(result)]]
    if prompt is None or None in answers:
        return None
    return bool(prompt.strip()) and all(answer.startswith(prompt) for answer in answers)


def without_prompt(result: Result) -> Result:
    """The result with the prompt removed from its answers; a BadRecord where one lacks it."""
    repeats = repeats_prompt(result)
    if repeats is None:
        return result
    if not repeats:
        return BadRecord(
            "history_mismatch",
            "the answers of this file begin with their prompt, one of these does not; fix the "
            "record",
        )
    length = len(last_text(result.prompt))
    names = _ANSWERS[type(result)]
    return replace(result, **{name: _cut(getattr(result, name), length) for name in names})


def last_text(side: Side) -> str | None:
    """A text, or the content of the last message."""
    return side if isinstance(side, str) else side[-1]["content"] if side else None


def _cut(side: Side, length: int) -> Side:
    if isinstance(side, str):
        return side[length:]
    return [*side[:-1], side[-1] | {"content": side[-1]["content"][length:]}]

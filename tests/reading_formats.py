"""One record through one format: all that the tests know of how formats are read."""

import json
from dataclasses import replace

from data_tools.convert import list_formats
from data_tools.formats import FORMATS
from data_tools.formats.format import ReadOptions
from data_tools.formats.label import parse_label
from data_tools.formats.reader import FormatReader
from data_tools.record import BadRecord, LabeledComparison, Location, Record


def _examples():
    found, name = {}, ""
    for line in list_formats().split("\n"):
        key, _, value = line.strip().partition("   ")
        if key == "example":
            found[name] = json.loads(value)
        elif line and not line.startswith(" "):
            name = line
    return found


EXAMPLES = _examples()
"""A record of every format, as --list-formats shows it."""


def results(name, record, cells=False, label=None, **options):
    """The pairs, pending parts and faults of a record; a fault of the whole record is the only one.

    `label` is the text of --label, `options` are `pairs`, `min_margin` and `question`.
    """
    options = ReadOptions(label=label and parse_label(label), **options)
    if FORMATS[name].questions and isinstance(record, dict) and options.question is None:
        named = FORMATS[name].questions(record, options)  # as detect does, over all records
        options = replace(options, question=named[0] if len(named) == 1 else None)
    try:
        found, _ = FormatReader(FORMATS[name], options).read(
            Record(Location("f", 1, 1), record, cells)
        )
        return found
    except BadRecord as fault:
        return [fault]


def fault(name, record, **options):
    """`reason: detail` of a record that comes to this fault alone."""
    (result,) = results(name, record, **options)
    assert isinstance(result, BadRecord), result
    return f"{result.reason}: {result.detail}"


def check_fault(name, record, expected):
    """Assert that a record comes to one fault, `expected` being `reason: words of its message`."""
    reason, _, words = expected.partition(": ")
    detail = fault(name, record).removeprefix(f"{reason}: ")
    assert fault(name, record) == f"{reason}: {detail}"
    assert [word for word in words.split() if word not in detail] == [], detail


def pairs(name, record, **options):
    """(prompt, chosen, rejected) of each pair of a record, `reason: detail` of each fault."""
    return [
        f"{result.reason}: {result.detail}"
        if isinstance(result, BadRecord)
        else (result.prompt, result.chosen, result.rejected)
        for result in results(name, record, **options)
    ]


def votes(name, record, **options):
    """(first, second, votes) of each comparison of a record."""
    found = results(name, record, **options)
    assert all(isinstance(part, LabeledComparison) for part in found), found
    return [(text(part.first), text(part.second), part.votes) for part in found]


def outcome(name, record, **options):
    """Who won of two answers A and B: `first`, `second`, or the reason why neither did."""
    (result,) = results(name, record, **options)
    if isinstance(result, BadRecord):
        return result.reason
    if isinstance(result, LabeledComparison):
        assert (text(result.first), text(result.second)) == ("A", "B")
        ((_, won),) = result.votes
        return "tie" if won is None else ("first", "second")[won]
    assert {text(result.chosen), text(result.rejected)} == {"A", "B"}
    won = "first" if text(result.chosen) == "A" else "second"
    assert result.first_won in (None, won == "first")
    return won


def text(side):
    """A text, or the content of the last message."""
    return side if isinstance(side, str) else side[-1]["content"]


def kept(done):
    """The texts (prompt, chosen, rejected) of each row that a command wrote."""
    rows = done.rows if done.status == 0 else []  # else they are of an older dataset
    return [tuple(text(row[side]) for side in ("prompt", "chosen", "rejected")) for row in rows]


def rejected(done):
    """(record, reason) of each reject of a command; all its records where it has several."""
    return [(item.get("records", item["record"]), item["reason"]) for item in done.rejects]


def cases(table):
    """(key, value) for each value of a dict of lists, for parametrize; tuples are unpacked."""
    return [
        (*(key if isinstance(key, tuple) else (key,)), *(v if isinstance(v, tuple) else (v,)))
        for key, values in table.items()
        for v in values
    ]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}

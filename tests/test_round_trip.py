"""Known pairs, written in every format and read back: the same texts, the same way, in order."""

import importlib
import json
import random
from pathlib import Path

import pytest
from reading_formats import FORMATS, kept
from shapes_flat import as_cells, as_table

WRITERS = {
    name: write
    for path in sorted(Path(__file__).parent.glob("shapes_*.py"))
    for name, write in importlib.import_module(path.stem).SHAPES.items()
}
FRAMED = ("summarize-from-feedback",)  # whose prompt is made of several fields
APART = ("helpsteer2", "kto", "kto-messages", "kto-sharegpt", "oasst-flat", "rated-singles")
"""Formats with one answer a record."""
WORDS = ["tea", "Is it?", "ja\u0308", "\u4e2d\u6587", "a,b", '"x"', "NA", "None", "007", "true"]
WORDS += ["2024-01-01", "line\nline", " ;", "<b>", "[1, 2]", "\U0001f375", "null", "1e5"]


def known_pairs(count, seed):
    """Distinct prompts, and answers of unusual words that differ from each other."""
    draw = random.Random(seed)

    def words(mark):
        return " ".join([mark, *draw.choices(WORDS, k=draw.randint(1, 6))])

    return [(words(f"P{i}"), words("C"), words("R")) for i in range(count)], draw


SYNTAXES = {
    "raw.jsonl": lambda records: "".join(json.dumps(r) + "\n" for r in records),
    "raw.json": lambda records: json.dumps(records, indent=1),
    "raw.csv": as_table,
}


def test_every_format_that_converts_has_a_writer():
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("name", WRITERS)
def test_known_pairs_come_back_as_they_were_written(name, syntax, convert_file):
    pairs, draw = known_pairs(25, f"{name} {syntax}")
    done = convert_file(SYNTAXES[syntax](WRITERS[name](pairs, draw)), name=syntax)
    assert done.status == 0, done.err
    assert done.report["format"] == name
    if name == "fine-grained-rlhf":  # the other judgements of a vector are ties
        assert {item["reason"] for item in done.rejects} == {"tie"}
    else:
        assert done.rejects == []
    found = kept(done)
    if name in FRAMED:
        found = [
            (p if p in q else q, c, r) for (p, _, _), (q, c, r) in zip(pairs, found, strict=True)
        ]
    assert found == pairs
    # The winner is at a random position, so that a polarity that is always `first` is noticed.
    share = done.report["first_answer_wins"]
    assert share is None or 0 < share < 1


HEIGHTS = {  # the lines of one record
    "raw.jsonl": lambda record: 1,
    "raw.json": lambda record: json.dumps(record, indent=1).count("\n") + 1,
    "raw.csv": lambda record: sum(c.count("\n") for c in as_cells([record])[0].values()) + 1,
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("name", WRITERS)
def test_source_is_the_line_where_the_record_starts(name, syntax, convert_file):
    pairs, draw = known_pairs(6, f"source {name} {syntax}")
    records = WRITERS[name](pairs, draw)
    done = convert_file(SYNTAXES[syntax](records), name=syntax)
    where, line = {}, 1 if syntax == "raw.jsonl" else 2
    for record in records:
        where[f"{syntax}:{line}"] = texts(record)
        line += HEIGHTS[syntax](record)
    for (_, chosen, rejected), row in zip(pairs, done.rows, strict=True):
        found = where[row["source"]]
        assert chosen in found or (name in APART and rejected in found)


def texts(value):
    """All texts inside a record, those in JSON cells too, one after the other."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return "".join(map(texts, value))
    if not isinstance(value, str):
        return ""
    try:
        inner = json.loads(value)
    except ValueError:
        return value
    return value + (texts(inner) if isinstance(inner, list | dict) else "")

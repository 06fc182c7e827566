"""One JSON object that holds a table: by column, or as pandas writes it."""

import json

import pytest
from reading import in_an_empty_folder, items, notes  # noqa: F401

from data_tools.record import Record

ROWS = [{"prompt": f"P{n}", "chosen": f"C{n}", "rejected": f"R{n}"} for n in range(3)]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize(
    "table",
    [
        COLUMNS,
        {name: dict(zip("012", column, strict=True)) for name, column in COLUMNS.items()},
        dict(zip("012", ROWS, strict=True)),
        {"columns": [*COLUMNS], "index": [0, 1, 2], "data": [[*row.values()] for row in ROWS]},
    ],
    ids=["lists", "columns", "index", "split"],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_that_holds_a_table_is_read_as_its_records(table, indent, convert_file):
    content = json.dumps(table, indent=indent)
    found = items("a.json", content)
    assert [(str(item.location), item.value) for item in found] == [
        (f"a.json#{n + 1}", row) for n, row in enumerate(ROWS)
    ]
    assert notes("a.json") == ["a.json: its object is read as a table of 3 records"]
    done = convert_file(content, name="a.json")
    assert [row["prompt"] for row in done.rows] == ["P0", "P1", "P2"]


def turn(role, content):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "P", "chosen": "C", "rejected": "R"},
        {"prompt": "P", "chosen": ["C", "D"], "rejected": ["R", "S"]},
        {name: [turn("user", "P"), turn("assistant", name)] for name in ("chosen", "rejected")},
        {name: turn("assistant", name) for name in ("chosen", "rejected")},
        {"a": [1, 2], "b": [1]},
        {"a": [], "b": []},
        {"a": ["x"]},
        {"columns": ["a", "a"], "data": [[1, 2]]},
        {"columns": ["a"], "data": [[1, 2]]},
    ],
)
def test_an_object_that_is_one_record_stays_one(record):
    (item,) = items("a.json", json.dumps(record))
    assert isinstance(item, Record)
    assert (item.location.line, item.value) == (1, record)
    assert notes("a.json") == []

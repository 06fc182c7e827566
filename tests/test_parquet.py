"""Parquet: every value as plain JSON, every row by its number, and damage in one clear line."""

import datetime
import decimal
import json
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from reading import in_an_empty_folder, items, peak_memory, refusal, rejects  # noqa: F401

from data_tools import readers


def write(**columns):
    parquet.write_table(pa.table(columns), "a.parquet")


def values(array):
    write(a=array)
    return [item.value["a"] for item in items("a.parquet")]


def test_a_row_has_a_number_and_no_line_and_its_values_keep_their_types():
    write(a=["x", None], b=[1, 2], c=[True, None], d=[0.5, 1.0])
    first, second = items("a.parquet")
    assert [str(item.location) for item in (first, second)] == ["a.parquet#1", "a.parquet#2"]
    assert (first.location.line, first.cells) == (None, False)
    assert first.value == {"a": "x", "b": 1, "c": True, "d": 0.5}
    assert second.value == {"a": None, "b": 2, "c": None, "d": 1.0}
    write(a=pa.array([], pa.string()))
    assert items("a.parquet") == []


def test_records_are_numbered_across_batches_and_row_groups():
    parquet.write_table(pa.table({"a": list(range(1700))}), "a.parquet", row_group_size=600)
    found = [(item.location.record, item.value["a"]) for item in items("a.parquet")]
    assert found == [(i + 1, i) for i in range(1700)]


NO_DATE = pa.array([10**16], pa.timestamp("ms"))
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([float("nan"), float("inf"), -float("inf"), 1.5]), [None, None, None, 1.5]),
        (pa.array([decimal.Decimal("1.50"), None]), ["1.50", None]),
        (pa.array([decimal.Decimal("0.0000000001")]), ["0.0000000001"]),
        (pa.array([datetime.date(2024, 1, 1), None]), ["2024-01-01", None]),
        (pa.array([datetime.time(1, 2)]), ["01:02:00"]),
        (pa.array([datetime.datetime(2024, 1, 1, 10)]), ["2024-01-01T10:00:00"]),
        (pa.array([1_500_000_001], pa.timestamp("ns")), ["1970-01-01T00:00:01.500000001"]),
        (pa.array([0], pa.timestamp("ms", "Asia/Tokyo")), ["1970-01-01T09:00:00+09:00"]),
        (NO_DATE, [str(NO_DATE)]),
        (pa.array([b"caf\xc3\xa9", None]), ["café", None]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array(["x", None], pa.large_string()), ["x", None]),
        (pa.array([uuid.UUID(int=1).bytes, None], pa.uuid()), [str(uuid.UUID(int=1)), None]),
        (pa.array(['{"b": 1}'], pa.json_()), ['{"b": 1}']),
        (pa.nulls(2), [None, None]),
        (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), [[1, 2], None, [3, 4]]),
        (pa.array([[[b"x"], None], [], None, [[]]]), [[["x"], None], [], None, [[]]]),
        (pa.array([TURNS, None, [], [None]]), [TURNS, None, [], [None]]),
        (
            pa.array([[("b", 1)], None, [("b", 1), ("c", None)]], pa.map_(pa.string(), pa.int8())),
            [{"b": 1}, None, {"b": 1, "c": None}],
        ),
        (pa.array([[("b", 1), ("b", 2)]], pa.map_(pa.string(), pa.int8())), [[["b", 1], ["b", 2]]]),
        (pa.array([[(1, "x")]], pa.map_(pa.int8(), pa.string())), [[[1, "x"]]]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_every_type_becomes_the_json_value_of_the_same_meaning(array, expected):
    assert values(array) == expected


PLAIN = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NESTED = st.none() | st.lists(
    st.none()
    | st.fixed_dictionaries({"r": PLAIN, "c": st.none() | st.lists(st.none() | st.integers(0, 9))}),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(NESTED, max_size=8), batch=st.integers(1, 4))
def test_nested_rows_are_what_arrow_gives_whatever_the_batch_size(rows, batch):
    kind = pa.list_(pa.struct({"r": pa.string(), "c": pa.list_(pa.int64())}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers.parquet, "_ROWS", batch)
        assert values(pa.array(rows, kind)) == rows


def test_binary_values_that_are_no_text_are_kept_in_base64():
    write(a=[b"x", b"caf\xe9", b"\0"], b=[[b"y"], [b"\xff", None], None])
    assert [item.value for item in items("a.parquet")] == [
        {"a": "x", "b": ["y"]},
        {"a": {"base64": "Y2Fm6Q=="}, "b": [{"base64": "/w=="}, None]},
        {"a": {"base64": "AA=="}, "b": None},
    ]


@pytest.mark.parametrize("read", ["prompt", "chosen"])
def test_a_binary_value_that_is_read_as_a_side_rejects_its_record(convert_file, read):
    sides = {"prompt": ["P", "Q"], "chosen": ["C", "D"], "rejected": ["R", "S"]}
    write(**sides | {read: [b"\xff", b"text"]})
    done = convert_file(Path("a.parquet").read_bytes(), name="a.parquet")
    detail = f"{read} holds bytes that do not decode; export that column as text"
    assert [(r["record"], r["reason"], r["detail"]) for r in done.rejects] == [
        (1, "bad_encoding", detail)
    ]
    assert len(done.rows) == 1
    write(**sides | {"id": [b"\xff", b"text"]})  # which nothing reads
    assert len(convert_file(Path("a.parquet").read_bytes(), name="a.parquet").rows) == 2


def test_a_string_column_that_is_no_text_rejects_its_own_row_only():
    offsets, data = b"\0\0\0\0\3\0\0\0\4\0\0\0", b"\xed\xa0\x80a"  # a lone surrogate, then a
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    write(a=pa.Array.from_buffers(pa.string(), 2, buffers))
    assert items("a.parquet")[1].value == {"a": "a"}
    (reject,) = rejects("a.parquet")
    assert reject[1] == "bad_encoding"
    assert reject[2].endswith("; export that column as text")
    assert reject[3] == '{"a": "\\xed\\xa0\\x80"}'


def test_a_nul_character_rejects_its_row_however_deep():
    write(a=["x\0y", "z"], b=[["1"], ["\0"]])
    plain, nested = rejects("a.parquet")
    detail = "a value holds a NUL character; remove it, or export that column as text"
    assert plain[1:3] == nested[1:3] == ("nul_byte", detail)
    assert json.loads(nested[3]) == {"a": "z", "b": ["\0"]}


def test_a_file_damaged_in_its_middle_is_refused_with_the_last_record():
    table = pa.table({"a": [os.urandom(8).hex() for _ in range(2000)]})
    parquet.write_table(table, "a.parquet", row_group_size=1000, write_page_checksum=True)
    content = bytearray(Path("a.parquet").read_bytes())
    start = parquet.ParquetFile("a.parquet").metadata.row_group(1).column(0).data_page_offset
    content[start + 100] ^= 1
    assert "is damaged after record 1000 (" in refusal("a.parquet", bytes(content))


def test_rows_are_held_a_batch_at_a_time():
    long = os.urandom(500_000).hex()
    table = pa.table({"a": [long[i : i + 20_000] for i in range(8_000)]})
    parquet.write_table(table, "a.parquet", row_group_size=10_000)
    assert peak_memory("a.parquet") < 80_000_000

"""A JSON array in bounded memory: its elements, their lines, and what cannot be an array."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import in_an_empty_folder, items, notes, read, refusal, rejects  # noqa: F401

from data_tools.readers import json_records

FIX = "fix the record or remove it"


def records(text):
    return read("f.json", text)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_element_has_the_line_where_it_begins(end):
    text = json.dumps([{"a": [1, 2]}, {"b": {"c": "x"}}, 7, "s"], indent=2).replace("\n", end)
    assert records(text) == [(2, {"a": [1, 2]}), (8, {"b": {"c": "x"}}), (13, 7), (14, "s")]


def test_elements_that_share_a_line_are_located_by_their_number():
    text = '[{"a": 1}, {"a": 2},\n {"a": 3},\n {"a": 4}\n, {"a": 5}, 6]'
    locations = [str(item.location).removeprefix("f.json") for item in items("f.json", text)]
    assert locations == ["#1", "#2", ":2", ":3", "#5", "#6"]


def test_an_invalid_element_is_rejected_alone():
    sources = [
        b'{"a": tru, "b": "]}"}',
        b"{'a': 3}",
        b"none",
        b'{"a": 5, "a": 5}',
        b"",
        b"[" * 9999 + b"]" * 9999,
        rb'{"a": "\ud800"}',
        b'{"a": "caf\xe9"}',
        b'{"a": "\0"}',
    ]
    found = read("f.json", b'[{"a": 1},\n' + b",\n".join(sources) + b',\n{"a": 9}]')
    assert (found[0], found[-1]) == ((1, {"a": 1}), (11, {"a": 9}))
    reasons = ["bad_json"] * 6 + ["bad_encoding", "bad_encoding", "nul_byte"]
    assert found[1:-1] == list(zip(range(2, 11), reasons, strict=True))
    shown = [source.decode("utf-8", "backslashreplace") for source in sources]
    assert [raw for *_, raw in rejects("f.json")] == shown


def test_the_place_of_an_error_counts_from_the_start_of_its_element():
    ((line, reason, detail, _),) = rejects("f.json", '[\n{"a": 1,\n "b": 2,\n "c": tru}]')
    assert (line, reason) == (2, "bad_json")
    assert detail == f"this is not valid JSON: expected ident at its line 3 column 10; {FIX}"


def test_a_comma_before_the_closing_bracket_is_harmless():
    assert records('[{"a": 1},\n]\n') == [(1, {"a": 1})]
    for text in ("", "  \n", "[]", " [ \n ] "):
        assert records(text) == []


def test_an_array_that_breaks_off_is_refused_with_its_last_record():
    for text, record in (('[\n{"a": 1}', 0), ("[1,\n2", 1), ('[1, 2,\n{"a": "x', 2)):
        assert refusal("f.json", text) == (
            f"f.json: the array is unfinished: it breaks off on line 2 after record {record}; "
            "fetch the file again"
        )


def test_json_lines_in_a_json_file_are_read_and_noted():
    assert records('{"a": 1}\n\n{"a": 2}\n') == [(1, {"a": 1}), (3, {"a": 2})]
    assert notes("f.json") == ["f.json: read as JSON Lines, by its content"]
    assert records('{"a": 1,}\n{"a": 2}\n') == [(1, "bad_json"), (2, {"a": 2})]


def test_an_object_around_one_list_is_read_as_that_list():
    text = json.dumps({"version": 1, "tags": ["x"], "data": [{"a": 1}, {"a": 2}], "n": 2}, indent=1)
    assert records(text) == [(7, {"a": 1}), (10, {"a": 2})]
    assert notes("f.json") == ["f.json: the records are the list under 'data'"]
    for text, line in (('{"data": [\n{"a": 1}\n]}', 2), ('{\n"data":\n[{"a": 1}]}', 3)):
        assert records(text) == [(line, {"a": 1})]  # no JSON Lines, though one line is an object
    two = {"train": [{"a": 1}], "test": [{"a": 2}]}
    assert records(json.dumps(two, indent=1)) == [(1, two)]
    assert records('\n{"a": 1}\n') == [(2, {"a": 1})]
    assert notes("f.json") == []


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\]', max_size=3), inner)
    ),
    max_leaves=8,
)
SPACE = st.text(" \t\r\n", max_size=4)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), values=st.lists(VALUES, max_size=5), chunk=st.integers(1, 7))
def test_any_array_in_any_chunks_has_the_values_and_lines_that_counting_gives(data, values, chunk):
    text, lines = data.draw(SPACE) + "[", []
    for number, value in enumerate(values):
        text += ("," if number else "") + data.draw(SPACE)
        lines.append(text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1)
        indent = data.draw(st.sampled_from([None, 1]))
        text += json.dumps(value, ensure_ascii=False, indent=indent) + data.draw(SPACE)
    text += "]" + data.draw(SPACE)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "_CHUNK", chunk)
        found = items(str(Path(folder, "f.json")), text)
    assert [item.value for item in found] == json.loads(text)
    assert [item.location.line for item in found] == lines
    assert [item.location.record for item in found] == list(range(1, len(values) + 1))

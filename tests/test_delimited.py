"""CSV and TSV: each row with its line, each broken row by itself, each cell as text."""

import json
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import (  # noqa: F401
    in_an_empty_folder,
    items,
    notes,
    read,
    read_in_blocks,
    refusal,
    rejects,
)

from data_tools.readers import blocks
from data_tools.record import Record

BROKEN = "a quoted cell is not closed, or text follows its closing quote"
QUOTES = "double the quotes inside a quoted cell"


def rows(content, name="f.csv"):
    """(line, cells) of every row that was read, (line, reason) of every one that was not."""
    found = read(name, content)
    return [(line, what if isinstance(what, str) else [*what.values()]) for line, what in found]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_has_the_line_where_it_starts_and_keeps_its_line_ends(end):
    lines = ["a,b", '"one', 'two",x', "", "   ", '3,"y', "", 'z"', "4,w"]
    assert rows(end.join(lines)) == [
        (2, [f"one{end}two", "x"]),
        (6, ["3", f"y{end}{end}z"]),
        (9, ["4", "w"]),
    ]


def test_every_cell_is_the_text_in_the_file():
    cells = ["NA", "None", "null", "007", "True", "2024-01-01", "1e5", " padded ", "", "nan"]
    header = ",".join(f"c{i}" for i in range(len(cells)))
    (item,) = items("f.csv", f"{header}\n{','.join(cells)}\n")
    assert ([*item.value.values()], item.cells) == (cells, True)
    assert rows('a,b\n5" pipe,ok\n') == [(2, ['5" pipe', "ok"])]
    assert rows("a\tb\n1,5\t2\n", "f.tsv") == [(2, ["1,5", "2"])]
    assert rows(f"a,b\n{'x' * 300_000},1\n") == [(2, ["x" * 300_000, "1"])]


def test_a_ragged_row_is_rejected_with_its_line_and_its_text():
    content = "a,b\n1\n2,3\n4,5,6\n"
    assert rows(content) == [(2, "ragged_row"), (3, ["2", "3"]), (4, "ragged_row")]
    fix = "quote cells that hold the delimiter, or fill the missing ones"
    assert rejects("f.csv") == [
        (2, "ragged_row", f"the row has 1 cells where the header has 2; {fix}", "1"),
        (4, "ragged_row", f"the row has 3 cells where the header has 2; {fix}", "4,5,6"),
    ]


def test_reading_continues_on_the_next_line_after_a_quote_that_is_never_closed():
    assert rows('a,b\n1,2\n3,"open\n5,6\n7,8\n') == [
        (2, ["1", "2"]),
        (3, "ragged_row"),
        (4, ["5", "6"]),
        (5, ["7", "8"]),
    ]
    detail = f"{BROKEN} (unexpected end of data); {QUOTES}"
    assert rejects("f.csv") == [(3, "ragged_row", detail, '3,"open')]
    found = rows('a,b\n3,"open\n5,6\n"seven\neight",9\n')  # where a later quote closes it
    assert found == [(2, "ragged_row"), (3, ["5", "6"]), (4, ["seven\neight", "9"])]


def test_text_after_a_closing_quote_is_rejected_instead_of_fixed():
    assert rows('a,b\n"x"y,2\n"x""y",3\n"two\nlines",4\n') == [
        (2, "ragged_row"),
        (3, ['x"y', "3"]),
        (4, ["two\nlines", "4"]),
    ]
    detail = f"{BROKEN} (',' expected after '\"'); {QUOTES}"
    assert rejects("f.csv") == [(2, "ragged_row", detail, '"x"y,2')]


def test_bytes_that_do_not_decode_and_nul_reject_their_own_row_only():
    content = b'a,b\n1,caf\xe9\n2,ok\n3,nul\0\n"\xe9"x,2\n'
    reasons = ["bad_encoding", ["2", "ok"], "nul_byte", "bad_encoding"]  # the last before quotes
    assert [what for _, what in rows(content)] == reasons
    assert [raw for *_, raw in rejects("f.csv")] == [r"1,caf\xe9", "3,nul\0", r'"\xe9"x,2']


def test_another_delimiter_is_found_in_the_header_and_noted():
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
        assert rows(f"a{mark}b\n1{mark}2,5\n") == [(2, ["1", "2,5"])]
        assert notes("f.csv") == [f"f.csv: cells are separated by {name}"]
        assert rows(f"a,b{mark}c\n1,2{mark}3\n") == [(2, ["1", f"2{mark}3"])]
        assert notes("f.csv") == []


def test_the_header_may_follow_blank_lines_and_have_white_space_around_its_names():
    assert read("f.csv", "\n  \n a ;b\n1; 2\n") == [(4, {"a": "1", "b": " 2"})]
    assert read("f.csv", ",a\n0,x\n") == [(2, {"": "0", "a": "x"})]  # as pandas writes its index
    assert read("f.csv", "a,b") == read("f.csv", "a,b\n") == read("f.csv", "\n \n") == []


@pytest.mark.parametrize("blank", ["", "\n\n", "\r\n \r\n", "\r\r"])
def test_a_header_that_cannot_be_read_is_refused_with_the_line_where_it_begins(blank):
    line = 3 if blank else 1
    assert refusal("f.csv", f'{blank}a,"b\n1,2\n') == (
        f"f.csv:{line}: the header row cannot be read (unexpected end of data); fix its quotes"
    )
    assert refusal("f.csv", blank.encode() + b"a,caf\xe9\n1,2\n").startswith(
        rf"f.csv:{line}: the header holds bytes that do not decode (near 'a caf\\xe9')"
    )
    assert refusal("f.csv", f'{blank}"a\nb","a\nb"\n1,2\n') == (
        rf"f.csv:{line}: the column 'a\nb' appears 2 times; "
        "rename them so that each is clear"
    )


def test_a_header_row_that_is_repeated_is_rejected():
    detail = "the row repeats the header and is no record; join tables without it"
    content = "a,b\n1,2\na , b\n3,4\n"
    assert rejects("f.csv", content) == [(3, "wrong_type", detail, "a , b")]


def test_quotes_that_open_on_every_row_take_linear_time():
    start = time.process_time()
    found = rows("a,b\n" + 'x","\n' * 40_000)  # a minute and a half in quadratic time
    assert time.process_time() - start < 10
    assert found == [(line, "ragged_row") for line in range(2, 40_002)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "\r", "WORD"]), max_size=25))
def test_every_word_of_any_file_is_in_a_record_or_a_reject(pieces):
    words = iter(f"<{i}>" for i in range(25))
    text = "".join(next(words) if piece == "WORD" else piece for piece in pieces)
    with tempfile.TemporaryDirectory() as folder:
        found = items(str(Path(folder, "f.csv")), "first,second\n" + text)
    kept = " ".join(
        "".join(i.value.values()) if isinstance(i, Record) else json.loads(i.raw) for i in found
    )
    assert all(word in kept for word in text.replace('"', " ").replace(",", " ").split())
    lines = [item.location.line for item in found]
    assert lines == sorted(set(lines))


# What may be above a header, and cells that no row has.


@pytest.mark.parametrize("mark", [";", "\t", "|", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_first_line_of_excel_names_the_delimiter_and_is_no_header(mark, end):
    for first in (f"sep={mark}", f"SEP={mark}"):
        content = end.join([first, f"a{mark}b,c", f"1{mark}2", ""])
        if mark == ",":
            content = content.replace("b,c", "b")
        assert [(line, cells) for line, cells in rows(content)] == [(3, ["1", "2"])]
        assert read_in_blocks("f.csv") == items("f.csv")
    assert rows("sep=:\na:b\n1:2\n") == [(3, ["1", "2"])]
    assert notes("f.csv") == ["f.csv: cells are separated by ':'"]
    assert read("f.csv", "sep=;\n") == []


@pytest.mark.parametrize(
    "above", ["Results of May\n", "Results of May,,\n,,\n", '\n"Results,\nMay"\nsecond title\n\n']
)
def test_titles_above_the_header_of_a_csv_are_skipped_and_noted(above):
    line = above.count("\n") + 2
    content = f"{above}a,b,c\n1,2,3\n4,5,6\n"
    assert rows(content) == [(line, ["1", "2", "3"]), (line + 1, ["4", "5", "6"])]
    note = "f.csv: 'a, b, c' is read as the header; --header-row names another row"
    assert notes("f.csv") == [note]
    assert read_in_blocks("f.csv") == items("f.csv")


def test_the_line_of_the_header_can_be_named():
    content = "exported,2024\nby,me\na,b\n1,2\n"
    assert [item.value for item in items("f.csv", content, header_row=3)] == [{"a": "1", "b": "2"}]
    assert [item.location.line for item in items("f.csv", header_row=3)] == [4]
    assert refusal("f.csv", header_row=9) == "f.csv: --header-row 9: there is no such row"
    long = "x,y\n" * 999 + content
    assert [i.location.line for i in items("f.csv", long, header_row=1002)] == [1003]
    first = blocks.first_span("f.csv", None, 1002)
    ((found, stop),) = [blocks.read_span(span) for span in blocks.cut(first)]
    assert ([i.value for i in found], stop) == ([{"a": "1", "b": "2"}], len(long))


def test_a_header_is_not_skipped_because_of_unquoted_delimiters_below_it():
    content = "prompt,chosen,rejected\n" + "a, b, c, d, e, f\n" * 5
    assert [reason for _, reason in rows(content)] == ["ragged_row"] * 5


def test_rows_that_all_lack_the_same_cells_at_their_end_have_empty_ones():
    assert rows("a,b,c,d\n1,2\n3,4\n") == [(2, ["1", "2", "", ""]), (3, ["3", "4", "", ""])]
    assert notes("f.csv") == ["f.csv: c, d are empty: no row has these cells"]
    later = "a,b,c,d\n" + "1,2\n" * 300 + "1,2,3\n1,2,3,4\n"
    assert [cells for _, cells in rows(later)[-2:]] == ["ragged_row", ["1", "2", "3", "4"]]
    assert read_in_blocks("f.csv") == items("f.csv")
    assert [cells for _, cells in rows("a,b,c\n1,2\n1,2,3\n")] == ["ragged_row", ["1", "2", "3"]]
    assert [cells for _, cells in rows("a,b,c\n1,2\n")] == ["ragged_row"]  # one shows nothing
    assert [cells for _, cells in rows("a,b\n1\n2\n")] == ["ragged_row", "ragged_row"]
